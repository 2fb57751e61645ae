"""The live feed of a run: server-sent events (WHATWG HTML, section 9.2), one per event of the run, as a line of the table.

A browser that lost the connection asks again with the number of the last event that it has, and misses nothing.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from gmmas_schema.events import Event, EventKind
from server.dashboard.figures import feed_line
from server.dashboard.gate import Gate, ReadRoute
from server.dashboard.pages import FEED_LINES, LARGEST_NUMBER, desk_of
from server.dashboard.watched_run import WatchedRun
from server.events import EVENTS_FILE, events_after
from server.operators import Way

router = APIRouter(route_class=ReadRoute)

LOOK_S: Final = 0.5
ALIVE_S: Final = 15.0
"""So often something is sent, and it is asked whether the session still stands."""
MOST_STREAMS: Final = 64
SLOW: Final = frozenset(
    {EventKind.SITE_JOINED, EventKind.ROUND_FINISHED, EventKind.RUN_FINISHED, EventKind.RUN_FAILED, EventKind.RUN_RESUMED}
)
"""Events after which the parts of a page that follow the rounds are old."""


@router.get("/runs/{key}/part/stream")
async def follow(request: Request, key: str, after: int = Query(default=0, ge=0, le=LARGEST_NUMBER)) -> Response:
    """Send the events after `after`, or after the last one that a returning browser has, as they come."""
    run = await run_in_threadpool(desk_of(request).run, key)
    told = request.headers.get("last-event-id", "")
    open_streams: set[object] = request.app.state.streams
    if len(open_streams) >= MOST_STREAMS:
        return PlainTextResponse("too many pages are open\n", status_code=503, headers={"Retry-After": "30"})
    last = int(told) if told.isdecimal() and len(told) < len(str(LARGEST_NUMBER)) else after
    return StreamingResponse(_tell(request, run, last), media_type="text/event-stream")


async def _tell(request: Request, run: WatchedRun, last: int) -> AsyncIterator[str]:
    template = request.app.state.templates.get_template("part_feed_line.html")
    open_streams: set[object] = request.app.state.streams
    mine = object()
    open_streams.add(mine)
    try:
        yield "retry: 2000\n\n"
        alive = time.monotonic()
        while not (request.app.state.closing.is_set() or await request.is_disconnected()):
            new = await run_in_threadpool(events_after, run.path / EVENTS_FILE, last, most=FEED_LINES)
            for number, event in new:
                last = number
                yield _message(number, event, template.render(line=feed_line(number, event)))
            if time.monotonic() - alive > ALIVE_S:
                alive = time.monotonic()
                if not await run_in_threadpool(_still_welcome, request):
                    yield "event: over\ndata: the session has ended\n\n"
                    return
                yield ": alive\n\n"
            await asyncio.sleep(LOOK_S)
    finally:
        open_streams.discard(mine)


def _message(number: int, event: Event, html: str) -> str:
    kind = "round" if event.kind in SLOW else "happened"
    data = "".join(f"data: {line}\n" for line in html.splitlines())
    return f"id: {number}\nevent: {kind}\n{data}\n"


def _still_welcome(request: Request) -> bool:
    """Return whether the operator is still one, and the session has not ended; a stream is no use of a session."""
    gate: Gate = request.app.state.gate
    visitor = request.state.visitor
    if visitor.operator not in gate.store.operators():
        return False
    return visitor.way is not Way.SESSION or gate.session_of(request) is not None
