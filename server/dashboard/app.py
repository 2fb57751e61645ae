"""The dashboard as an ASGI application: routes, templates, headers.

Every answer forbids scripts, styles, images and connections that are not of this very address (Content Security Policy Level 3), so that
a text of a hospital that should ever end up in a page as markup cannot act.
"""

import threading
from functools import cache
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gmmas_schema.coordinator import DashboardConfig
from gmmas_schema.errors import GmmasError
from server.dashboard import actions, api, login, pages, stream
from server.dashboard.desk import Desk
from server.dashboard.figures import FILTERS
from server.dashboard.gate import Gate, is_api
from server.folder import CoordinatorFolder
from server.operators import OperatorStore

STATIC: Final = Path(__file__).parent / "static"
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    # `no-referrer` would make browsers hide the origin of our own forms as well.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class SafeHeaders:
    """ASGI middleware, outermost: adds HEADERS to every answer; nothing but static files may be kept by browsers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = "no-cache" if scope["path"].startswith("/static/") else "no-store"
                added = [(name.encode(), value.encode()) for name, value in (HEADERS | {"cache-control": kept}).items()]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        await self._app(scope, receive, send_with_headers)


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
    """Return the templates: everything is escaped, and a name that is not given is an error."""
    environment = Environment(
        loader=PackageLoader("server.dashboard"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def explain(request: Request, error: GmmasError, status: int) -> Response:
    """Answer with an error that a person can act on."""
    if is_api(request):
        told = {"error": error.what, "code": error.code, "where": error.where, "got": error.got, "expected": error.expected}
        return JSONResponse(told | {"remedy": error.remedy}, status_code=status)
    return pages.render(request, "error.html", status_code=status, error=error)
