"""The dashboard as an ASGI application: routes, templates, headers."""

import threading
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from jinja2 import Environment
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles

from gmmas_runtime.web_answers import SafeHeaders, make_environment
from gmmas_schema.coordinator import DashboardConfig
from gmmas_schema.errors import GmmasError
from server.dashboard import actions, api, login, pages, stream, validations
from server.dashboard.desk import Desk
from server.dashboard.figures import FILTERS
from server.dashboard.gate import Gate, is_api
from server.folder import CoordinatorFolder
from server.operators import OperatorStore

STATIC: Final = Path(__file__).parent / "static"


def make_app(folder: CoordinatorFolder, config: DashboardConfig) -> FastAPI:
    """Return the application for a coordinator's folder."""
    app = FastAPI(
        title="gmmas-fed dashboard",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[Middleware(SafeHeaders), Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost", *config.hosts])],
    )
    app.state.templates = make_templates()
    app.state.desk = Desk(folder, config)
    app.state.streams, app.state.closing = set[object](), threading.Event()
    app.state.gate = Gate(OperatorStore(folder.operators), config, explain=explain)
    for router in (
        login.router,
        login.leaving,
        pages.router,
        validations.router,
        stream.router,
        actions.router,
        api.reading,
        api.changing,
        pages.for_coordinators,
    ):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


@cache
def make_templates() -> Environment:
    """Return the templates."""
    return make_environment(Path(__file__).parent / "templates", FILTERS)


def explain(request: Request, error: GmmasError, status: int) -> Response:
    """Answer with an error that a person can act on."""
    if is_api(request):
        told = {"error": error.what, "code": error.code, "where": error.where, "got": error.got, "expected": error.expected}
        return JSONResponse(told | {"remedy": error.remedy}, status_code=status)
    return pages.render(request, "error.html", status_code=status, error=error)
