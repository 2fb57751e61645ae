"""The queue: one job at a time, the oldest first, and none lost when a worker dies."""

from pathlib import Path

import pytest

from gmmas_portal.web.jobs import MOST_ATTEMPTS, Job, JobKind, JobQueue, JobState
from gmmas_portal.web.tables import Database
from gmmas_schema.errors import ConfigError, DataError


@pytest.fixture
def queue(tmp_path: Path) -> JobQueue:
    return JobQueue(Database(tmp_path / "portal.db"))


def taken(queue: JobQueue) -> Job:
    job = queue.take()
    assert job is not None
    return job


def test_jobs_are_done_in_order_and_tell_how_far_they_are(queue: JobQueue) -> None:
    for subject in ("a", "b", "c"):
        queue.add(JobKind.ANALYSE, subject, asked_by="anna", detail={"of": subject})
    latest = queue.latest("c")
    assert latest is not None
    assert (latest.state, latest.ahead) == (JobState.QUEUED, 2)
    job = taken(queue)
    assert (job.subject, job.detail, job.asked_by) == ("a", {"of": "a"}, "anna")
    queue.tell(job, "predicting", 3, 12)
    running = queue.latest("a")
    assert running is not None
    assert (running.state, running.step, running.share, running.attempts, running.ahead) == (JobState.RUNNING, "predicting", 0.25, 1, 0)
    queue.finish(job)
    assert queue.states() == {"a": JobState.DONE, "b": JobState.QUEUED, "c": JobState.QUEUED}
    assert [taken(queue).subject, taken(queue).subject, queue.take()] == ["b", "c", None]


def test_a_failure_is_told_without_a_path(queue: JobQueue) -> None:
    queue.add(JobKind.LOOK, "a", asked_by="anna")
    error = DataError("a file cannot be read", where="/srv/Jane Doe/t1.nii", got="nothing", expected="a scan", remedy="copy it again")
    queue.fail(taken(queue), error)
    job = queue.latest("a")
    assert job is not None
    assert job.is_over
    assert job.fault == {
        "what": "a file cannot be read",
        "got": "nothing",
        "expected": "a scan",
        "remedy": "copy it again",
        "code": "E_DATA",
    }
    queue.add(JobKind.LOOK, "b", asked_by="anna")
    queue.fail(taken(queue), RuntimeError("/srv/Jane Doe/t1.nii"))
    other = queue.latest("b")
    assert other is not None
    assert "Jane" not in str(other.fault)


def test_what_a_dead_worker_had_begun_is_begun_again(queue: JobQueue) -> None:
    queue.add(JobKind.ANALYSE, "a", asked_by="anna")
    queue.add(JobKind.ANALYSE, "b", asked_by="anna")
    for attempt in range(1, MOST_ATTEMPTS + 1):
        assert (taken(queue).subject, taken(queue).subject if attempt == 1 else "b") == ("a", "b")
        if attempt == 1:
            latest = queue.latest("b")
            assert latest is not None
            queue.finish(latest)
        queue.take_up()
    job = queue.latest("a")
    assert job is not None
    assert (job.state, job.fault["what"]) == (JobState.FAILED, "the analysis was interrupted again and again")
    assert queue.take() is None


def test_a_job_that_is_put_back_was_not_tried(queue: JobQueue) -> None:
    queue.add(JobKind.ANALYSE, "a", asked_by="anna")
    for _ in range(2 * MOST_ATTEMPTS):
        queue.put_back(taken(queue))
        queue.take_up()
    assert taken(queue).attempts == 0


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "portal.db").write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with pytest.raises(ConfigError, match="cannot be read"):
        JobQueue(Database(tmp_path / "portal.db")).take()


def test_what_is_asked_for_twice_is_done_once(queue: JobQueue) -> None:
    queue.add(JobKind.ANALYSE, "a", asked_by="anna")
    for _ in range(2):
        with pytest.raises(DataError, match="at work"):
            queue.add(JobKind.MEASURE, "a", asked_by="bert")
        job = queue.latest("a")
        assert job is not None
        if job.state is JobState.QUEUED:
            taken(queue)
    queue.finish(job)
    assert queue.add(JobKind.MEASURE, "a", asked_by="bert") > job.id
