from gmmas_schema.errors import ReasonCode
from gmmas_schema.events import Event, EventKind
from server.events import EventLog, follow_events, read_events


def test_events_are_read_as_they_were_written(tmp_path):
    told = []
    log = EventLog(tmp_path / "events.jsonl", on_event=told.append)
    log.append(Event(time=1.0, kind=EventKind.ROUND_STARTED, round=1))
    log.emit(EventKind.SITE_REFUSED, site="north", code=ReasonCode.PAUSED, message="two\nlines", detail={"a": [1, None]})
    events = read_events(log.path)
    assert list(events) == told
    assert events[1].message == "two\nlines"
    assert events[1].code is ReasonCode.PAUSED
    assert events[1].time > 1.0


def test_a_missing_log_has_no_events(tmp_path):
    assert read_events(tmp_path / "events.jsonl") == ()


def test_a_torn_line_is_left_out_and_spoils_no_later_one(tmp_path):
    path = tmp_path / "events.jsonl"
    EventLog(path).emit(EventKind.RUN_STARTED)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    EventLog(path).emit(EventKind.RUN_RESUMED)
    assert [event.kind for event in read_events(path)] == [EventKind.RUN_STARTED, EventKind.RUN_RESUMED]


def append(path, data):
    with path.open("ab") as file:
        file.write(data)


def test_following_yields_what_is_there_and_what_comes(tmp_path):
    path = tmp_path / "events.jsonl"
    steps = [
        lambda: EventLog(path).emit(EventKind.RUN_STARTED),
        lambda: append(path, b'{"time": 2, "kind": "round_st'),
        lambda: append(path, b'arted"}\n'),
    ]
    following = follow_events(path, stop=lambda: not steps, sleep=lambda _: steps.pop(0)())
    assert [event.kind for event in following] == [EventKind.RUN_STARTED, EventKind.ROUND_STARTED]


def test_following_may_begin_at_the_end(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.emit(EventKind.RUN_STARTED)
    late = [lambda: log.emit(EventKind.RUN_FINISHED)]
    following = follow_events(log.path, stop=lambda: not late, sleep=lambda _: late.pop()(), from_start=False)
    assert [event.kind for event in following] == [EventKind.RUN_FINISHED]
