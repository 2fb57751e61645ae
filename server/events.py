"""The run's record: `events.db`, an SQLite table to which the coordinator appends and which every display reads meanwhile.

The file is in WAL mode (https://sqlite.org/wal.html): readers and the writer do not wait for one another, and an event is there as a
whole or not at all, whenever the process is killed. An event survives a power cut from the next event on that is not an accepted reply:
those wait for no disk, since a federation of a thousand sites gives thousands of them. The table refuses to be changed
(server.event_tables), which guards against mistakes, not against whoever owns the file.

Runs from before had `events.jsonl`, one event a line; it can still be read, and a resumed run takes it over.
"""

import json
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from gmmas_runtime.sqlite_tables import has_tables, make_tables
from gmmas_schema.errors import ConfigError, ReasonCode
from gmmas_schema.events import Event, EventKind
from server.event_tables import APPLICATION_ID, TABLES, VERSION

logger = logging.getLogger(__name__)

EVENTS_FILE: Final = "events.db"
_LINES_FILE: Final = "events.jsonl"
_POLL_S: Final = 0.25
_PATIENCE_S: Final = 10.0
"""How long a lock is waited for, for instance that of somebody's SQL shell."""
_COLUMNS: Final = "time, kind, round, site, code, message, detail"


class EventLog:
    """Appends events; made anew on a folder's record, it goes on after the last event.

    Args:
        path: the file; made with its first event.
        on_event: is called with every event after it has been written.
    """

    def __init__(self, path: Path, *, on_event: Callable[[Event], None] | None = None) -> None:
        self.path = path
        self._on_event = on_event
        self._database: sqlite3.Connection | None = None

    def append(self, event: Event) -> None:
        """Write one event.

        Raises:
            ConfigError: the file is not a record of events that this version can write.
        """
        if self._database is None:
            self._database = _open_for_writing(self.path)
        _insert(self._database, event)
        if event.kind is not EventKind.REPLY_ACCEPTED:
            # To the disk, as far as nobody is reading older pages.
            self._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        logger.info("%s round=%s site=%s code=%s %s", event.kind, event.round, event.site, event.code, event.message)
        if self._on_event is not None:
            self._on_event(event)

    def emit(
        self,
        kind: EventKind,
        *,
        round: int | None = None,  # noqa: A002 - the field's word
        site: str | None = None,
        code: ReasonCode | None = None,
        message: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Write an event of this moment."""
        self.append(Event(time=time.time(), kind=kind, round=round, site=site, code=code, message=message, detail=dict(detail or {})))

    def close(self) -> None:
        """Bring everything into the one file events.db; the next event opens it again."""
        if self._database is not None:
            self._database.close()
            self._database = None


def read_events(path: Path, *, kinds: Collection[EventKind] = tuple(EventKind)) -> tuple[Event, ...]:
    """Return the events of a record, oldest first; a missing file has none.

    Args:
        path: the file.
        kinds: what is wanted; of a thousand sites, all but the answers is little.

    Raises:
        ConfigError: the file is no record of events.
    """
    database = open_for_reading(path)
    if database is None:
        return tuple(event for event in _read_lines(path.with_name(_LINES_FILE)) if event.kind in kinds)
    with closing(database):
        return tuple(event for _, event in _events_after(database, 0, kinds))


def events_after(
    path: Path, last: int, *, most: int | None = None, kinds: Collection[EventKind] = tuple(EventKind)
) -> tuple[tuple[int, Event], ...]:
    """Return the events after one, with their numbers, oldest first; a missing file has none.

    Args:
        path: the file.
        last: number of an event; 0 for all.
        most: how many of the newest are wanted, before `kinds` is looked at; None for all.
        kinds: what is wanted.

    Raises:
        ConfigError: the file is no record of events.
    """
    database = open_for_reading(path)
    if database is None:
        return ()
    with closing(database):
        if most is not None:
            (newest,) = database.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
            last = max(last, newest - most)
        return tuple(_events_after(database, last, kinds))


def follow_events(
    path: Path, *, stop: Callable[[], bool], sleep: Callable[[float], None] = time.sleep, from_start: bool = True
) -> Iterator[Event]:
    """Yield a record's events as they are appended, waiting for the file if need be.

    Args:
        path: the file.
        stop: is asked whenever there is nothing new; True ends the iteration.
        sleep: waits between two looks.
        from_start: begin with the events that are there already.

    Raises:
        ConfigError: the file is no record of events.
    """
    database = open_for_reading(path)
    last = 0
    try:
        if database is not None and not from_start:
            (last,) = database.execute("SELECT coalesce(max(id), 0) FROM events").fetchone()
        while True:
            database = database or open_for_reading(path)
            new = _events_after(database, last) if database is not None else []
            for last, event in new:  # noqa: B007 - where the next look begins
                yield event
            if not new:
                if stop():
                    return
                sleep(_POLL_S)
    finally:
        if database is not None:
            database.close()


def open_for_reading(path: Path) -> sqlite3.Connection | None:
    """Return a read-only connection to a record, or None where there is none yet.

    Raises:
        ConfigError: the file is no record of events, or of a later version.
    """
    if not path.exists():
        return None
    database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=_PATIENCE_S)
    try:
        # A file without tables is one that is being made.
        if _is_made(database, path):
            return database
    except BaseException:
        database.close()
        raise
    database.close()
    return None


def _open_for_writing(path: Path) -> sqlite3.Connection:
    # The log of a run belongs to one writer, which tests and displays may call from several threads in turn.
    database = sqlite3.connect(path, timeout=_PATIENCE_S, isolation_level=None, check_same_thread=False)
    try:
        if not _is_made(database, path):
            path.chmod(0o600)
            database.execute("PRAGMA journal_mode = WAL").fetchall()
            _make(database, path)
        database.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        database.close()
        raise
    return database


def _make(database: sqlite3.Connection, path: Path) -> None:
    """Make the tables and take over the events of an older record, all at once or not at all."""
    database.execute("BEGIN IMMEDIATE")
    try:
        make_tables(database, TABLES)
        for event in _read_lines(path.with_name(_LINES_FILE)):
            _insert(database, event)
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _is_made(database: sqlite3.Connection, path: Path) -> bool:
    """Return whether the tables are there; refuse a file of something else."""
    try:
        return has_tables(database, application_id=APPLICATION_ID, version=VERSION, refuse=lambda got: _no_record(path, got))
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        raise _no_record(path, str(error)) from error


def _insert(database: sqlite3.Connection, event: Event) -> None:
    # By pydantic, which writes what JSON cannot hold (NaN) as null.
    detail = json.dumps(json.loads(event.model_dump_json(include={"detail"}))["detail"], separators=(",", ":"))
    row = (event.time, event.kind, event.round, event.site, event.code, event.message, detail)
    database.execute(f"INSERT INTO events ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", row)  # noqa: S608 - no foreign text


def _events_after(database: sqlite3.Connection, last: int, kinds: Collection[EventKind] = tuple(EventKind)) -> list[tuple[int, Event]]:
    wanted = ", ".join("?" * len(kinds))
    query = f"SELECT id, {_COLUMNS} FROM events WHERE id > ? AND kind IN ({wanted}) ORDER BY id"  # noqa: S608 - no foreign text
    rows = database.execute(query, (last, *kinds)).fetchall()
    names = _COLUMNS.split(", ")
    return [(row[0], Event.model_validate(dict(zip(names, row[1:], strict=True)) | {"detail": json.loads(row[-1])})) for row in rows]


def _read_lines(path: Path) -> Iterator[Event]:
    """Yield the events of an events.jsonl; a line that a crash cut short is left out."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            yield Event.model_validate_json(line)
        except ValidationError:
            continue


def _no_record(path: Path, got: str) -> ConfigError:
    return ConfigError(
        "the run's events cannot be read",
        where=path,
        got=got,
        expected=f"events of version {VERSION}",
        remedy="restore the file from a copy, or use the version of gmmas-fed that wrote it",
    )
