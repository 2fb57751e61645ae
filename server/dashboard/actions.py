"""Starting, stopping and resuming runs from a page: the code of `gmmas run` and `gmmas server stop-run`."""

from pathlib import Path
from typing import Final

import yaml
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from gmmas_runtime.files import make_private_folder
from gmmas_runtime.web_requests import form_of
from gmmas_schema.base import read_yaml
from gmmas_schema.errors import ConfigError, GmmasError
from gmmas_schema.federation import FederationConfig
from server.dashboard.desk import Desk
from server.dashboard.gate import ChangeRoute
from server.dashboard.pages import desk_of, render
from server.launching import resume_run, start_run, stop_submitted_run
from server.run_register import run_key

router = APIRouter(route_class=ChangeRoute)

BEGINNING: Final = """\
# Keys and their meaning: docs/coordinator.md, site_configs/federation-example.yaml. What is not said has its default.
name: first
rounds: 20
quorum: {sites: 2, replies: 2}
"""


@router.get("/start")
def show_start(request: Request, like: str = "") -> Response:
    """Show the form for a new run, by default or like an earlier one."""
    text = BEGINNING if not like else as_yaml(desk_of(request).outline(like).config)
    return render(request, "start.html", folder="", text=text, error=None)


@router.post("/start")
async def start(request: Request) -> Response:
    """Start a run."""
    form = await form_of(request)
    try:
        key = await run_in_threadpool(begin, desk_of(request), form.get("folder", ""), form.get("text", ""))
    except GmmasError as error:
        await request.app.state.gate.record(request, request.state.visitor, f"failed: {error.code} {error.brief()}")
        return render(request, "start.html", status_code=409, folder=form.get("folder", ""), text=form.get("text", ""), error=error)
    return RedirectResponse(f"/runs/{key}", status_code=303)


@router.post("/runs/{key}/stop")
def stop(request: Request, key: str) -> Response:
    """Stop a run; it can be resumed."""
    halt(desk_of(request), key)
    return RedirectResponse(f"/runs/{key}", status_code=303)


@router.post("/runs/{key}/resume")
def resume(request: Request, key: str) -> Response:
    """Go on with a run after its last finished round."""
    go_on(desk_of(request), key)
    return RedirectResponse(f"/runs/{key}", status_code=303)


def begin(desk: Desk, folder: str, text: str) -> str:
    """Start a run in a folder of this name below the coordinator's `runs`; returns its key.

    Raises:
        ConfigError: the name or the configuration is wrong, or the folder is in use.
        FederationError: the coordinator does not answer, or refuses.
    """
    raw = read_yaml(text, what="the configuration", where="configuration")
    config = FederationConfig.parse({} if raw is None else raw, where="configuration")
    path = desk.folder.runs / _folder_name(folder or config.name)
    make_private_folder(desk.folder.runs)
    start_run(path, desk.folder.path, config)
    return run_key(path)


def halt(desk: Desk, key: str) -> None:
    """Stop a run.

    Raises:
        ConfigError: there is no such run, or nothing was submitted from its folder.
        FederationError: the coordinator does not answer, or the run has ended.
    """
    run = desk.run(key)
    stop_submitted_run(run.path)
    run.forget()


def go_on(desk: Desk, key: str) -> None:
    """Resume a run at this coordinator.

    Raises:
        ConfigError: there is no such run, it is a simulation, or it is finished.
        FederationError: the coordinator does not answer, refuses, or is still at work on it.
    """
    run = desk.run(key)
    if run.is_simulation:
        raise ConfigError(
            "a simulation has no hospitals to go on with",
            where=run.path,
            got="a simulation",
            expected="a run of this coordinator",
            remedy=f"resume it in a terminal: gmmas simulate --resume --out {run.path}",
        )
    resume_run(run.path, desk.folder.path)
    run.forget()


def as_yaml(config: FederationConfig) -> str:
    """Return a configuration as a federation.yaml, short lists on one line."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, default_flow_style=None, width=120)


def _folder_name(name: str) -> str:
    if not name or len(name) > 63 or not all(letter.isascii() and (letter.isalnum() or letter in "-_") for letter in name):
        raise ConfigError(
            "this is not a name for the run's folder",
            where="folder",
            got=name,
            expected="up to 63 letters, digits, hyphens and underscores",
            remedy="for example: first",
        )
    assert Path(name).name == name, "one part of a path"
    return name
