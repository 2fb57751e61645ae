"""Who may pass: recognises an account by its session, holds every route to its roles, and writes the audit.

Every route is made of a class that says for whom it is (Rule); one without a rule cannot be added. A changing request needs, beside the
session's cookie (HttpOnly, SameSite=Strict), an origin of this site and the secret of the session's forms.

Refused and changing requests are always audited; of reading ones the first in a minute, and not the parts that a page fetches by itself.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from gmmas_portal.web.accounts import Account, AccountStore, Role, Session
from gmmas_portal.web.audit import AuditTrail
from gmmas_portal.web.cases import NotThereError
from gmmas_portal.web.settings import PortalConfig
from gmmas_runtime.web_failures import Failures
from gmmas_runtime.web_looks import Looks
from gmmas_runtime.web_requests import (
    CSRF_FIELD,
    CSRF_HEADER,
    LARGEST_FORM_BYTES,
    UNSAFE_METHODS,
    GuardedRoute,
    Handle,
    fault_of,
    form_of,
    same_secret,
)
from gmmas_schema.errors import GmmasError

_MOST_LOOKS: Final = 2000
MOST_UPLOAD_FILES: Final = 5000
MOST_FIELDS: Final = 500
"""Of a form with files, and of the one that confirms an upload: it has a field for each series, of which a study may have more than the 50
fields of other forms."""
LARGEST_MASK_BYTES: Final = 64 * 2**20

Refuse = Callable[[Request, int, str], Response]
Explain = Callable[[Request, GmmasError, int], Response]


@dataclass(frozen=True)
class Rule:
    """For whom a route is, and how much may be sent to it.

    Attributes:
        roles: empty for everybody, without an account as well.
        largest_bytes: of a request; None for the upload limit of the configuration.
    """

    roles: frozenset[Role]
    largest_bytes: int | None = LARGEST_FORM_BYTES


@dataclass(frozen=True)
class Visitor:
    """Who asks: nobody known, or an account; `csrf` is the secret of the session's forms."""

    account: Account | None = None
    csrf: str = ""

    def has(self, *roles: Role) -> bool:
        """Return whether the account has one of the roles."""
        return self.account is not None and self.account.role in roles


