"""The record of events: order, refusals to change it, readers beside a writer, a writer that is killed, older records."""

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from gmmas_schema.errors import ConfigError, ReasonCode
from gmmas_schema.events import Event, EventKind
from server.events import EventLog, follow_events, read_events

ROOT = Path(__file__).parents[2]


def kinds(path):
    return [event.kind for event in read_events(path)]


def shell(path, *statements):
    """What somebody with an SQL shell does."""
    with closing(sqlite3.connect(path)) as database:
        rows = [database.execute(statement).fetchall() for statement in statements]
        database.commit()
    return rows[-1]


def test_events_are_read_as_they_were_written(tmp_path):
    told = []
    log = EventLog(tmp_path / "events.db", on_event=told.append)
    log.append(Event(time=1.0, kind=EventKind.ROUND_STARTED, round=1))
    log.emit(EventKind.SITE_REFUSED, site="north", code=ReasonCode.PAUSED, message="two\nlines", detail={"a": [1, None], "b": 0.1})
    events = read_events(log.path)
    assert list(events) == told
    assert events[1].message == "two\nlines"
    assert events[1].code is ReasonCode.PAUSED
    assert events[1].time > 1.0


def test_the_file_is_nobody_elses_to_read(tmp_path):
    log = EventLog(tmp_path / "events.db")
    log.emit(EventKind.RUN_STARTED)
    assert log.path.stat().st_mode & 0o777 == 0o600


def test_events_of_some_kinds(tmp_path):
    log = EventLog(tmp_path / "events.db")
    for kind in (EventKind.RUN_STARTED, EventKind.REPLY_ACCEPTED, EventKind.RUN_FINISHED):
        log.emit(kind)
    assert [event.kind for event in read_events(log.path, kinds={EventKind.RUN_FINISHED, EventKind.RUN_STARTED})] == [
        EventKind.RUN_STARTED,
        EventKind.RUN_FINISHED,
    ]
    assert read_events(log.path, kinds=()) == ()


def test_a_missing_record_has_no_events(tmp_path):
    assert read_events(tmp_path / "events.db") == ()
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_json_lacks_spoils_nothing(tmp_path):
    log = EventLog(tmp_path / "events.db")
    log.emit(EventKind.REPLY_REFUSED, detail={"losses": {"idh": float("nan")}})
    assert read_events(log.path)[0].detail == {"losses": {"idh": None}}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET code = NULL",
        "DELETE FROM events",
        "REPLACE INTO events SELECT * FROM events",
        "INSERT OR REPLACE INTO events (id, time, kind, message, detail) VALUES (1, 0, 'x', '', '{}')",
    ],
)
def test_what_is_written_stays(tmp_path, statement):
    log = EventLog(tmp_path / "events.db")
    log.emit(EventKind.SITE_REFUSED, code=ReasonCode.TRUST)
    before = read_events(log.path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        shell(log.path, statement)
    assert read_events(log.path) == before


def test_a_closed_record_is_one_file_and_goes_on(tmp_path):
    log = EventLog(tmp_path / "events.db")
    log.emit(EventKind.RUN_STARTED)
    log.close()
    assert [file.name for file in tmp_path.iterdir()] == ["events.db"]
    log.emit(EventKind.RUN_FINISHED)
    EventLog(log.path).emit(EventKind.RUN_RESUMED)
    assert kinds(log.path) == [EventKind.RUN_STARTED, EventKind.RUN_FINISHED, EventKind.RUN_RESUMED]


def test_following_yields_what_is_there_and_what_comes(tmp_path):
    path = tmp_path / "events.db"
    steps = [
        path.touch,  # the moment between the file and its tables
        lambda: EventLog(path).emit(EventKind.RUN_STARTED),
        lambda: None,
        lambda: EventLog(path).emit(EventKind.ROUND_STARTED),
    ]
    following = follow_events(path, stop=lambda: not steps, sleep=lambda _: steps.pop(0)())
    assert [event.kind for event in following] == [EventKind.RUN_STARTED, EventKind.ROUND_STARTED]


def test_following_may_begin_at_the_end(tmp_path):
    log = EventLog(tmp_path / "events.db")
    log.emit(EventKind.RUN_STARTED)
    late = [lambda: log.emit(EventKind.RUN_FINISHED)]
    following = follow_events(log.path, stop=lambda: not late, sleep=lambda _: late.pop()(), from_start=False)
    assert [event.kind for event in following] == [EventKind.RUN_FINISHED]


def test_readers_see_a_growing_record_while_one_writes(tmp_path):
    log, written = EventLog(tmp_path / "events.db"), 300
    log.emit(EventKind.RUN_STARTED, round=0)
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}

    def read(reader):
        for event in follow_events(log.path, stop=lambda: False, sleep=lambda _: None):
            seen[reader].append(event.round)
            if event.kind is EventKind.RUN_FINISHED:
                return

    threads = [threading.Thread(target=read, args=(reader,)) for reader in seen]
    for thread in threads:
        thread.start()
    for number in range(1, written):
        log.emit(EventKind.REPLY_ACCEPTED if number % 10 else EventKind.ROUND_FINISHED, round=number)
    log.emit(EventKind.RUN_FINISHED, round=written)
    for thread in threads:
        thread.join(60)
    assert all(numbers == list(range(written + 1)) for numbers in seen.values())


