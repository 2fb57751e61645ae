"""For the site administrator: who has an account, and who did what."""

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from gmmas_portal.web.accounts import TICKET_HOURS, Role
from gmmas_portal.web.desk import desk_of, render
from gmmas_portal.web.gate import AdminRoute
from gmmas_runtime.web_requests import form_of
from gmmas_schema.errors import ConfigError, GmmasError

router = APIRouter(route_class=AdminRoute)

SHOWN_LINES = 300


@router.get("/accounts")
def show_accounts(request: Request) -> Response:
    """Show all accounts."""
    return _page(request)


@router.post("/accounts")
async def add_account(request: Request) -> Response:
    """Add an account, and show the link that signs it in once."""
    form, accounts = await form_of(request), desk_of(request).accounts
    name, role = form.get("name", "").strip(), form.get("role", "")
    try:
        if role not in set(Role):
            raise ConfigError("a role is missing", expected=", ".join(Role), remedy="choose one")
        patient = form.get("patient", "").strip() if role == Role.PATIENT else ""
        await run_in_threadpool(lambda: accounts.add(name, Role(role), patient=patient))
        ticket = await run_in_threadpool(accounts.make_ticket, name)
    except GmmasError as error:
        return await run_in_threadpool(_page, request, error=error, form=form)
    return await run_in_threadpool(lambda: _page(request, name=name, ticket=ticket))


@router.post("/accounts/{name}/link")
def make_link(request: Request, name: str) -> Response:
    """Show a new link that signs an account in once."""
    return _page(request, name=name, ticket=desk_of(request).accounts.make_ticket(name))


@router.post("/accounts/{name}/remove")
def remove_account(request: Request, name: str) -> Response:
    """Remove an account."""
    if name == request.state.visitor.account.name:
        raise ConfigError("nobody removes their own account", got=name, expected="another administrator", remedy="ask one of them")
    desk_of(request).accounts.remove(name)
    return _page(request)


@router.get("/audit")
def show_audit(request: Request) -> Response:
    """Show the newest lines of the audit, and whether the whole chain is as it was written."""
    audit = desk_of(request).audit
    return render(request, "audit.html", lines=audit.lines(last=SHOWN_LINES), state=audit.verify(), shown=SHOWN_LINES)


def _page(
    request: Request, *, error: GmmasError | None = None, form: dict[str, str] | None = None, name: str = "", ticket: str = ""
) -> Response:
    desk = desk_of(request)
    return render(
        request,
        "accounts.html",
        status_code=200 if error is None else 409,
        accounts=desk.accounts.accounts(),
        roles=tuple(Role),
        error=error,
        form=form or {},
        invited=name,
        link=f"{request.base_url}welcome?ticket={ticket}" if ticket else "",
        hours=round(TICKET_HOURS),
    )