class Gate:
    """Decides on every request.

    Args:
        accounts: accounts and sessions.
        audit: of all requests.
        config: of the platform.
        refuse: answers a refused request.
        explain: answers with an error that a person can act on.
    """

    def __init__(self, accounts: AccountStore, audit: AuditTrail, config: PortalConfig, *, refuse: Refuse, explain: Explain) -> None:
        self.accounts, self.audit, self.config = accounts, audit, config
        self._refuse, self._explain = refuse, explain
        self.failures, self.one_proof = Failures(), asyncio.Lock()
        self._looks = Looks(most=_MOST_LOOKS)

    @property
    def cookie(self) -> str:
        """Name of the session's cookie; browsers do not keep ports apart."""
        return f"gmmas_portal_{self.config.port}"

    async def admit(self, request: Request, rule: Rule, handle: Handle) -> Response:
        """Answer a request, or refuse it."""
        request.state.visitor = visitor = await run_in_threadpool(self._recognise, request)
        try:
            return await self._answer(request, rule, visitor, handle)
        finally:
            await request.close()  # an upload's temporary files, read or not

    async def _answer(self, request: Request, rule: Rule, visitor: Visitor, handle: Handle) -> Response:
        try:
            refusal = await self._refusal(request, rule, visitor)
            if refusal is not None:
                await self.record(request, f"refused: {refusal.status_code}")
                return refusal
            response = await handle(request)
            outcome = str(response.status_code)
        except GmmasError as error:
            outcome = f"failed: {error.code} {error.what}"
            response = self._explain(request, error, 404 if isinstance(error, NotThereError) else 409)
        except Exception as error:
            if rule.roles:
                await self.record(request, f"failed: {type(error).__name__}")
            raise
        # Signing in is recorded by the routes themselves, which know whose name was tried.
        if rule.roles and (
            request.method in UNSAFE_METHODS
            or self._looks.is_news((visitor.account.name if visitor.account else "", request.url.path), _page_of(request), outcome)
        ):
            await self.record(request, outcome)
        return response

    async def record(self, request: Request, outcome: str, *, subject: str = "", reason: str = "") -> None:
        """Write a request into the audit."""
        account = request.state.visitor.account
        await run_in_threadpool(
            self.audit.note,
            f"{request.method} {request.url.path}",
            who=account.name if account else "",
            role=account.role if account else "",
            client=request.client.host if request.client else "",
            subject=subject or str(next(iter(request.path_params.values()), "")),
            outcome=outcome,
            reason=reason,
        )

    def session_of(self, request: Request, *, used: bool = False) -> Session | None:
        """Return the session of a request's cookie. A page that keeps itself up to date does not count as use."""
        value = request.cookies.get(self.cookie)
        longest_s, idle_s = self.config.session_hours * 3600, self.config.idle_minutes * 60
        return self.accounts.session(value, longest_s=longest_s, idle_s=idle_s, used=used) if value else None

    def _recognise(self, request: Request) -> Visitor:
        found = self.session_of(request, used="/part" not in _page_of(request))
        return Visitor() if found is None else Visitor(found.account, found.csrf)

    async def _refusal(self, request: Request, rule: Rule, visitor: Visitor) -> Response | None:
        largest = self.config.upload_mib << 20 if rule.largest_bytes is None else rule.largest_bytes
        # Whoever has no account may send a form and nothing larger, whatever the route takes.
        if (fault := fault_of(request, largest_bytes=largest if visitor.account else LARGEST_FORM_BYTES)) is not None:
            return self._refuse(request, *fault)
        if not rule.roles:
            return None
        if visitor.account is None:
            return self._ask_who(request)
        if visitor.account.role not in rule.roles:
            return self._refuse(request, 403, "this page is not for your account")
        if request.method in UNSAFE_METHODS and not same_secret(await _secret_of(request), visitor.csrf):
            return self._refuse(request, 403, "the form is not one of this session: load the page again")
        return None

    def _ask_who(self, request: Request) -> Response:
        if request.method != "GET":
            return self._refuse(request, 401, "sign in first")
        if "hx-request" in request.headers or "/part" in _page_of(request):
            return Response(status_code=401, headers={"HX-Redirect": "/login"})
        return RedirectResponse(f"/login?next={quote(request.url.path)}", status_code=303)


def _page_of(request: Request) -> str:
    """Return a route's path as it was written: a pseudonym in it may begin with `part` as the parts do that a page fetches by itself."""
    path: str = request.scope["route"].path
    return path


async def _secret_of(request: Request) -> str:
    """Return the secret that a request carries, in a header or in its form."""
    if given := request.headers.get(CSRF_HEADER):
        return given
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        form = await request.form(max_files=MOST_UPLOAD_FILES, max_fields=MOST_FIELDS)
        value = form.get(CSRF_FIELD, "")
        return value if isinstance(value, str) else ""
    return (await form_of(request)).get(CSRF_FIELD, "")


class OpenRoute(GuardedRoute):
    """For everybody."""

    access = Rule(frozenset())


class AccountRoute(GuardedRoute):
    """For every account."""

    access = Rule(frozenset(Role))


class ClinicianRoute(GuardedRoute):
    """For clinicians."""

    access = Rule(frozenset({Role.CLINICIAN}))


class UploadRoute(GuardedRoute):
    """For clinicians who send a study."""

    access = Rule(frozenset({Role.CLINICIAN}), largest_bytes=None)


class MaskRoute(GuardedRoute):
    """For clinicians who send an outline."""

    access = Rule(frozenset({Role.CLINICIAN}), largest_bytes=LARGEST_MASK_BYTES)


class StaffRoute(GuardedRoute):
    """For clinicians and site administrators."""

    access = Rule(frozenset({Role.CLINICIAN, Role.ADMIN}))


class AdminRoute(GuardedRoute):
    """For site administrators."""

    access = Rule(frozenset({Role.ADMIN}))


class PatientRoute(GuardedRoute):
    """For patients."""

    access = Rule(frozenset({Role.PATIENT}))
