"""The progress of a job, as server-sent events (WHATWG HTML, section 9.2): one when something changes, the last when the job is over."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from gmmas_portal.web.desk import Desk, desk_of, gate_of
from gmmas_portal.web.gate import ClinicianRoute
from gmmas_portal.web.intake import draft_folder
from gmmas_portal.web.jobs import Job, JobState

router = APIRouter(route_class=ClinicianRoute)

LOOK_S: Final = 0.4
ALIVE_S: Final = 15.0
"""So often something is sent, and it is asked whether the session still stands."""
MOST_STREAMS: Final = 64


@router.get("/cases/{key}/part/stream")
async def follow_case(request: Request, key: str) -> Response:
    """Send the progress of a case's last job."""
    await run_in_threadpool(desk_of(request).cases.case, key)
    return _stream(request, key)


@router.get("/upload/{draft}/part/stream")
async def follow_upload(request: Request, draft: str) -> Response:
    """Send the progress of the look at an upload."""
    await run_in_threadpool(draft_folder, desk_of(request).folder.incoming, draft)
    return _stream(request, draft)


def tell_job(job: Job | None) -> dict[str, Any]:
    """Return what a page shows of a job."""
    if job is None:
        return {"state": JobState.DONE, "text": "", "share": 0.0}
    text = job.step or "begins"
    if job.state is JobState.QUEUED:
        text = f"waits for {job.ahead} other{'s' if job.ahead > 1 else ''}" if job.ahead else "waits for the worker"
    elif job.state is JobState.FAILED:
        text = job.fault.get("what", "it failed")
    return {"state": job.state, "text": text, "share": round(job.share, 3)}


def _stream(request: Request, subject: str) -> Response:
    desk = desk_of(request)
    if len(desk.streams) >= MOST_STREAMS:
        return PlainTextResponse("too many pages are open\n", status_code=503, headers={"Retry-After": "30"})
    return StreamingResponse(_tell(request, desk, subject), media_type="text/event-stream")


async def _tell(request: Request, desk: Desk, subject: str) -> AsyncIterator[str]:
    mine = object()
    desk.streams.add(mine)
    try:
        yield "retry: 2000\n\n"
        told, alive = None, time.monotonic()
        while not (desk.closing.is_set() or await request.is_disconnected()):
            job = await run_in_threadpool(desk.jobs.latest, subject)
            now = tell_job(job)
            if now != told:
                told = now
                yield f"event: {'over' if job is None or job.is_over else 'progress'}\ndata: {json.dumps(now)}\n\n"
            if job is None or job.is_over:
                return
            if time.monotonic() - alive > ALIVE_S:
                alive = time.monotonic()
                if await run_in_threadpool(gate_of(request).session_of, request) is None:
                    return
                yield ": alive\n\n"
            await asyncio.sleep(LOOK_S)
    finally:
        desk.streams.discard(mine)
