"""Who may use what: every route with every role, sessions, forms, tokens, limits, and the record of calls."""

import threading
from collections.abc import AsyncIterator, Iterator
from typing import Final

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from gmmas_runtime import web_failures
from gmmas_runtime.web_failures import Failures
from gmmas_runtime.web_requests import LARGEST_FORM_BYTES
from gmmas_schema.coordinator import DashboardConfig
from server.dashboard import actions
from server.dashboard.app import make_app
from server.dashboard.stream import MOST_STREAMS
from server.operator_tables import open_operators
from server.operators import Role, Way
from tests.gmmas_runtime.foreign_pages import FOREIGN_HEADERS
from tests.server.dashboard.conftest import ADDRESS, Browser, DeskUnderTest

OPEN: Final = {("GET", "/health"), ("GET", "/login"), ("POST", "/login")}
READ: Final = {
    ("POST", "/logout"),
    ("GET", "/"),
    ("GET", "/part/runs"),
    ("GET", "/sites"),
    ("GET", "/part/sites"),
    ("GET", "/runs/{key}"),
    ("GET", "/runs/{key}/part/now"),
    ("GET", "/runs/{key}/part/rounds"),
    ("GET", "/runs/{key}/part/curves"),
    ("GET", "/runs/{key}/part/stream"),
    ("GET", "/runs/{key}/costs"),
    ("GET", "/api/runs"),
    ("GET", "/api/runs/{key}"),
    ("GET", "/api/runs/{key}/events"),
    ("GET", "/api/runs/{key}/costs"),
    ("GET", "/api/sites"),
    ("GET", "/validations"),
    ("GET", "/validations/{key}"),
    ("GET", "/validations/{key}/matrix.png"),
    ("GET", "/api/validations"),
    ("GET", "/api/validations/{key}"),
}
CHANGE: Final = {
    ("GET", "/start"),
    ("POST", "/start"),
    ("POST", "/runs/{key}/stop"),
    ("POST", "/runs/{key}/resume"),
    ("GET", "/operators"),
    ("POST", "/api/runs"),
    ("POST", "/api/runs/{key}/stop"),
    ("POST", "/api/runs/{key}/resume"),
}
"""Written down here a second time: a route that is added, or changes hands, must be looked at."""


def routes_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    for context in iter_route_contexts(app.routes):
        if isinstance(context.route, APIRoute):
            yield from ((method, context.path) for method in sorted(context.route.methods))


def test_every_route_is_known_and_static_files_are_the_only_others(desk: DeskUnderTest) -> None:
    assert sorted(routes_of(desk.app)) == sorted(OPEN | READ | CHANGE)
    others = {
        getattr(context.route, "path", "") for context in iter_route_contexts(desk.app.routes) if not isinstance(context.route, APIRoute)
    }
    assert others == {"/static"}


@pytest.mark.parametrize("bearer", [False, True], ids=["session", "token"])
@pytest.mark.parametrize("role", [None, *Role])
def test_exactly_the_allowed_routes_answer(desk: DeskUnderTest, role: Role | None, bearer: bool) -> None:
    allowed = OPEN if role is None else OPEN | READ if role is Role.RESEARCHER else OPEN | READ | CHANGE
    desk.app.state.streams.update(range(MOST_STREAMS))  # a stream that is let in would never end
    answered, statuses = set(), {}
    client = desk.client(role, bearer=bearer)
    headers = {"x-csrf-token": desk.csrf(client)} if role is not None and not bearer else {}
    for method, path in sorted(routes_of(desk.app), key=lambda route: route == ("POST", "/logout")):
        answer = client.request(method, path.replace("{key}", desk.key), headers=headers)
        asked_who = answer.status_code in (401, 403) or answer.headers.get("location", "").startswith("/login?")
        # The form of the login itself is refused for want of its secret, not of a role.
        if not asked_who or (method, path) == ("POST", "/login"):
            answered.add((method, path))
        statuses[method, path] = answer.status_code
    assert answered == allowed
    assert not [route for route, status in statuses.items() if status >= 500 and status != 503]
    assert {statuses[route] for route in set(statuses) - allowed} <= {303, 401, 403}