WRITER = """
import sys
from gmmas_schema.events import EventKind
from pathlib import Path
from server.events import EventLog
log = EventLog(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 10**9):
    log.emit(EventKind.REPLY_ACCEPTED if number % 7 else EventKind.ROUND_FINISHED, round=number, detail={"bytes_up": number})
    print(number, flush=True)
"""


def test_a_writer_killed_at_any_moment_loses_nothing_it_had_written(tmp_path):
    """Real processes, real SIGKILL, each at another moment; the next one goes on in the same file."""
    path, draw, expected = tmp_path / "events.db", random.Random(0), 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(expected)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as writer:
            for _ in range(draw.randrange(1, 60)):
                told = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            rest = [int(line) for line in writer.stdout.read().split("\n")[:-1]]
        events = read_events(path)
        assert [event.round for event in events] == list(range(len(events)))
        # The last one may have been written and not yet told.
        assert len(events) - max([told, *rest]) in (1, 2)
        assert events[-1].detail == {"bytes_up": len(events) - 1}
        assert shell(path, "PRAGMA integrity_check") == [("ok",)]
        expected = len(events)
    assert shell(path, "SELECT max(id) - min(id) + 1 = count(*) FROM events") == [(1,)]


def test_readers_that_come_while_a_record_is_made_find_none_or_all_of_it(tmp_path):
    for number in range(10):
        path, start, faults = tmp_path / f"{number}.db", threading.Barrier(4), []

        def read(path=path, start=start, faults=faults):
            start.wait()
            try:
                while not read_events(path):
                    pass
            except ConfigError as fault:
                faults.append(fault)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        start.wait()
        log = EventLog(path)
        log.emit(EventKind.RUN_STARTED)
        for thread in threads:
            thread.join()
        log.close()
        assert not faults


def test_an_older_record_is_read_and_taken_over(tmp_path):
    lines = tmp_path / "events.jsonl"
    old = [Event(time=1.0, kind=EventKind.RUN_STARTED), Event(time=2.0, kind=EventKind.ROUND_FINISHED, round=1, detail={"seconds": 2})]
    lines.write_text("".join(f"{event.model_dump_json(exclude_defaults=True)}\n" for event in old) + '{"time": 3, "kind": "rou')
    path = tmp_path / "events.db"
    assert list(read_events(path)) == old
    EventLog(path).append(Event(time=4.0, kind=EventKind.RUN_RESUMED))
    assert [event.time for event in read_events(path)] == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("content", ["text", "database", "later"])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    path = tmp_path / "events.db"
    if content == "text":
        path.write_text("no database\n" * 20)
    elif content == "later":
        EventLog(path).emit(EventKind.RUN_STARTED)
        shell(path, "PRAGMA user_version = 99")
    else:
        shell(path, "CREATE TABLE other (x)")
    for use in (lambda: read_events(path), lambda: EventLog(path).emit(EventKind.RUN_STARTED)):
        with pytest.raises(ConfigError, match="cannot be read"):
            use()
