"""Cases, the versions of their outlines, and the reports that were signed: rows of portal.db.

A report exists from the moment somebody signs it: both versions of its text are kept as they were then. The patient's version reaches the
patient once a clinician releases it, and no longer when it is withdrawn.
"""

import json
import secrets
import sqlite3
import time
from dataclasses import dataclass
from typing import Any, Final

from gmmas_portal.analysis.context import CaseContext
from gmmas_portal.web.audit import digest_of
from gmmas_portal.web.tables import Database
from gmmas_schema.case_record import CaseRecord
from gmmas_schema.errors import ConfigError
from gmmas_schema.vocabulary import MODALITIES, Modality


@dataclass(frozen=True)
class CaseRow:
    """One case; `images` are paths relative to the platform's folder, `created` is in seconds since 1970."""

    key: str
    name: str
    patient: str
    scanned_on: str
    created: float
    created_by: str
    sample: bool
    images: dict[Modality, str]
    context: CaseContext
    versions: int


@dataclass(frozen=True)
class VersionRow:
    """One version of a case's outline and what was measured on it."""

    case_key: str
    version: int
    author: str
    reason: str
    made: float
    record: CaseRecord


@dataclass(frozen=True)
class ReportRow:
    """A signed report; times in seconds since 1970, None where it did not happen.

    Attributes:
        digest: of both texts as they were signed.
        clinician, patient: the texts (JSON of gmmas_portal.reports).
    """

    id: str
    case_key: str
    version: int
    signed_by: str
    signed: float
    comment: str
    digest: str
    clinician: str
    patient: str
    released_by: str | None
    released: float | None
    withdrawn_by: str | None
    withdrawn: float | None
    withdrawal: str

    @property
    def is_released(self) -> bool:
        """Whether the patient may read it now."""
        return self.released is not None and self.withdrawn is None

    @property
    def state(self) -> str:
        """In one word."""
        return "withdrawn" if self.withdrawn is not None else "released" if self.released is not None else "signed"


class NotThereError(ConfigError):
    """Somebody asked for a case or a report that is not there, or that is not theirs."""