@pytest.mark.parametrize(("method", "path"), sorted(CHANGE - {("GET", "/start"), ("GET", "/operators")}))
def test_a_session_changes_nothing_without_the_secret_of_its_forms(desk: DeskUnderTest, method: str, path: str) -> None:
    client, other = desk.client(Role.COORDINATOR), desk.client(Role.COORDINATOR)
    path = path.replace("{key}", desk.key)
    for secret in ("", "wrong", desk.csrf(other)):
        assert client.request(method, path, headers={"x-csrf-token": secret}).status_code == 403
        assert client.request(method, path, data={"csrf": secret}).status_code == 403
    assert client.request(method, path, data={"csrf": desk.csrf(client)}).status_code != 403


@pytest.mark.parametrize("headers", FOREIGN_HEADERS)
def test_another_page_cannot_send_a_form(desk: DeskUnderTest, headers: dict[str, str]) -> None:
    client = desk.client(Role.COORDINATOR)
    body = {"csrf": desk.csrf(client)}
    assert client.post(f"/runs/{desk.key}/stop", data=body, headers=headers).status_code == 403
    own = {"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"}
    assert client.post(f"/runs/{desk.key}/stop", data=body, headers=own).status_code == 409  # nothing was submitted from there


def test_a_foreign_name_reaches_nothing(desk: DeskUnderTest) -> None:
    """DNS rebinding: a page of evil.example whose name points to 127.0.0.1."""
    assert desk.client().get("/health", headers={"Host": "evil.example"}).status_code == 400
    assert desk.client().get("/health", headers={"Host": "localhost:9093"}).status_code == 200
    app = make_app(desk.folder, DashboardConfig(hosts=("desk.example.org",)))
    assert Browser(app, desk.portal, base_url="http://desk.example.org").get("/health").status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_other_pages(desk: DeskUnderTest) -> None:
    for base, secure in ((ADDRESS, False), ("https://127.0.0.1:9093", True)):
        client = Browser(desk.app, desk.portal, base_url=base)
        client.get("/login")
        body = {"csrf": client.cookies["gmmas_login_9093"], "token": desk.tokens[Role.RESEARCHER]}
        answer = client.post("/login", data=body)
        (cookie,) = [
            line for line in answer.headers.get_list("set-cookie") if line.startswith("gmmas_session_9093=") and "Max-Age=0" not in line
        ]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert ("Secure" in cookie) is secure
        value = cookie.partition("=")[2].partition(";")[0]
        assert value not in desk.folder.operators.read_bytes().decode("latin-1"), "cookies are kept as digests"


def test_logging_out_and_removal_end_a_session_at_once(desk: DeskUnderTest) -> None:
    client = desk.client(Role.RESEARCHER)
    cookie = client.cookies["gmmas_session_9093"]
    assert client.get("/").status_code == 200
    assert client.post("/logout", data={"csrf": desk.csrf(client)}).status_code == 303
    client.cookies.set("gmmas_session_9093", cookie)  # somebody kept it
    assert client.get("/").headers["location"] == "/login?next=/"
    again, program = desk.client(Role.RESEARCHER), desk.client(Role.RESEARCHER, bearer=True)
    assert (again.get("/").status_code, program.get("/api/runs").status_code) == (200, 200)
    desk.store.remove("researcher-one")
    assert (again.get("/").status_code, program.get("/api/runs").status_code) == (303, 401)
    desk.store.add("researcher-one", Role.COORDINATOR)
    assert (again.get("/").status_code, program.get("/api/runs").status_code) == (303, 401), "a name is no key"


