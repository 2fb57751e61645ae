from dataclasses import replace

import pytest

from benchmarks.learning import jobs
from benchmarks.learning.jobs import SOFTWARE, _note_software, _open_run, _trained_by, run_job
from benchmarks.learning.plan import LearningPlan
from benchmarks.learning.results import EXPERIMENT, Job, why_missing
from gmmas_schema.site import SplitConfig


@pytest.fixture
def job(tmp_path) -> Job:
    plan = LearningPlan.read()
    return Job(tmp_path, plan, plan.arm("adapter-1"), 101, "abc1234")


def test_a_run_goes_on_where_it_was(job) -> None:
    _open_run(job)
    (job.folder / "left").touch()
    assert _open_run(job).config == job.experiment.federation
    assert (job.folder / "left").exists()


@pytest.mark.parametrize("change", ["anchors", "split", "patients"])
def test_a_run_of_another_experiment_is_not_gone_on_with_though_its_federation_is_the_same(job, change) -> None:
    _open_run(job)
    (job.folder / "left").touch()
    job.result_path.write_text("of the other one")
    others = {
        "anchors": replace(job, arm=job.arm.model_copy(update={"scramble_anchors": True})),
        "split": replace(job, plan=job.plan.model_copy(update={"split": SplitConfig(validation=0.3, test=0.2)})),
        "patients": replace(job, plan=job.plan.model_copy(update={"phantoms": job.plan.phantoms.model_copy(update={"spacing_mm": 3.0})})),
    }
    assert others[change].experiment.federation == job.experiment.federation
    _open_run(others[change])
    assert not (job.folder / "left").exists()
    assert not job.result_path.exists()


def test_a_run_of_before_experiments_were_noted_begins_anew(job) -> None:
    _open_run(job)
    (job.folder / "left").touch()
    (job.folder / EXPERIMENT).unlink()
    _open_run(job)
    assert not (job.folder / "left").exists()


def train(job: Job, rounds: int) -> None:
    """Begin a run or go on with it, up to a round."""
    folder = _open_run(job)
    _note_software(job, folder)
    for number in range(rounds + 1):
        (folder.path / "rounds" / f"{number:04d}").mkdir(parents=True, exist_ok=True)


def test_a_run_notes_the_commits_that_trained_it_in_their_order(job) -> None:
    train(job, 3)
    train(job, 5)
    assert (job.folder / SOFTWARE).read_text() == "abc1234\n"
    train(replace(job, software="def5678"), 7)
    train(job, 9)
    assert _trained_by(job) == ("abc1234", "def5678", "abc1234")


def test_a_commit_that_only_scores_did_not_train(job) -> None:
    train(job, job.experiment.federation.rounds)
    train(replace(job, software="def5678"), 0)
    assert _trained_by(job) == ("abc1234",)


def test_rounds_from_before_commits_were_noted_are_of_an_unknown_one(job) -> None:
    train(job, 3)
    (job.folder / SOFTWARE).unlink()
    train(replace(job, software="def5678"), 5)
    assert _trained_by(job) == ("unknown", "def5678")


def test_a_run_of_another_experiment_takes_no_commits_with_it(job) -> None:
    train(job, 3)
    other = replace(job, arm=job.arm.model_copy(update={"scramble_anchors": True}), software="def5678")
    train(other, 1)
    assert _trained_by(other) == ("def5678",)


def test_a_failure_is_on_record_until_the_next_try(job, monkeypatch) -> None:
    def fail(job):
        raise RuntimeError("no memory for this one")

    monkeypatch.setattr(jobs, "end_with_parent", lambda: None)
    monkeypatch.setattr(jobs, "_train_and_score", fail)
    assert run_job(job) == "RuntimeError: no memory for this one"
    assert (why_missing(job).state, why_missing(job).detail) == ("failed", "RuntimeError: no memory for this one")

    def stop(job):
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "_train_and_score", stop)
    with pytest.raises(KeyboardInterrupt):
        run_job(job)
    assert why_missing(job).state == "not run"
