"""Who may pass: recognises an operator by session or token, holds every route to its access, and records the calls.

    OPEN     anybody: login, health
    READ     every operator
    CHANGE   coordinators; by a session only with the form's secret, and only from a page of this dashboard

A session is a cookie that scripts cannot read and other pages cannot send (HttpOnly, SameSite=Strict); a forged request from another page
would also lack the secret of the session's forms (OWASP, "Cross-Site Request Forgery Prevention"). A bearer token needs neither, as no
browser sends it by itself.

Refused and changing requests are always recorded; of reading ones the first in a minute, and not the parts that a page fetches by itself.
"""

import asyncio
import hashlib
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool

from gmmas_runtime.disk import disk_fault
from gmmas_runtime.web_failures import Failures
from gmmas_runtime.web_looks import Looks
from gmmas_runtime.web_requests import CSRF_FIELD, CSRF_HEADER, UNSAFE_METHODS, GuardedRoute, Handle, fault_of, form_of, same_secret
from gmmas_schema.coordinator import DashboardConfig
from gmmas_schema.errors import GmmasError
from server.dashboard.desk import NoSuchRunError
from server.operators import Operator, OperatorStore, Role, Session, Way

MOST_NAMES: Final = 1000

Explain = Callable[[Request, GmmasError, int], Response]


class Access(StrEnum):
    """Who may use a route."""

    OPEN = "open"
    READ = "read"
    CHANGE = "change"


@dataclass(frozen=True)
class Visitor:
    """Who asks: nobody known, or an operator; `csrf` is the secret of the session's forms."""

    operator: Operator | None = None
    way: Way = Way.NONE
    csrf: str = ""
    refused: str = ""

    @property
    def may_change(self) -> bool:
        """Whether start, stop and resume are theirs."""
        return self.operator is not None and self.operator.role is Role.COORDINATOR