class CaseStore:
    """Cases, versions and reports of the platform.

    Args:
        database: of the platform.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, *, created_by: str, context: CaseContext | None = None, scanned_on: str = "", sample: bool = False) -> str:
        """Add a case that has no images yet; returns its key, which says nothing of the patient."""
        key = secrets.token_hex(8)
        with self._database.writing() as database:
            entry = (key, scanned_on, time.time(), created_by, sample, (context or CaseContext()).model_dump_json())
            database.execute("INSERT INTO cases (key, scanned_on, created, created_by, sample, context) VALUES (?, ?, ?, ?, ?, ?)", entry)
        return key

    def place(self, key: str, *, name: str, patient: str, images: dict[Modality, str]) -> None:
        """Note a case's pseudonyms and where its images lie."""
        with self._database.writing() as database:
            told = json.dumps({m: images[m] for m in MODALITIES if m in images})
            database.execute("UPDATE cases SET name = ?, patient = ?, images = ? WHERE key = ?", (name, patient, told, key))

    def set_context(self, key: str, context: CaseContext, *, scanned_on: str) -> None:
        """Note what a clinician entered."""
        with self._database.writing() as database:
            update = "UPDATE cases SET context = ?, scanned_on = ? WHERE key = ?"
            database.execute(update, (context.model_dump_json(), scanned_on, key))

    def cases(self, *, patient: str = "") -> tuple[CaseRow, ...]:
        """Return all cases, or those of a patient, the newest first."""
        with self._database.reading() as database:
            rows = database.execute(f"{_CASES} WHERE ? = '' OR patient = ? ORDER BY created DESC", (patient, patient)).fetchall()
        return tuple(_case(row) for row in rows)

    def case(self, key: str) -> CaseRow:
        """Return a case.

        Raises:
            NotThereError: there is none of this key.
        """
        with self._database.reading() as database:
            row = database.execute(f"{_CASES} WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise not_there("case")
        return _case(row)

    def delete(self, key: str) -> None:
        """Forget a case with its versions and reports; what was done with it stays in the audit.

        Raises:
            ConfigError: a patient is reading a report of it, or the worker is at it and would write its files again.
        """
        with self._database.writing() as database:
            released = any(report.is_released for report in _reports(database, key))
            if released or _is_at_work(database, key):
                raise ConfigError(
                    "this case cannot be deleted",
                    got="a report that is released to the patient" if released else "a case at work",
                    expected="a case without one" if released else "a case at rest",
                    remedy="withdraw the report first" if released else "wait until it is done",
                )
            for table, column in (("reports", "case_key"), ("versions", "case_key"), ("jobs", "subject"), ("cases", "key")):
                database.execute(f"DELETE FROM {table} WHERE {column} = ?", (key,))  # noqa: S608 - no foreign text

    def next_name(self, patient: str) -> str:
        """Return the name of a patient's next time point: one more than the last, for earlier ones may have been deleted."""
        numbers = [case.name.rpartition("-")[2] for case in self.cases(patient=patient)]
        return f"{patient}-{1 + max((int(number) for number in numbers if number.isdecimal()), default=-1):03d}"

    def add_version(self, key: str, record: CaseRecord, *, author: str, reason: str) -> None:
        """Keep a record as the version that its segmentation names; one that is there already is left as it is."""
        with self._database.writing() as database:
            entry = (key, record.segmentation.version, author, reason, time.time(), record.model_dump_json())
            database.execute("INSERT OR IGNORE INTO versions VALUES (?, ?, ?, ?, ?, ?)", entry)

    def versions(self, key: str) -> tuple[VersionRow, ...]:
        """Return the versions of a case, the newest first."""
        with self._database.reading() as database:
            rows = database.execute("SELECT * FROM versions WHERE case_key = ? ORDER BY version DESC", (key,)).fetchall()
        return tuple(_version(row) for row in rows)

    def version(self, key: str, version: int = 0) -> VersionRow:
        """Return one version, or the newest for 0.

        Raises:
            NotThereError: there is none.
        """
        found = [row for row in self.versions(key) if version in (0, row.version)]
        if not found:
            raise not_there("version")
        return found[0]

    def sign(self, key: str, version: int, *, by: str, comment: str, clinician: str, patient: str) -> ReportRow:
        """Keep both texts of a report as signed.

        Raises:
            ConfigError: somebody has signed this version.
        """
        name = secrets.token_hex(8)
        entry = (name, key, version, by, time.time(), comment, digest_of(f"{clinician}\n{patient}"), clinician, patient)
        columns = "id, case_key, version, signed_by, signed, comment, digest, clinician, patient"
        with self._database.writing() as database:
            if any(report.version == version and report.withdrawn is None for report in _reports(database, key)):
                raise ConfigError(
                    "this version is signed already", expected="one signature a version", remedy="take the signed report back first"
                )
            database.execute(f"INSERT INTO reports ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", entry)  # noqa: S608 - no foreign text
        return self.report(name)

    def release(self, name: str, *, by: str) -> None:
        """Let the patient read a report; earlier ones of the same case are no longer shown.

        Raises:
            ConfigError: it was released or withdrawn before, or the case was corrected or analysed again since, or is about to be.
        """
        with self._database.writing() as database:
            report, now = _report(database, name), time.time()
            (newest,) = database.execute("SELECT max(version) FROM versions WHERE case_key = ?", (report.case_key,)).fetchone()
            if report.state != "signed" or newest != report.version:
                raise ConfigError(
                    "this report cannot be released",
                    got=f"a report that is {report.state}" if report.state != "signed" else f"a report of version {report.version}",
                    expected="a signed report" if report.state != "signed" else f"one of the newest version, {newest}",
                    remedy="review and sign the report again",
                )
            if _is_at_work(database, report.case_key):
                raise ConfigError(
                    "this report cannot be released now", got="a case at work", expected="a case at rest", remedy="wait until it is done"
                )
            database.execute(
                "UPDATE reports SET withdrawn = ?, withdrawn_by = ?, withdrawal = 'a newer report was released'"
                " WHERE case_key = ? AND released IS NOT NULL AND withdrawn IS NULL",
                (now, by, report.case_key),
            )
            database.execute("UPDATE reports SET released = ?, released_by = ? WHERE id = ?", (now, by, name))

    def withdraw(self, name: str, *, by: str, reason: str) -> None:
        """Take a report back; the patient no longer reads it.

        Raises:
            ConfigError: it was taken back before.
        """
        with self._database.writing() as database:
            update = "UPDATE reports SET withdrawn = ?, withdrawn_by = ?, withdrawal = ? WHERE id = ? AND withdrawn IS NULL"
            if database.execute(update, (time.time(), by, reason, name)).rowcount == 0:
                raise ConfigError("this report was taken back before", expected="one that stands", remedy="load the page again")

    def report(self, name: str) -> ReportRow:
        """Return a report.

        Raises:
            NotThereError: there is none of this name.
        """
        with self._database.reading() as database:
            return _report(database, name)

    def reports(self, key: str) -> tuple[ReportRow, ...]:
        """Return the reports of a case, the newest first."""
        with self._database.reading() as database:
            return _reports(database, key)

    def released_to(self, patient: str) -> tuple[tuple[ReportRow, CaseRow], ...]:
        """Return the reports that a patient may read, the newest first."""
        found = [(report, case) for case in self.cases(patient=patient) for report in self.reports(case.key) if report.is_released]
        return tuple(sorted(found, key=lambda pair: -(pair[0].released or 0))) if patient else ()


_CASES: Final = "SELECT cases.*, (SELECT count(*) FROM versions WHERE case_key = key) AS versions FROM cases"


def not_there(what: str) -> NotThereError:
    """Return the error of something that is not there, or not for whoever asks: the two are not told apart."""
    return NotThereError(f"there is no such {what}", expected=f"a {what} that you may see", remedy="go back to the list")


def _is_at_work(database: sqlite3.Connection, key: str) -> bool:
    """Return whether the worker has, or will have, to do with a case."""
    count = database.execute("SELECT count(*) FROM jobs WHERE subject = ? AND state IN ('queued', 'running')", (key,)).fetchone()[0]
    return bool(count)


def _report(database: sqlite3.Connection, name: str) -> ReportRow:
    row = database.execute("SELECT * FROM reports WHERE id = ?", (name,)).fetchone()
    if row is None:
        raise not_there("report")
    return ReportRow(**_told(row))


def _reports(database: sqlite3.Connection, key: str) -> tuple[ReportRow, ...]:
    rows = database.execute("SELECT * FROM reports WHERE case_key = ? ORDER BY signed DESC", (key,)).fetchall()
    return tuple(ReportRow(**_told(row)) for row in rows)


def _told(row: sqlite3.Row) -> dict[str, Any]:
    return {key: row[key] for key in row.keys()}  # noqa: SIM118 - iterating a row gives its values


def _case(row: sqlite3.Row) -> CaseRow:
    images = {Modality(name): path for name, path in json.loads(row["images"]).items()}
    context = CaseContext.model_validate_json(row["context"])
    return CaseRow(**_told(row) | {"images": images, "context": context, "sample": bool(row["sample"])})


def _version(row: sqlite3.Row) -> VersionRow:
    return VersionRow(**_told(row) | {"record": CaseRecord.model_validate_json(row["record"])})
