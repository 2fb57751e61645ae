"""The pages. What of a page is fetched again while it is looked at is a part of its own, at an address with /part."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from gmmas_runtime.process_state import live_state
from gmmas_schema.vocabulary import MARKER_NAMES
from server.coverage import CASES, EVERY, coverage_of
from server.dashboard.desk import Desk
from server.dashboard.figures import accuracy_table, cost_tables, curves, feed_line, trouble_rows
from server.dashboard.gate import ChangeRoute, ReadRoute, Visitor
from server.dashboard.watched_run import RunSummary, WatchedRun
from server.drift import LOOKED_AT, drift_of
from server.events import EVENTS_FILE, events_after
from server.following import resume_command
from server.ledger import read_ledger
from server.submission import read_submission
from server.tracking import MlflowTracker

router = APIRouter(route_class=ReadRoute)
for_coordinators = APIRouter(route_class=ChangeRoute)

FEED_LINES = 100
CURVE_ROWS = 20
LARGEST_NUMBER = 2**63 - 1
"""Of an event: what SQLite counts to."""


def render(request: Request, name: str, *, status_code: int = 200, headers: dict[str, str] | None = None, **values: Any) -> HTMLResponse:
    """Return a page; `visitor` and the federation's name are on every one."""
    desk: Desk = request.app.state.desk
    visitor: Visitor = request.state.visitor
    template = request.app.state.templates.get_template(name)
    shown = {"visitor": visitor, "federation": desk.folder.config.name, "csrf": visitor.csrf, "path": request.url.path} | values
    return HTMLResponse(template.render(shown), status_code=status_code, headers=headers)


@router.get("/")
def show_runs(request: Request) -> Response:
    """Show all runs; without any, how to begin one."""
    desk = desk_of(request)
    return render(request, "runs.html", runs=_summaries(request), folder=desk.folder.path, address=desk.folder.config.public_address)


@router.get("/part/runs")
def show_runs_part(request: Request) -> Response:
    """Show the table of runs again."""
    return render(request, "part_runs.html", runs=_summaries(request))


@router.get("/sites")
def show_sites(request: Request) -> Response:
    """Show the enrolled hospitals and the coordinator's processes."""
    return render(request, "sites.html", **_sites(request))


@router.get("/part/sites")
def show_sites_part(request: Request) -> Response:
    """Show them again."""
    return render(request, "part_sites.html", **_sites(request))


@router.get("/runs/{key}")
def show_run(request: Request, key: str) -> Response:
    """Show one run."""
    run = desk_of(request).run(key)
    last = run.last  # what comes after it, the stream tells
    lines = [feed_line(number, event) for number, event in events_after(run.path / EVENTS_FILE, 0, most=FEED_LINES) if number <= last]
    with run.lock:
        return render(
            request, "run.html", run=run, lines=lines[::-1], last=last, **_now(request, run), **_rounds(run), links=_links(request, run)
        )


@router.get("/runs/{key}/part/now")
def show_run_now(request: Request, key: str) -> Response:
    """Show what changes with every event: the round, the hospitals, what goes wrong."""
    run = desk_of(request).run(key)
    with run.lock:
        return render(request, "part_now.html", run=run, **_now(request, run))


@router.get("/runs/{key}/part/rounds")
def show_run_rounds(request: Request, key: str) -> Response:
    """Show what changes with every round: accuracies, drift, coverage."""
    run = desk_of(request).run(key)
    with run.lock:
        return render(request, "part_rounds.html", run=run, **_rounds(run))


@router.get("/runs/{key}/part/curves")
def tell_curves(request: Request, key: str) -> Response:
    """Return the learning curves, as JSON."""
    run = desk_of(request).run(key)
    with run.lock:
        return JSONResponse(curves(run.view))


@router.get("/runs/{key}/costs")
def show_costs(request: Request, key: str) -> Response:
    """Show what a run costs."""
    run = desk_of(request).run(key)
    return render(request, "costs.html", run=run, costs=cost_tables(read_ledger(run.path / EVENTS_FILE)))


@for_coordinators.get("/operators")
def show_operators(request: Request) -> Response:
    """Show the operators and the last calls."""
    store = request.app.state.gate.store
    return render(request, "operators.html", operators=store.operators(), calls=store.calls(last=200), folder=desk_of(request).folder.path)


def desk_of(request: Request) -> Desk:
    """Return what this application knows."""
    desk: Desk = request.app.state.desk
    return desk


def _now(request: Request, run: WatchedRun) -> dict[str, Any]:
    """Return what part_now.html shows; hospitals in trouble first, since they are what somebody must see to."""
    connections = {} if run.is_simulation else desk_of(request).connections()
    sites = sorted(run.view.sites.values(), key=lambda row: (not row.failed, row.name))
    return {"sites": sites, "connections": connections, "troubles": trouble_rows(run.view)}


def _rounds(run: WatchedRun) -> dict[str, Any]:
    """Return what part_rounds.html shows."""
    headings, accuracies = accuracy_table(run.view)
    hidden = "secure aggregation" if run.config.secure else "differential privacy" if run.config.privacy else ""
    told = curves(run.view)
    rows = range(len(told["round"]))[-CURVE_ROWS:]
    return {
        "headings": headings,
        "accuracies": accuracies,
        "model_round": max(run.view.validation, default=None),
        "drifts": () if hidden else drift_of(run.records(LOOKED_AT), cosine_limit=run.config.robustness.cosine_limit),
        "drift_hidden": hidden,
        "coverage": coverage_of(run.view.sites.values()),
        "CASES": CASES,
        "EVERY": EVERY,
        "COLUMNS": MARKER_NAMES,
        "curve_lines": {f"{family} {label}": values for family in ("dice", "auc") for label, values in told[family].items()},
        "curve_rows": [(told["round"][row], row) for row in reversed(rows)],
    }


def _links(request: Request, run: WatchedRun) -> dict[str, str]:
    """Return where the run is in MLflow, and the commands for a terminal."""
    mlflow = _without_account(desk_of(request).config.mlflow or run.config.tracking.uri)
    store = _without_account(MlflowTracker(run.config.tracking, run.path).uri)
    marker = run.path / "mlflow_run"
    page = ""
    if mlflow.startswith(("http://", "https://")):
        page = mlflow.rstrip("/") + (f"/#/runs/{marker.read_text(encoding='utf-8').strip()}" if marker.exists() else "")
    submission = read_submission(run.path)
    coordinator: Path | None = submission.coordinator if submission is not None else None
    return {
        "mlflow": page,
        "mlflow_command": f"mlflow ui --backend-store-uri {store} --host 127.0.0.1",
        "follow": f"gmmas status {run.path} --follow",
        "resume": resume_command(run.path, coordinator),
        "predict": f"gmmas predict CASE_FOLDER --model {run.path / 'models' / 'best'} --out prediction",
    }


def _without_account(uri: str) -> str:
    """Return an address without the name and password that a store may ask for: every operator reads the page."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def _summaries(request: Request) -> list[RunSummary]:
    return [run.summary() for run in desk_of(request).runs()]


def _sites(request: Request) -> dict[str, Any]:
    desk = desk_of(request)
    state = live_state(desk.folder.state_file)
    return {
        "nodes": desk.nodes(),
        "processes": state.processes if state else (),
        "address": desk.folder.config.public_address,
    }
