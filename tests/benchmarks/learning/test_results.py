import gzip
import json
from dataclasses import replace

import pytest

from benchmarks.learning import __main__ as command
from benchmarks.learning.jobs import _open_run
from benchmarks.learning.plan import LearningPlan
from benchmarks.learning.results import ArmResult, Failure, Job, Missing, discard, keep_result, name_runs, read_result, why_missing
from gmmas_schema.errors import ConfigError
from tests.benchmarks.learning.results import make_result


@pytest.fixture
def job(tmp_path) -> Job:
    plan = LearningPlan.read()
    job = Job(tmp_path / "out", plan, plan.arm("semi"), 101, "abc1234", tmp_path / "kept")
    job.folder.parent.mkdir(parents=True)
    return job


def finish(job: Job, *, software: str) -> ArmResult:
    result = make_result(job.plan, job.arm, job.seed, skill=0.6, software=software)
    job.result_path.write_text(result.model_dump_json())
    return result


def test_a_result_of_software_in_no_commit_is_not_kept(job) -> None:
    finish(job, software="abc1234, def5678-dirty")
    with pytest.raises(ConfigError, match="in no commit") as error:
        keep_result(job)
    assert (error.value.where, error.value.got) == ("arm semi, seed 101", "abc1234, def5678-dirty")
    assert not job.kept_path.exists()
    finish(job, software="abc1234, def5678")
    assert keep_result(job)
    assert read_result(replace(job, out=job.out / "elsewhere")).commits == ("abc1234", "def5678")


def test_what_is_kept_already_stays_readable_and_is_not_refused(job) -> None:
    """Results were kept before this was asked of them."""
    result = finish(job, software="abc1234-dirty")
    job.kept_path.parent.mkdir(parents=True)
    job.kept_path.write_bytes(gzip.compress(result.model_dump_json().encode() + b"\n", mtime=0))
    before = job.kept_path.read_bytes()
    assert keep_result(job)
    job.result_path.unlink()
    assert keep_result(job)
    assert job.kept_path.read_bytes() == before
    assert read_result(job).software == "abc1234-dirty"


def test_a_refused_result_is_named_and_the_others_are_kept(job, monkeypatch, capsys) -> None:
    monkeypatch.setattr(command, "KEPT", job.kept)
    monkeypatch.setattr(command, "draw_differences", lambda *_: None)
    monkeypatch.setattr(command, "draw_curves", lambda *_: None)
    reference = replace(job, arm=job.plan.arm("gmmas"))
    finish(job, software="abc1234-dirty")
    finish(reference, software="abc1234")
    assert command.main(["--report", "--keep", "--arms", "semi", "--seeds", "101", "--out", str(job.out)]) == 1
    shown = capsys.readouterr().out
    assert "arm semi, seed 101" in shown
    assert "1 results are kept" in shown
    assert (reference.kept_path.exists(), job.kept_path.exists()) == (True, False)
    assert (job.out / "development.md").exists()


def test_why_there_is_no_result(job) -> None:
    assert why_missing(job) == Missing(arm="semi", seed=101, state="not run")
    folder = _open_run(job)
    for number in range(4):
        (folder.path / "rounds" / f"{number:04d}").mkdir(parents=True)
    assert why_missing(job) == Missing(arm="semi", seed=101, state="unfinished", detail="3 of 24 rounds")
    job.failure_path.write_text(Failure(experiment=job.experiment, reason="MemoryError: no room").model_dump_json())
    assert why_missing(job) == Missing(arm="semi", seed=101, state="failed", detail="MemoryError: no room")
    other = replace(job, arm=job.arm.model_copy(update={"drawn": 0.5}))
    assert why_missing(other).state == "not run", "that was another experiment"
    discard(job)
    assert why_missing(job).state == "not run"


def test_a_page_names_what_failed_and_what_is_not_done(job, monkeypatch) -> None:
    for name in ("draw_differences", "draw_curves"):
        monkeypatch.setattr(command, name, lambda *_: None)
    monkeypatch.setattr(command, "KEPT", job.kept)
    finish(replace(job, arm=job.plan.arm("gmmas")), software="abc1234")
    job.failure_path.write_text(Failure(experiment=job.experiment, reason="MemoryError: no room").model_dump_json())
    assert command.main(["--report", "--arms", "semi", "--seeds", "101,102", "--out", str(job.out)]) == 0
    text = (job.out / "development.md").read_text()
    assert "- **failed**: `semi` 101: MemoryError: no room" in text
    assert "- **not run yet**: `gmmas` 102; `semi` 102" in text
    assert {(run["arm"], run["seed"]) for run in json.loads((job.out / "development.json").read_text())["missing"]} == {
        ("semi", 101),
        ("semi", 102),
        ("gmmas", 102),
    }


def test_runs_in_words() -> None:
    assert name_runs([("few", 101), ("semi", 103), ("few", 102)]) == "`few` 101, 102; `semi` 103"