@pytest.mark.parametrize("following", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/a?b=//c", ""])
def test_a_login_leads_nowhere_else(desk: DeskUnderTest, following: str) -> None:
    client = desk.client()
    page = client.get("/login", params={"next": following}).text
    assert 'name="next" value="/"' in page
    body = {"csrf": client.cookies["gmmas_login_9093"], "token": desk.tokens[Role.RESEARCHER], "next": following}
    assert client.post("/login", data=body).headers["location"] == "/"


def test_a_login_opens_a_session_and_leads_to_the_page_that_was_asked_for(desk: DeskUnderTest) -> None:
    client = desk.client()
    asked = client.get(f"/runs/{desk.key}").headers["location"]
    page = client.get(asked).text
    assert f'name="next" value="/runs/{desk.key}"' in page
    body = {"csrf": client.cookies["gmmas_login_9093"], "token": f" {desk.tokens[Role.RESEARCHER]}\n", "next": f"/runs/{desk.key}"}
    answer = client.post("/login", data=body)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/runs/{desk.key}")
    assert "gmmas_login_9093" not in client.cookies, "a form serves once"
    assert client.get(f"/runs/{desk.key}").status_code == 200
    assert [call.outcome for call in desk.store.calls()][1:] == ["logged in", "refused: 303"]


def test_half_a_token_is_in_no_record(desk: DeskUnderTest) -> None:
    """Who pastes what stands behind the point alone has pasted the secret."""
    secret = desk.tokens[Role.COORDINATOR].partition(".")[2]
    for told in (secret, f" {secret}", f"{secret}."):
        client = desk.client()
        client.get("/login")
        assert client.post("/login", data={"csrf": client.cookies["gmmas_login_9093"], "token": told}).status_code == 401
    assert {call.outcome for call in desk.store.calls()} == {"refused: token (no operator's name)"}
    assert secret not in desk.folder.operators.read_bytes().decode("latin-1")


def test_a_login_wants_its_own_form(desk: DeskUnderTest) -> None:
    client = desk.client()
    token = desk.tokens[Role.COORDINATOR]
    assert client.post("/login", data={"csrf": "", "token": token}).status_code == 403
    client.get("/login")
    assert client.post("/login", data={"csrf": "guessed", "token": token}).status_code == 403


@pytest.mark.parametrize(
    "token", ["", ".", "coordinator-one", "coordinator-one.", "coordinator-one.wrong", "nobody.wrong", "x" * 5000, "\u0000.a"]
)
def test_a_wrong_token_opens_nothing(desk: DeskUnderTest, token: str) -> None:
    client = desk.client()
    client.get("/login")
    answer = client.post("/login", data={"csrf": client.cookies["gmmas_login_9093"], "token": token})
    assert answer.status_code == 401
    assert "gmmas_session_9093" not in client.cookies


def test_guessing_is_slowed_down_and_open_sessions_go_on(desk: DeskUnderTest) -> None:
    desk.app.state.gate.failures.most = 3
    session, program, known = desk.client(Role.COORDINATOR), desk.client(), desk.client(Role.RESEARCHER, bearer=True)
    assert known.get("/api/runs").status_code == 200
    for status in (401, 401, 401, 429):
        answer = program.get("/api/runs", headers={"Authorization": "Bearer coordinator-one.wrong"})
        assert answer.status_code == status
    assert 0 < int(answer.headers["Retry-After"]) <= 300
    right = {"Authorization": f"Bearer {desk.tokens[Role.COORDINATOR]}"}
    assert session.get("/").status_code == 200
    for status in (401, 401, 401, 429):
        wrong = {"Authorization": "Bearer researcher-one.wrong"}
        assert program.get("/api/runs", headers=wrong).status_code == status, "every name has failures of its own"
    assert known.get("/api/runs").status_code == 200, "a program that was let in before is not held up"
    assert program.get("/api/runs", headers=right).status_code == 429


def test_guesses_that_are_waited_for_hold_up_no_page(desk: DeskUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """More of them at once than there are threads for pages."""
    looked_at, may_end = threading.Semaphore(0), threading.Event()

    def verify(_token: str) -> None:
        looked_at.release()
        may_end.wait(2)

    monkeypatch.setattr(desk.app.state.gate.store, "verify", verify)
    session = desk.client(Role.RESEARCHER)

    async def guess(number: int) -> int:
        transport = httpx.ASGITransport(app=desk.app)
        async with httpx.AsyncClient(transport=transport, base_url=ADDRESS) as client:
            return (await client.get("/api/runs", headers={"Authorization": f"Bearer name{number}.wrong"})).status_code

    guesses = [desk.portal.start_task_soon(guess, number) for number in range(60)]
    assert looked_at.acquire(timeout=5)
    assert session.get("/").status_code == 200
    assert not looked_at.acquire(blocking=False), "the page came while the first guess was looked at"
    may_end.set()
    assert {each.result() for each in guesses} == {401}


def test_failures_are_forgotten_in_time() -> None:
    now = [0.0]
    failures = Failures(clock=lambda: now[0])
    for second in range(web_failures.MOST_FAILURES):
        assert failures.wait_s("anna") == 0
        now[0] = float(second)
        failures.note("anna")
    assert failures.wait_s("anna") == pytest.approx(web_failures.FAILURES_WITHIN_S - (web_failures.MOST_FAILURES - 1))
    assert failures.wait_s("bert") == 0
    now[0] = web_failures.FAILURES_WITHIN_S + 0.5
    assert failures.wait_s("anna") == 0
    for number in range(2 * web_failures.MOST_NAMES):
        failures.note(f"name{number}")
    assert len(failures._times) == web_failures.MOST_NAMES


def test_large_requests_are_refused(desk: DeskUnderTest) -> None:
    client = desk.client(Role.COORDINATOR, bearer=True)
    assert client.post("/api/runs", content=b"x" * (LARGEST_FORM_BYTES + 1)).status_code == 413

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    assert client.post("/api/runs", content=pieces()).status_code == 413


def test_calls_are_recorded_with_who_what_and_outcome(desk: DeskUnderTest) -> None:
    stranger, researcher = desk.client(), desk.client(Role.RESEARCHER)
    stranger.get("/api/runs")
    stranger.get("/login")
    stranger.post("/login", data={"csrf": stranger.cookies["gmmas_login_9093"], "token": "eve\n.secretsecret"})
    researcher.get("/")
    researcher.get("/part/runs")
    researcher.post(f"/runs/{desk.key}/stop", data={"csrf": desk.csrf(researcher)})
    desk.client(Role.COORDINATOR, bearer=True).post(f"/api/runs/{desk.key}/stop")
    calls = [(call.operator, call.role, call.way, call.action, call.outcome) for call in reversed(desk.store.calls())]
    one = ("researcher-one", "researcher", Way.SESSION)
    assert calls == [
        (None, None, Way.NONE, "GET /api/runs", "refused: 401"),
        (None, None, Way.NONE, "POST /login", "refused: token (eve)"),
        (*one, "GET /", "200"),  # and again, for the secret of the form
        (*one, f"POST /runs/{desk.key}/stop", "refused: 403"),
        ("coordinator-one", "coordinator", Way.TOKEN, f"POST /api/runs/{desk.key}/stop", calls[-1][-1]),
    ]
    assert calls[-1][-1].startswith("failed: E_CONFIG no run was submitted from this folder")
    assert "secretsecret" not in desk.folder.operators.read_bytes().decode("latin-1")


def test_a_change_that_fails_for_a_fault_of_ours_is_recorded_too(desk: DeskUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(actions, "halt", fail)
    with pytest.raises(ZeroDivisionError):
        desk.client(Role.COORDINATOR, bearer=True).post(f"/api/runs/{desk.key}/stop")
    (call,) = desk.store.calls(last=1)
    assert (call.operator, call.action, call.outcome) == ("coordinator-one", f"POST /api/runs/{desk.key}/stop", "failed: ZeroDivisionError")


def test_a_full_disk_is_told_where_it_takes_no_record(desk: DeskUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    note, pages = desk.app.state.gate.store.note, []

    def note_without_room(*words: str, **who: object) -> None:
        with open_operators(desk.folder.operators) as database:
            (count,) = database.execute("PRAGMA page_count").fetchone()
            database.execute(f"PRAGMA max_page_count = {count}").fetchall()
            database.execute("INSERT INTO calls (time, way, client, action, outcome) VALUES (0, '', '', ?, '')", ("x" * 100_000,))

    monkeypatch.setattr(desk.app.state.gate.store, "note", note_without_room)
    for client, path in (
        (desk.client(Role.RESEARCHER), "/"),
        (desk.client(), "/"),
        (desk.client(Role.RESEARCHER, bearer=True), "/api/runs"),
    ):
        pages.append(client.get(path))
    assert [(page.status_code, "E_DISK" in page.text, "make room" in page.text) for page in pages] == [(507, True, True)] * 3
    assert pages[2].json()["where"] == str(desk.folder.operators)
    monkeypatch.setattr(desk.app.state.gate.store, "note", note)
    assert desk.client(Role.RESEARCHER).get("/sites").status_code == 200


def test_headers_forbid_everything_foreign(desk: DeskUnderTest) -> None:
    client = desk.client(Role.RESEARCHER)
    for path in ("/", "/login", "/health", f"/runs/{desk.key}", "/static/live.js", "/absent", "/api/runs"):
        answer = client.get(path)
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src", "form-action")} == {"'self'"}
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")
