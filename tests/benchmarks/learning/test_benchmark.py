"""The benchmark itself, tiny: phantoms, the round loop, scores, tables; and going on after an interruption."""

import json
import shutil
from dataclasses import replace

import pytest

from benchmarks.learning.__main__ import main
from benchmarks.learning.plan import LearningPlan
from benchmarks.learning.quick import CASES, QUICK_ARMS, shrink
from benchmarks.learning.results import ArmResult, Job, discard, keep_result, read_result

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning")
    assert main(["--quick", "--processes", "1", "--out", str(folder)]) == 0
    return folder


def read(out, arm: str) -> ArmResult:
    return ArmResult.model_validate_json((out / "101" / f"{arm}.json").read_bytes())


def without_times(result: ArmResult) -> dict:
    # Reports hold seconds, whose digits are bytes.
    return result.model_dump() | {"seconds": 0, "mib_up": 0, "software": ""}


def test_every_kind_of_arm_gives_a_row(out) -> None:
    rows = json.loads((out / "development.json").read_text())["arms"]
    assert [row["arm"]["name"] for row in rows] == list(QUICK_ARMS)
    assert all((out / f"development{end}").stat().st_size > 500 for end in (".md", "-differences.png", "-curves.png"))


def test_a_result_holds_all_subsets_of_both_held_out_hospitals(out) -> None:
    for arm in QUICK_ARMS:
        result = read(out, arm)
        assert {site: len(rows) for site, rows in result.held_out.items()} == {"development": 15, "test": 15}
        assert {len(rows) for site in result.held_out.values() for rows in site.values()} == {CASES}
        assert set(result.own) == {"full", "no-t1ce", "flair-only", "segmentation-only"}
        assert [point.round for point in result.curve] == [0, 1, 2, 3]


def test_a_federation_exchanges_and_a_pool_does_not(out) -> None:
    federated, pooled, filled, semi = (read(out, arm) for arm in QUICK_ARMS)
    assert federated.mib_down > 0
    assert federated.mib_up > 0
    assert filled.mib_down > federated.mib_down, "every hospital gets every encoder"
    assert (pooled.mib_down, pooled.mib_up) == (0, 0)
    assert federated.steps == pooled.steps == 3 * 8 * 5, "the hospital without labels makes none"
    assert semi.steps == federated.steps + 8, "unless the model labels for it, once it has been validated"
    assert set(semi.joined.values()) == {3}
    assert federated.joined == {}


def test_an_interrupted_arm_goes_on_to_the_same_result(out, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("benchmarks.learning.__main__.commit", lambda: "0ther11")
    shutil.copytree(out, tmp_path / "again")
    again = tmp_path / "again"
    (again / "101" / "gmmas.json").unlink()
    (again / "101" / "gmmas" / "result.json").unlink()
    shutil.rmtree(again / "101" / "gmmas" / "rounds" / "0003")
    kept = (again / "101" / "pooled.json").stat().st_mtime_ns
    assert main(["--quick", "--processes", "1", "--out", str(again)]) == 0
    assert without_times(read(again, "gmmas")) == without_times(read(out, "gmmas"))
    assert read(again, "gmmas").commits == (*read(out, "gmmas").commits, "0ther11")
    assert (again / "101" / "pooled.json").stat().st_mtime_ns == kept


def test_a_failed_arm_is_told_and_the_others_count(out, tmp_path, capsys, monkeypatch) -> None:
    from benchmarks.learning import jobs

    def fail(job):
        raise RuntimeError("no memory for this one")

    shutil.copytree(out, tmp_path / "again")
    (tmp_path / "again" / "101" / "pooled.json").unlink()
    monkeypatch.setattr(jobs, "_train_and_score", fail)
    assert main(["--quick", "--processes", "1", "--out", str(tmp_path / "again")]) == 1
    shown = capsys.readouterr().out
    assert "arm pooled, seed 101 failed: RuntimeError: no memory for this one" in shown
    assert "| fedavg-zero-fill |" in shown
    assert "- **failed**: `pooled` 101: RuntimeError: no memory for this one" in shown
    assert "no memory" in (tmp_path / "again" / "101" / "pooled.log").read_text()


def test_a_kept_result_counts_where_the_working_folder_is_gone(out, tmp_path) -> None:
    plan = shrink(LearningPlan.read())
    job = Job(out, plan, plan.arm("pooled"), plan.seeds[0], "", tmp_path / "kept")
    job.result_path.write_text(read(out, "pooled").model_copy(update={"software": "abc1234"}).model_dump_json())
    assert keep_result(job)
    elsewhere = replace(job, out=tmp_path / "nowhere")
    assert read_result(elsewhere) is not None
    assert read_result(elsewhere) == read_result(job)
    assert read_result(replace(elsewhere, arm=plan.arm("gmmas"))) is None
    assert not keep_result(replace(elsewhere, arm=plan.arm("gmmas")))
    other = plan.arm("pooled").model_copy(update={"changes": {"training.learning_rate": 0.1}})
    assert read_result(replace(elsewhere, arm=other)) is None, "of another experiment"
    discard(elsewhere)
    assert read_result(elsewhere) is None


def test_nothing_is_run_for_a_report(tmp_path, capsys) -> None:
    assert main(["--quick", "--report", "--out", str(tmp_path)]) == 0
    assert "nothing to show" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_an_unknown_arm_is_refused(tmp_path, capsys) -> None:
    assert main(["--quick", "--arms", "nobody", "--out", str(tmp_path)]) == 1
    assert "no such arm" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--quick", "--final", "--out", str(tmp_path)])
