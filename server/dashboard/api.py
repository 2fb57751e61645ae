"""The same for programs: JSON, with a bearer token. `curl -H "Authorization: Bearer NAME.SECRET" http://127.0.0.1:9093/api/runs`."""

import json
from dataclasses import asdict

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from gmmas_schema.errors import ConfigError
from server.dashboard import actions
from server.dashboard.figures import curves, feed_line, trouble_rows
from server.dashboard.gate import ChangeRoute, ReadRoute
from server.dashboard.pages import LARGEST_NUMBER, desk_of
from server.events import EVENTS_FILE, events_after
from server.ledger import read_ledger

reading = APIRouter(route_class=ReadRoute, prefix="/api")
changing = APIRouter(route_class=ChangeRoute, prefix="/api")

MOST_EVENTS = 1000


@reading.get("/runs")
def list_runs(request: Request) -> Response:
    """Return all runs, the newest first."""
    return JSONResponse([asdict(run.summary()) for run in desk_of(request).runs()])


@reading.get("/runs/{key}")
def tell_run(request: Request, key: str) -> Response:
    """Return one run: its state, hospitals, curves, and what goes wrong."""
    run = desk_of(request).run(key)
    summary = asdict(run.summary())
    with run.lock:
        sites = {
            row.name: {
                "state": row.state,
                "sequences": list(row.modalities),
                "version": row.software,
                "failures": row.failures,
                "round_trip_s": row.seconds,
                "bytes_down": row.bytes_down,
                "bytes_up": row.bytes_up,
                "dice": row.dice,
                "auc": row.auc,
            }
            for row in run.view.sites.values()
        }
        troubles = [
            {"site": row.trouble.site, "code": row.trouble.code, "count": row.trouble.count, "remedy": row.reason.remedy}
            for row in trouble_rows(run.view)
        ]
        return JSONResponse(summary | {"sites": sites, "validation": curves(run.view), "troubles": troubles})


@reading.get("/runs/{key}/events")
def list_events(
    request: Request,
    key: str,
    after: int = Query(default=0, ge=0, le=LARGEST_NUMBER),
    most: int = Query(default=MOST_EVENTS, ge=1, le=MOST_EVENTS),
) -> Response:
    """Return events after one, oldest first; of more than `most`, the newest."""
    run = desk_of(request).run(key)
    lines = [feed_line(number, event) for number, event in events_after(run.path / EVENTS_FILE, after, most=most)]
    return JSONResponse([vars(line) for line in lines])


@reading.get("/runs/{key}/costs")
def list_costs(request: Request, key: str) -> Response:
    """Return the ledger."""
    run = desk_of(request).run(key)
    return JSONResponse([entry.model_dump(mode="json") for entry in read_ledger(run.path / EVENTS_FILE)])


@reading.get("/sites")
def list_sites(request: Request) -> Response:
    """Return the enrolled hospitals; null while the coordinator does not answer."""
    nodes = desk_of(request).nodes()
    told = (
        None
        if nodes is None
        else [{"name": node.name, "connection": node.connection, "enrolled": node.enrolled.isoformat()} for node in nodes]
    )
    return JSONResponse(told)


@changing.post("/runs")
async def start_run(request: Request) -> Response:
    """Start a run: {"folder": name, "configuration": text of a federation.yaml}."""
    body = _body(await request.body())
    key = await run_in_threadpool(actions.begin, desk_of(request), body.get("folder", ""), body.get("configuration", ""))
    return JSONResponse({"key": key}, status_code=201)


@changing.post("/runs/{key}/stop")
def stop_run(request: Request, key: str) -> Response:
    """Stop a run; it can be resumed."""
    actions.halt(desk_of(request), key)
    return JSONResponse({"key": key})


@changing.post("/runs/{key}/resume")
def resume_run(request: Request, key: str) -> Response:
    """Go on with a run after its last finished round."""
    actions.go_on(desk_of(request), key)
    return JSONResponse({"key": key})


def _body(data: bytes) -> dict[str, str]:
    try:
        body: dict[str, str] = json.loads(data)
        if not isinstance(body, dict) or not all(isinstance(value, str) for value in body.values()):
            raise TypeError("no object of texts")
        "".join(body.values()).encode()  # half a character has no bytes
    except (ValueError, TypeError, RecursionError) as error:
        raise ConfigError(
            "the request cannot be read",
            where="body",
            got="something else",
            expected='JSON: {"folder": "first", "configuration": "text of a federation.yaml"}',
            remedy="send Content-Type: application/json with these two texts",
        ) from error
    return body
