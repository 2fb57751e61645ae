"""The run's event log: `events.jsonl`, one event a line, appended by the coordinator and followed by every display."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gmmas_schema.errors import ReasonCode
from gmmas_schema.events import Event, EventKind

logger = logging.getLogger(__name__)

_POLL_S = 0.25


class EventLog:
    """Appends events to a file; a line that a crash cut short is closed first, so that it spoils no later one.

    Args:
        path: the file; made with its first event.
        on_event: is called with every event after it has been written.
    """

    def __init__(self, path: Path, *, on_event: Callable[[Event], None] | None = None) -> None:
        self.path = path
        self._on_event = on_event
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            with path.open("ab") as file:
                file.write(b"\n")

    def append(self, event: Event) -> None:
        """Write one event."""
        with self.path.open("ab") as file:
            file.write(event.model_dump_json(exclude_defaults=True).encode() + b"\n")
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


def read_events(path: Path) -> tuple[Event, ...]:
    """Return all whole events of a log, oldest first; a missing file has none."""
    if not path.exists():
        return ()
    return tuple(event for line in path.read_bytes().splitlines() if (event := _parse(line)) is not None)


def follow_events(
    path: Path, *, stop: Callable[[], bool], sleep: Callable[[float], None] = time.sleep, from_start: bool = True
) -> Iterator[Event]:
    """Yield a log's events as they are appended, waiting for the file if need be.

    Args:
        path: the log.
        stop: is asked whenever there is nothing new; True ends the iteration.
        sleep: waits between two looks.
        from_start: begin with the events that are there already.
    """
    offset = 0 if from_start or not path.exists() else path.stat().st_size
    rest = b""
    while True:
        new = b""
        if path.exists():
            with path.open("rb") as file:
                file.seek(offset)
                new = file.read()
        offset += len(new)
        *lines, rest = (rest + new).split(b"\n")
        yield from (event for line in lines if (event := _parse(line)) is not None)
        if not new:
            if stop():
                return
            sleep(_POLL_S)


def _parse(line: bytes) -> Event | None:
    """Return the event of a line, or None for an empty or torn one."""
    try:
        return Event.model_validate_json(line) if line.strip() else None
    except ValidationError:
        return None
