"""The live feed, over a real connection."""

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gmmas_schema.events import EventKind
from server.dashboard import stream
from server.events import EventLog
from server.operators import Role
from tests.gmmas_cli.events import accepted, event, finished
from tests.server.dashboard.conftest import DeskUnderTest
from tests.server.dashboard.served import serve
from tests.server.ports import free_port


@pytest.fixture
def address(desk: DeskUnderTest) -> Iterator[str]:
    with serve(desk.app, free_port()) as address:
        yield address


def read(lines: Iterator[str], *, until: str) -> list[str]:
    """Return the lines that come, up to one."""
    got = []
    for line in lines:
        got.append(line)
        if line == until:
            return got
    raise AssertionError(f"{until!r} has not come; got {got}")


def append(run_dir: Path, *events: object) -> None:
    log = EventLog(run_dir / "events.db")
    for each in events:
        log.append(each)  # type: ignore[arg-type]
    log.close()


def test_events_come_as_they_are_written_and_none_is_lost_between_connections(desk: DeskUnderTest, address: str) -> None:
    headers = {"Authorization": f"Bearer {desk.tokens[Role.RESEARCHER]}"}
    path = f"{address}/runs/{desk.key}/part/stream"
    with httpx.Client(headers=headers, timeout=20, trust_env=False) as client:
        with client.stream("GET", path, params={"after": 11}) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            lines = answer.iter_lines()
            first = read(lines, until="id: 12")
            assert first[0] == "retry: 2000"
            assert read(lines, until="")[0] == "event: round"
            writer = threading.Thread(target=append, args=(desk.run_dir, accepted("north", 3, 60)))
            writer.start()
            read(lines, until="id: 13")
            message = read(lines, until="")
            writer.join()
            assert message[0] == "event: happened"
            assert 'data: <tr id="event-13">' in message
            assert any("answered in 0:12" in line for line in message)
        append(desk.run_dir, finished(3, 70, dice_wt=0.7), event(EventKind.RUN_FINISHED, 71, number=3))
        with client.stream("GET", path, params={"after": 0}, headers={"Last-Event-ID": "13"}) as answer:
            lines = answer.iter_lines()
            assert "id: 13" not in read(lines, until="id: 15")


def test_a_stream_ends_with_its_session(desk: DeskUnderTest, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ALIVE_S", 0.1)
    cookies = {"gmmas_session_9093": desk.client(Role.RESEARCHER).cookies["gmmas_session_9093"]}
    with (
        httpx.Client(cookies=cookies, timeout=20, trust_env=False) as client,
        client.stream("GET", f"{address}/runs/{desk.key}/part/stream", params={"after": 12}) as answer,
    ):
        lines = answer.iter_lines()
        read(lines, until=": alive")
        desk.store.close_session(cookies["gmmas_session_9093"])
        read(lines, until="event: over")
        assert list(lines) == ["data: the session has ended", ""]
    assert desk.app.state.streams == set()


def test_there_are_only_so_many(desk: DeskUnderTest) -> None:
    desk.app.state.streams.update(range(stream.MOST_STREAMS))
    answer = desk.client(Role.RESEARCHER).get(f"/runs/{desk.key}/part/stream")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
