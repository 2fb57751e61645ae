"""What the worker is to do: a queue in portal.db that survives any end of any process.

    queued -> running -> done
                 |-----> failed      with what, expected and remedy for the person who asked
                 `-----> queued      by the next start of a worker; after MOST_ATTEMPTS failed

One worker takes one job at a time, the oldest first.
"""

import json
import sqlite3
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from gmmas_portal.web.tables import Database
from gmmas_schema.errors import DataError, GmmasError

MOST_ATTEMPTS: Final = 3


class JobKind(StrEnum):
    """What is to be done.

    LOOK reads an upload; ANALYSE imports, predicts and measures a case; MEASURE measures a corrected outline; SAMPLE makes the sample case;
    EXPORT makes the DICOM files of a version; REWORD asks the language model for other words.
    """

    LOOK = "look"
    ANALYSE = "analyse"
    MEASURE = "measure"
    SAMPLE = "sample"
    EXPORT = "export"
    REWORD = "reword"


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        subject: the upload or the case.
        asked_by: account.
        detail: what the kind needs.
        step: what is being done, in words; `done` of `total` parts of it.
        attempts: how often a worker has begun.
        fault: what, got, expected, remedy and code of a failed one; without any path or identifier.
        ahead: jobs that come first; 0 once it runs.
        created, started, ended: seconds since 1970.
    """

    id: int
    kind: JobKind
    subject: str
    asked_by: str
    detail: dict[str, Any]
    state: JobState
    step: str
    done: int
    total: int
    attempts: int
    fault: dict[str, str]
    ahead: int
    created: float
    started: float | None
    ended: float | None

    @property
    def is_over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in (JobState.DONE, JobState.FAILED)

    @property
    def share(self) -> float:
        """How much of the step is done, in [0, 1]."""
        return min(1.0, self.done / self.total) if self.total else 0.0


class JobQueue:
    """The queue.

    Args:
        database: of the platform.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, kind: JobKind, subject: str, *, asked_by: str, detail: dict[str, Any] | None = None) -> int:
        """Queue a job and return its number.

        Raises:
            DataError: another of this subject is not over: a button that is pressed twice asks once.
        """
        with self._database.writing() as database:
            open_jobs = "SELECT count(*) FROM jobs WHERE subject = ? AND state IN (?, ?)"
            if database.execute(open_jobs, (subject, JobState.QUEUED, JobState.RUNNING)).fetchone()[0]:
                raise DataError("the case is at work", expected="a case at rest", remedy="wait until it is done")
            entry = (kind, subject, asked_by, json.dumps(detail or {}), time.time())
            added = database.execute("INSERT INTO jobs (kind, subject, asked_by, detail, created) VALUES (?, ?, ?, ?, ?)", entry)
        assert added.lastrowid is not None, "a row was added"
        return added.lastrowid

    def latest(self, subject: str) -> Job | None:
        """Return the last job about an upload or a case."""
        query = f"SELECT *, {_AHEAD} FROM jobs WHERE subject = ? ORDER BY id DESC LIMIT 1"  # noqa: S608 - no foreign text
        with self._database.reading() as database:
            row = database.execute(query, (subject,)).fetchone()
        return None if row is None else _job(row)

    def states(self) -> dict[str, JobState]:
        """Return the state of the last job about each subject."""
        query = "SELECT subject, state FROM jobs WHERE id IN (SELECT max(id) FROM jobs GROUP BY subject)"
        with self._database.reading() as database:
            return {row["subject"]: JobState(row["state"]) for row in database.execute(query)}

    def drafts(self) -> set[str]:
        """Return the uploads that were confirmed and wait for their analysis."""
        query = "SELECT json_extract(detail, '$.draft') AS draft FROM jobs WHERE state IN (?, ?) AND draft IS NOT NULL"
        with self._database.reading() as database:
            return {row["draft"] for row in database.execute(query, (JobState.QUEUED, JobState.RUNNING))}

    def take_up(self) -> None:
        """Queue again what an earlier worker had begun, for a worker that starts. Only one worker may run."""
        fault = {
            "what": "the analysis was interrupted again and again",
            "got": f"{MOST_ATTEMPTS} interruptions",
            "expected": "a worker that lives until the end",
            "remedy": "the machine may lack memory: ask its administrator to look at logs/worker.log, then start it again",
            "code": "E_PROCESS",
        }
        with self._database.writing() as database:
            database.execute(
                "UPDATE jobs SET state = ?, ended = ?, fault = ? WHERE state = ? AND attempts >= ?",
                (JobState.FAILED, time.time(), json.dumps(fault), JobState.RUNNING, MOST_ATTEMPTS),
            )
            database.execute("UPDATE jobs SET state = ?, step = '' WHERE state = ?", (JobState.QUEUED, JobState.RUNNING))

    def take(self) -> Job | None:
        """Begin the oldest job that waits; None where none does."""
        query = f"SELECT *, {_AHEAD} FROM jobs WHERE state = ? ORDER BY id LIMIT 1"  # noqa: S608 - no foreign text
        with self._database.writing() as database:
            row = database.execute(query, (JobState.QUEUED,)).fetchone()
            if row is None:
                return None
            update = "UPDATE jobs SET state = ?, attempts = attempts + 1, started = ?, done = 0, total = 0, step = '' WHERE id = ?"
            database.execute(update, (JobState.RUNNING, time.time(), row["id"]))
        return _job(row)

    def tell(self, job: Job, step: str, done: int, total: int) -> None:
        """Note how far a job is."""
        with self._database.writing() as database:
            database.execute("UPDATE jobs SET step = ?, done = ?, total = ? WHERE id = ?", (step[:120], done, total, job.id))

    def put_back(self, job: Job) -> None:
        """Queue a job again as if nobody had begun it."""
        with self._database.writing() as database:
            update = "UPDATE jobs SET state = ?, attempts = attempts - 1, step = '' WHERE id = ?"
            database.execute(update, (JobState.QUEUED, job.id))

    def finish(self, job: Job) -> None:
        """Note that a job is done."""
        with self._database.writing() as database:
            database.execute("UPDATE jobs SET state = ?, ended = ? WHERE id = ?", (JobState.DONE, time.time(), job.id))

    def fail(self, job: Job, error: Exception) -> None:
        """Note that a job failed, and why, without where: paths and names stay in the log."""
        fault = {"what": "the software failed", "got": type(error).__name__, "expected": "", "remedy": "", "code": "E_INTERNAL"}
        if isinstance(error, GmmasError):
            fault = {key: str(getattr(error, key)) for key in ("what", "got", "expected", "remedy", "code")}
        with self._database.writing() as database:
            update = "UPDATE jobs SET state = ?, ended = ?, fault = ? WHERE id = ?"
            database.execute(update, (JobState.FAILED, time.time(), json.dumps(fault), job.id))


_AHEAD: Final = (
    "CASE state WHEN 'queued' THEN (SELECT count(*) FROM jobs AS other WHERE other.state IN ('queued', 'running') AND other.id < jobs.id)"
    " ELSE 0 END AS ahead"
)


def _job(row: sqlite3.Row) -> Job:
    told = {key: row[key] for key in row.keys()}  # noqa: SIM118 - iterating a row gives its values
    told |= {"kind": JobKind(row["kind"]), "state": JobState(row["state"])}
    return Job(**told | {"detail": json.loads(row["detail"]), "fault": json.loads(row["fault"])})