class Gate:
    """Decides on every request.

    Args:
        store: operators, sessions, calls.
        config: of the dashboard.
        explain: answers with an error that a person can act on.
    """

    def __init__(self, store: OperatorStore, config: DashboardConfig, *, explain: Explain) -> None:
        self.store, self.config, self._explain = store, config, explain
        self.failures = Failures()
        self._one_proof = asyncio.Lock()
        self._verified: dict[str, Operator] = {}
        self._looks = Looks(most=MOST_NAMES)

    @property
    def cookie(self) -> str:
        """Name of the session's cookie; browsers do not keep ports apart."""
        return f"gmmas_session_{self.config.port}"

    async def admit(self, request: Request, access: Access, handle: Handle) -> Response:
        """Answer a request, or refuse it. Where the disk takes no record of it, that is the answer: who reads it has to make room."""
        request.state.visitor = Visitor()
        try:
            return await self._answer(request, access, handle)
        except (OSError, sqlite3.Error) as error:
            fault = disk_fault(error, where=request.app.state.desk.folder.operators)
            if fault is None:
                raise
            return self._explain(request, fault, 507)

    async def _answer(self, request: Request, access: Access, handle: Handle) -> Response:
        visitor = await self._recognise(request) if access is not Access.OPEN else Visitor()
        request.state.visitor = visitor
        refusal = await self._refusal(request, access, visitor)
        if refusal is not None:
            await self.record(request, visitor, f"refused: {refusal.status_code}")
            return refusal
        try:
            response = await handle(request)
            outcome = str(response.status_code)
        except GmmasError as error:
            outcome = f"failed: {error.code} {error.brief()}"
            response = self._explain(request, error, 404 if isinstance(error, NoSuchRunError) else 409)
        except Exception as error:
            if access is Access.CHANGE:
                await self.record(request, visitor, f"failed: {type(error).__name__}")
            raise
        if access is Access.CHANGE or (access is Access.READ and self._looks.is_news(visitor.operator, request.url.path, outcome)):
            await self.record(request, visitor, outcome)
        return response

    async def record(self, request: Request, visitor: Visitor, outcome: str) -> None:
        """Append a call to the record."""
        operator = visitor.operator
        await run_in_threadpool(
            self.store.note,
            f"{request.method} {request.url.path}",
            outcome,
            operator=operator.name if operator else None,
            role=operator.role if operator else None,
            way=visitor.way,
            client=request.client.host if request.client else "",
        )

    async def verify(self, token: str) -> tuple[Operator | None, float]:
        """Return whose token this is, and if it was not looked at for too many failures, the seconds to wait.

        A token that was right before is known by its digest, so that guessing under its owner's name does not hold up their programs.
        """
        name = token.partition(".")[0][:64]
        digest = hashlib.sha256(token.encode()).hexdigest()
        known = self._verified.get(digest)
        if known is not None and known in await run_in_threadpool(self.store.operators):
            return known, 0.0
        async with self._one_proof:  # each takes 16 MiB and a core; whoever waits holds no thread that a page needs
            if (wait_s := self.failures.wait_s(name)) > 0:
                return None, wait_s
            operator = await run_in_threadpool(self.store.verify, token)
            if operator is None:
                self.failures.note(name)
                return None, 0.0
            self._verified[digest] = operator
            while len(self._verified) > MOST_NAMES:
                del self._verified[next(iter(self._verified))]
            return operator, 0.0

    def session_of(self, request: Request, *, used: bool = False) -> Session | None:
        """Return the session of a request's cookie. A page that keeps itself up to date does not count as use."""
        value = request.cookies.get(self.cookie)
        longest_s, idle_s = self.config.session_hours * 3600, self.config.idle_minutes * 60
        return self.store.session(value, longest_s=longest_s, idle_s=idle_s, used=used) if value else None

    async def _recognise(self, request: Request) -> Visitor:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            operator, wait_s = await self.verify(token.strip())
            if operator is None:
                return Visitor(refused=f"{wait_s:.0f}" if wait_s else "token")
            return Visitor(operator, Way.TOKEN)
        found = await run_in_threadpool(self.session_of, request, used="/part" not in request.url.path)
        return Visitor() if found is None else Visitor(found.operator, Way.SESSION, found.csrf)

    async def _refusal(self, request: Request, access: Access, visitor: Visitor) -> Response | None:
        if (fault := fault_of(request)) is not None:
            return _refuse(request, *fault)
        if access is Access.OPEN:
            return None
        if visitor.operator is None:
            return _unknown(request, visitor)
        if access is Access.CHANGE and not visitor.may_change:
            return _refuse(request, 403, "this is for coordinators")
        if request.method in UNSAFE_METHODS and visitor.way is Way.SESSION:
            given = request.headers.get(CSRF_HEADER) or (await form_of(request)).get(CSRF_FIELD, "")
            if not same_secret(given, visitor.csrf):
                return _refuse(request, 403, "the form is not one of this session: load the page again")
        return None


class OpenRoute(GuardedRoute):
    """For anybody."""

    access = Access.OPEN


class ReadRoute(GuardedRoute):
    """For every operator."""

    access = Access.READ


class ChangeRoute(GuardedRoute):
    """For coordinators."""

    access = Access.CHANGE


def is_api(request: Request) -> bool:
    """Return whether a program asks."""
    return request.url.path.startswith("/api/")


def _unknown(request: Request, visitor: Visitor) -> Response:
    """Ask who it is."""
    if visitor.refused.isdigit():
        return _refuse(request, 429, "too many failures", {"Retry-After": visitor.refused})
    if is_api(request) or visitor.refused or request.method != "GET":
        return _refuse(request, 401, "a token is needed: Authorization: Bearer NAME.SECRET", {"WWW-Authenticate": "Bearer"})
    if "hx-request" in request.headers or "/part" in request.url.path:
        return Response(status_code=401, headers={"HX-Redirect": "/login"})
    return RedirectResponse(f"/login?next={quote(request.url.path)}", status_code=303)


def _refuse(request: Request, status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    if is_api(request):
        return JSONResponse({"error": reason}, status_code=status, headers=headers)
    return Response(f"{reason}\n", status_code=status, headers=headers, media_type="text/plain")
