"""Signing in and out, the link that signs in once, the own password, and health: the only routes without a role."""

import secrets
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from gmmas_portal.web.accounts import SHORTEST_PASSWORD, Account, Role
from gmmas_portal.web.desk import desk_of, gate_of, render
from gmmas_portal.web.gate import AccountRoute, Gate, OpenRoute, Visitor
from gmmas_runtime.web_requests import CSRF_FIELD, form_of, own_path, same_secret
from gmmas_schema.errors import GmmasError

router = APIRouter(route_class=OpenRoute)
own = APIRouter(route_class=AccountRoute)

_HOME = {Role.PATIENT: "/mine", Role.CLINICIAN: "/cases", Role.ADMIN: "/accounts"}


@router.get("/health")
def health() -> PlainTextResponse:
    """Say that the platform serves."""
    return PlainTextResponse("ok\n")


@router.get("/login")
def show_login(request: Request) -> Response:
    """Show the form."""
    return _form(request, "login.html", next=own_path(request.query_params.get("next", "/")), name="", fault="")


@router.post("/login")
async def log_in(request: Request) -> Response:
    """Open a session for whoever has a password."""
    gate, form = gate_of(request), await form_of(request)
    name, following = form.get("name", "").strip()[:64], own_path(form.get("next", "/"))

    def again(status: int, fault: str) -> Response:
        return _form(request, "login.html", status=status, next=following, name=name, fault=fault)

    if not _is_own_form(request, gate, form):
        return again(403, "The form was out of date. Please try again.")
    account, wait_s = await _prove(gate, name, form.get("password", ""))
    if wait_s > 0:
        await gate.record(request, "refused: too many failures", subject=name)
        return again(429, _wait(wait_s))
    if account is None:
        await gate.record(request, "refused: password", subject=name)
        return again(401, "Name or password is wrong.")
    return await _open_session(request, account, following)


@router.get("/welcome")
def show_welcome(request: Request) -> Response:
    """Show whom a link signs in; only the button uses it up, so that a program that previews links does not."""
    ticket = request.query_params.get("ticket", "")
    account = gate_of(request).accounts.look_at_ticket(ticket)
    return _form(request, "welcome.html", status=200 if account else 410, ticket=ticket, invited=account)


@router.post("/welcome")
async def enter(request: Request) -> Response:
    """Open a session for whoever has a link."""
    gate, form = gate_of(request), await form_of(request)
    ticket = form.get("ticket", "")
    if not _is_own_form(request, gate, form):
        account = await run_in_threadpool(gate.accounts.look_at_ticket, ticket)
        return _form(request, "welcome.html", status=403, ticket=ticket, invited=account)
    account = await run_in_threadpool(gate.accounts.take_ticket, ticket)
    if account is None:
        await gate.record(request, "refused: link")
        return _form(request, "welcome.html", status=410, ticket="", invited=None)
    return await _open_session(request, account, "/")


@own.get("/")
async def go_home(request: Request) -> Response:
    """Lead an account to its own first page; a clinician of a new platform to the sample case."""
    account = request.state.visitor.account
    target = _HOME[account.role]
    if account.role is Role.CLINICIAN:
        cases = await run_in_threadpool(desk_of(request).cases.cases)
        if len(cases) == 1 and cases[0].sample:
            target = f"/cases/{cases[0].key}"
    return RedirectResponse(target, status_code=303)


@own.post("/logout")
async def log_out(request: Request) -> Response:
    """End the session."""
    gate = gate_of(request)
    if value := request.cookies.get(gate.cookie):
        await run_in_threadpool(gate.accounts.close_session, value)
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(gate.cookie)
    return response


@own.get("/account")
def show_account(request: Request) -> Response:
    """Show the form for the own password."""
    return render(request, "account.html", fault="", done=False, shortest=SHORTEST_PASSWORD)


@own.post("/account")
async def set_password(request: Request) -> Response:
    """Set the own password; whoever has one proves it first."""
    gate, form, account = gate_of(request), await form_of(request), request.state.visitor.account
    fault = await _doubt(gate, form, account)
    if not fault:
        try:
            kept = request.cookies.get(gate.cookie, "")
            await run_in_threadpool(lambda: gate.accounts.set_password(account.name, form.get("password", ""), keep=kept))
        except GmmasError as error:
            fault = f"{error.what.capitalize()}: {error.got}; {error.expected}."
    if not fault:
        request.state.visitor = Visitor(await run_in_threadpool(gate.accounts.account, account.name), request.state.visitor.csrf)
    return render(request, "account.html", status_code=409 if fault else 200, fault=fault, done=not fault, shortest=SHORTEST_PASSWORD)


async def _doubt(gate: Gate, form: dict[str, str], account: Account) -> str:
    """Return why a new password is not taken from this form; empty where it is."""
    if form.get("password", "") != form.get("again", ""):
        return "The two entries differ."
    if not account.has_password:
        return ""
    proven, wait_s = await _prove(gate, account.name, form.get("current", ""))
    return _wait(wait_s) if wait_s > 0 else "" if proven is not None else "The current password is wrong."


async def _prove(gate: Gate, name: str, password: str) -> tuple[Account | None, float]:
    """Return the account whose password this is, or None, and the seconds to wait where it was not looked at.

    One at a time: of many that are sent at once, each would be looked at before the failures of the others count.
    """
    async with gate.one_proof:
        if (wait_s := gate.failures.wait_s(name)) > 0:
            return None, wait_s
        account = await run_in_threadpool(gate.accounts.verify, name, password)
        if account is None:
            gate.failures.note(name)
    return account, 0.0


def _wait(seconds: float) -> str:
    return f"Too many failures. Please wait {max(1, round(seconds / 60))} minutes."


async def _open_session(request: Request, account: Account, following: str) -> Response:
    """Answer with the cookie of a new session; an old one of this browser ends."""
    gate = gate_of(request)
    if old := request.cookies.get(gate.cookie):
        await run_in_threadpool(gate.accounts.close_session, old)
    value = await run_in_threadpool(gate.accounts.open_session, account)
    request.state.visitor = Visitor(account)
    await gate.record(request, "signed in")
    response = RedirectResponse(following, status_code=303)
    secure, longest_s = request.url.scheme == "https", int(gate.config.session_hours * 3600)
    response.set_cookie(gate.cookie, value, max_age=longest_s, httponly=True, samesite="strict", secure=secure)
    response.delete_cookie(_form_cookie(gate), path="/")
    return response


def _form(request: Request, template: str, /, *, status: int = 200, **values: Any) -> Response:
    """Answer with a form for strangers; its secret is also in a cookie, since there is no session yet."""
    gate, secret = gate_of(request), secrets.token_urlsafe(32)
    request.state.visitor = Visitor()
    response = render(request, template, status_code=status, **values | {"csrf": secret})
    secure = request.url.scheme == "https"
    response.set_cookie(_form_cookie(gate), secret, max_age=3600, httponly=True, samesite="strict", secure=secure, path="/")
    return response


def _is_own_form(request: Request, gate: Gate, form: dict[str, str]) -> bool:
    expected = request.cookies.get(_form_cookie(gate), "")
    return bool(expected) and same_secret(form.get(CSRF_FIELD, ""), expected)


def _form_cookie(gate: Gate) -> str:
    return f"{gate.cookie}_form"
