"""The platform as an ASGI application: routes, templates, headers."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from jinja2 import Environment
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.staticfiles import StaticFiles

from gmmas_portal.web import admin_pages, case_pages, login, patient_pages, report_pages, stream, upload_pages
from gmmas_portal.web.accounts import AccountStore
from gmmas_portal.web.desk import Desk, render
from gmmas_portal.web.gate import Gate
from gmmas_portal.web.settings import PortalFolder
from gmmas_runtime.web_answers import SafeHeaders, make_environment
from gmmas_schema.errors import GmmasError

STATIC: Final = Path(__file__).parent / "static"
POLICY: Final = {
    # WebAssembly for the viewer's decompression and geometry, without eval; its own pictures and fonts are data inside its script.
    "script-src": "'self' 'wasm-unsafe-eval'",
    "img-src": "'self' data: blob:",
    "worker-src": "'self' blob:",
}


def make_app(folder: PortalFolder, *, hasher: PasswordHasher | None = None) -> FastAPI:
    """Return the application for a platform's folder.

    Args:
        folder: of the platform.
        hasher: of passwords; by default argon2-cffi's own parameters.
    """
    hosts = ["127.0.0.1", "localhost", *folder.config.hosts]
    app = FastAPI(
        title="gmmas-fed portal",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[Middleware(SafeHeaders, POLICY), Middleware(TrustedHostMiddleware, allowed_hosts=hosts)],
    )
    desk = Desk(folder)
    if hasher is not None:
        desk.accounts = AccountStore(desk.database, hasher=hasher)
    app.state.desk, app.state.closing, app.state.templates = desk, desk.closing, make_templates()
    app.state.gate = Gate(desk.accounts, desk.audit, folder.config, refuse=refuse, explain=explain)
    for router in (
        login.router,
        login.own,
        stream.router,
        upload_pages.router,
        upload_pages.sending,
        report_pages.router,
        patient_pages.router,
        case_pages.router,
        case_pages.masks,
        case_pages.papers,
        admin_pages.router,
    ):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(HTTPException, _no_page)
    app.add_exception_handler(RequestValidationError, _no_page)
    return app


@cache
def make_templates() -> Environment:
    """Return the templates."""
    return make_environment(Path(__file__).parent / "templates", {"day": _day, "moment": _moment, "sentence": _sentence})


def refuse(request: Request, status: int, reason: str) -> Response:
    """Answer a request that is refused."""
    return render(request, "refused.html", status_code=status, reason=reason)


def explain(request: Request, error: GmmasError, status: int) -> Response:
    """Answer with an error that a person can act on; its `where` may be a path and is not shown."""
    return render(request, "error.html", status_code=status, error=error)


def _no_page(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    return render(
        request, "refused.html", status_code=status, reason="there is no such page" if status in (404, 405) else "the request failed"
    )


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M}"


def _sentence(text: str) -> str:
    """Return a text that begins with a capital and ends with a full stop."""
    stripped = text.strip().rstrip(".")
    return f"{stripped[:1].upper()}{stripped[1:]}." if stripped else ""
