"""Logging in and out, and health: the only routes that anybody may use."""

import re
import secrets
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from gmmas_runtime.web_requests import CSRF_FIELD, form_of, own_path, same_secret
from gmmas_schema.printable import printable
from server.dashboard.gate import Gate, OpenRoute, ReadRoute, Visitor
from server.dashboard.pages import render
from server.operators import OPERATOR_NAME, Way
from server.wording import format_seconds

router = APIRouter(route_class=OpenRoute)
leaving = APIRouter(route_class=ReadRoute)

_FORM_PATH: Final = "/login"


@router.get("/health")
def health() -> PlainTextResponse:
    """Say that the dashboard serves."""
    return PlainTextResponse("ok\n")


@router.get("/login")
def show_login(request: Request) -> Response:
    """Show the form."""
    return _form(request)


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Open a session for whoever has a token."""
    gate: Gate = request.app.state.gate
    form = await form_of(request)
    nobody = Visitor()
    given, expected = form.get(CSRF_FIELD, ""), request.cookies.get(_form_cookie(gate), "")
    if not expected or not same_secret(given, expected):
        await gate.record(request, nobody, "refused: not this form")
        return _form(request, status=403, fault="The form was out of date. Please try again.")
    operator, wait_s = await gate.verify(form.get("token", "").strip())
    if operator is None:
        reason = "too many failures" if wait_s else "token"
        await gate.record(request, nobody, f"refused: {reason} ({_claimed_name(form.get('token', ''))})")
        if wait_s:
            fault = f"Too many failures. Please wait {format_seconds(wait_s)}."
            return _form(request, status=429, fault=fault, headers={"Retry-After": f"{wait_s:.0f}"})
        return _form(request, status=401, fault="This is no operator's token.")
    await gate.record(request, Visitor(operator, Way.TOKEN), "logged in")
    value = await run_in_threadpool(gate.store.open_session, operator)
    response = RedirectResponse(own_path(form.get("next", "/")), status_code=303)
    response.set_cookie(
        gate.cookie,
        value,
        max_age=int(gate.config.session_hours * 3600),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    response.delete_cookie(_form_cookie(gate), path=_FORM_PATH)
    return response


@leaving.post("/logout")
async def log_out(request: Request) -> Response:
    """End the session."""
    gate: Gate = request.app.state.gate
    if value := request.cookies.get(gate.cookie):
        await run_in_threadpool(gate.store.close_session, value)
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(gate.cookie)
    return response


def _form(request: Request, *, status: int = 200, fault: str = "", headers: dict[str, str] | None = None) -> Response:
    """Answer with the form; its secret is also in a cookie, since there is no session yet."""
    gate: Gate = request.app.state.gate
    secret = secrets.token_urlsafe(32)
    following = own_path(request.query_params.get("next", "/"))
    request.state.visitor = Visitor()
    response = render(request, "login.html", status_code=status, csrf=secret, next=following, fault=fault, headers=headers)
    response.set_cookie(
        _form_cookie(gate), secret, max_age=3600, httponly=True, samesite="strict", secure=request.url.scheme == "https", path=_FORM_PATH
    )
    return response


def _claimed_name(token: str) -> str:
    """Return the name in a token for the record; half a token may be the secret half."""
    name = printable(token.partition(".")[0])
    return name if re.fullmatch(OPERATOR_NAME, name) else "no operator's name"


def _form_cookie(gate: Gate) -> str:
    return f"gmmas_login_{gate.config.port}"
