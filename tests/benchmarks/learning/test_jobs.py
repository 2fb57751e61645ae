from dataclasses import replace

import pytest

from benchmarks.learning.jobs import EXPERIMENT, Job, _open_run
from benchmarks.learning.plan import LearningPlan
from gmmas_schema.site import SplitConfig


@pytest.fixture
def job(tmp_path) -> Job:
    plan = LearningPlan.read()
    return Job(tmp_path, plan, plan.arm("adapter-1"), 101, "")


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
