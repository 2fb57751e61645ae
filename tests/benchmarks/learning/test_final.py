import json

import pytest

from benchmarks.learning import __main__ as command
from benchmarks.learning.final import check_final, required
from benchmarks.learning.plan import LearningPlan
from benchmarks.learning.results import Job, keep_result
from gmmas_schema.errors import ConfigError
from tests.benchmarks.learning.results import make_result

SKILL = 0.6


@pytest.fixture(scope="module")
def plan() -> LearningPlan:
    """Return the plan with few main arms and seeds."""
    return LearningPlan.read().model_copy(update={"main": ("gmmas", "pooled", "semi"), "seeds": (101, 102), "more_seeds": ()})


@pytest.fixture
def bench(tmp_path, plan, monkeypatch):
    """Return how to call the benchmark with a working folder and committed results of its own, and how to keep results there."""
    monkeypatch.setattr(command.LearningPlan, "read", lambda: plan)
    monkeypatch.setattr(command, "KEPT", tmp_path / "kept")
    monkeypatch.setattr(command, "FINAL", tmp_path / "results" / "learning")
    for draw in ("draw_differences", "draw_curves"):
        monkeypatch.setattr(command, draw, lambda *_: None)
    (tmp_path / "results").mkdir()

    def keep(*runs: tuple[str, int]) -> None:
        for arm, seed in runs:
            job = Job(tmp_path / "out", plan, plan.arm(arm), seed, "", tmp_path / "kept")
            job.folder.parent.mkdir(parents=True, exist_ok=True)
            job.result_path.write_text(make_result(plan, job.arm, seed, skill=SKILL).model_dump_json())
            assert keep_result(job)

    return lambda *words: command.main([*words, "--report", "--out", str(tmp_path / "out")]), keep, tmp_path / "results"


def test_every_main_arm_with_every_seed_is_required(plan, tmp_path) -> None:
    whole = required(plan)
    assert len(whole) == len(plan.main) * len(plan.seeds)
    nothing = tmp_path / "none.json"
    check_final(plan, whole, committed=nothing)
    with pytest.raises(ConfigError, match=f"no result of `{plan.main[0]}` {plan.seeds[0]};? ?") as error:
        check_final(plan, whole[1:], committed=nothing)
    assert "--incomplete" in error.value.remedy
    check_final(plan, whole[1:], committed=nothing, incomplete=True)


def test_more_seeds_are_required_of_the_arms_that_have_them(plan) -> None:
    more = plan.model_copy(update={"more_seeds": (104,), "many": ("semi", "wire-int8")})
    assert set(required(more)) - set(required(plan)) == {("semi", 104)}


def test_nothing_of_a_fuller_table_is_lost_by_accident(plan, tmp_path) -> None:
    rows = [{"arm": {"name": arm}, "seeds": [101, 102], "unpaired": []} for arm in plan.main]
    rows.append({"arm": {"name": "fedadam"}, "seeds": [101, 102], "unpaired": [103]})
    committed = tmp_path / "learning.json"
    committed.write_text(json.dumps({"arms": rows}))
    with pytest.raises(ConfigError, match="holds more") as error:
        check_final(plan, required(plan), committed=committed, incomplete=True)
    assert all(f"fedadam {seed}" in error.value.got for seed in (101, 102, 103))
    check_final(plan, [*required(plan), *(("fedadam", seed) for seed in (101, 102, 103))], committed=committed)
    check_final(plan, required(plan), committed=committed, replace=True)


def test_a_final_table_of_some_arms_is_refused_before_anything_is_run(bench, capsys) -> None:
    call, _, results = bench
    assert call("--final", "--arms", "semi") == 1
    assert "of all main arms and seeds" in capsys.readouterr().out
    assert not list(results.iterdir())


def test_the_final_table_waits_for_the_last_run(bench, plan, capsys) -> None:
    call, keep, results = bench
    *most, last = required(plan)
    keep(*most)
    assert call("--final") == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert f"no result of `{last[0]}` {last[1]} " in shown
    assert not list(results.iterdir())
    keep(last)
    assert call("--final") == 0
    content = json.loads((results / "learning.json").read_text())
    assert (content["site"], content["incomplete"], content["missing"]) == ("test", False, [])
    assert [row["arm"]["name"] for row in content["arms"]] == [arm.name for arm in plan.arms if arm.name in plan.main]


def test_an_incomplete_final_page_says_so_and_never_replaces_a_whole_one(bench, plan, capsys) -> None:
    call, keep, results = bench
    keep(*((arm, seed) for arm in ("gmmas", "pooled") for seed in plan.seeds))
    assert call("--final", "--incomplete", "--arms", "pooled") == 0
    text = (results / "learning.md").read_text()
    assert text.startswith("**INCOMPLETE")
    assert text.splitlines()[0].endswith("have no result here: `semi` 101, 102.")
    keep(*required(plan))
    assert call("--final") == 0
    whole = (results / "learning.md").read_text()
    assert "INCOMPLETE" not in whole
    assert call("--final", "--incomplete", "--arms", "pooled") == 1
    assert "holds more than this one would" in capsys.readouterr().out
    assert (results / "learning.md").read_text() == whole


def test_flags_of_the_final_table_go_with_it(bench) -> None:
    call, *_ = bench
    for flag in ("--incomplete", "--replace"):
        with pytest.raises(SystemExit):
            call(flag)
