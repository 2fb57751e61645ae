"""Who may use what: every route with every role, sessions, forms, limits, hostile names, and the audit of it all."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from gmmas_portal.web.accounts import Role
from gmmas_portal.web.gate import LARGEST_MASK_BYTES
from gmmas_portal.web.stream import MOST_STREAMS
from gmmas_runtime.web_requests import LARGEST_FORM_BYTES
from tests.gmmas_portal.web.conftest import ADDRESS, COOKIE, NAMES, PASSWORD, PATIENT, PortalUnderTest, add_case
from tests.gmmas_runtime.foreign_pages import FOREIGN_HEADERS
from tests.server.dashboard.conftest import Browser

OPEN: Final = {("GET", "/health"), ("GET", "/login"), ("POST", "/login"), ("GET", "/welcome"), ("POST", "/welcome")}
ACCOUNT: Final = {("GET", "/"), ("POST", "/logout"), ("GET", "/account"), ("POST", "/account")}
STAFF: Final = {("GET", "/evidence"), ("GET", "/model")}
CLINICIAN: Final = {
    ("GET", "/cases"),
    ("GET", "/cases/{key}"),
    ("GET", "/cases/{key}/image/{name}"),
    ("GET", "/cases/{key}/v{version}/{name}"),
    ("GET", "/cases/{key}/part/stream"),
    ("POST", "/cases/{key}/again"),
    ("POST", "/cases/{key}/export"),
    ("POST", "/cases/{key}/delete"),
    ("GET", "/cases/{key}/correct"),
    ("POST", "/cases/{key}/correct"),
    ("GET", "/cases/{key}/report"),
    ("POST", "/cases/{key}/report/sign"),
    ("POST", "/cases/{key}/report/reword"),
    ("POST", "/cases/{key}/report/{report}/release"),
    ("POST", "/cases/{key}/report/{report}/withdraw"),
    ("POST", "/cases/{key}/question"),
    ("GET", "/cases/{key}/report.pdf"),
    ("GET", "/cases/{key}/report.json"),
    ("GET", "/cases/{key}/record.json"),
    ("GET", "/patients/{patient}"),
    ("GET", "/upload"),
    ("POST", "/upload"),
    ("GET", "/upload/{draft}"),
    ("POST", "/upload/{draft}"),
    ("POST", "/upload/{draft}/discard"),
    ("GET", "/upload/{draft}/part/stream"),
}
ADMIN: Final = {
    ("GET", "/accounts"),
    ("POST", "/accounts"),
    ("POST", "/accounts/{name}/link"),
    ("POST", "/accounts/{name}/remove"),
    ("GET", "/audit"),
}
OWN: Final = {
    ("GET", "/mine"),
    ("GET", "/mine/{report}"),
    ("GET", "/mine/{report}/report.pdf"),
    ("GET", "/mine/{report}/picture.png"),
    ("POST", "/mine/{report}/question"),
}
"""Written down here a second time: a route that is added, or changes hands, must be looked at."""

ALLOWED: Final = {
    None: OPEN,
    Role.CLINICIAN: OPEN | ACCOUNT | STAFF | CLINICIAN,
    Role.ADMIN: OPEN | ACCOUNT | STAFF | ADMIN,
    Role.PATIENT: OPEN | ACCOUNT | OWN,
}
CHANGING: Final = [
    (role, *route)
    for role, routes in ((Role.CLINICIAN, CLINICIAN), (Role.ADMIN, ADMIN), (Role.PATIENT, OWN))
    for route in sorted(routes)
    if route[0] == "POST"
]


def routes_of(app: FastAPI) -> Iterator[tuple[str, str]]:
    for context in iter_route_contexts(app.routes):
        if isinstance(context.route, APIRoute):
            yield from ((method, context.path) for method in sorted(context.route.methods))


def real_path(site: PortalUnderTest, path: str) -> str:
    values = {"{key}": site.key, "{version}": "1", "{patient}": PATIENT, "{report}": "0" * 16, "{draft}": "0" * 24}
    path = path.replace("{name}", "admin" if path.startswith("/accounts") else "flair.nii.gz" if "/image/" in path else "montage.png")
    for name, value in values.items():
        path = path.replace(name, value)
    return path


def test_every_route_is_known_and_static_files_are_the_only_others(site: PortalUnderTest) -> None:
    assert sorted(routes_of(site.app)) == sorted(OPEN | ACCOUNT | STAFF | CLINICIAN | ADMIN | OWN)
    others = {getattr(c.route, "path", "") for c in iter_route_contexts(site.app.routes) if not isinstance(c.route, APIRoute)}
    assert others == {"/static"}


@pytest.mark.parametrize("role", [None, *Role])
def test_exactly_the_allowed_routes_answer(site: PortalUnderTest, role: Role | None) -> None:
    site.desk.streams.update(range(MOST_STREAMS))  # a stream that is let in would never end
    client, answered, statuses = site.client(role), set(), {}
    headers = {"x-csrf-token": site.csrf(client)} if role is not None else {}
    for method, path in sorted(routes_of(site.app), key=lambda route: route == ("POST", "/logout")):
        answer = client.request(method, real_path(site, path), headers=headers)
        refused = answer.status_code == 401 or answer.headers.get("location", "").startswith("/login?")
        refused |= answer.status_code == 403 and (method, path) not in OPEN  # those want the secret of their own form
        if not refused:
            answered.add((method, path))
        statuses[method, path] = answer.status_code
    assert answered == ALLOWED[role]
    assert not [route for route, status in statuses.items() if status >= 500 and status != 503]
    assert {statuses[route] for route in set(statuses) - ALLOWED[role]} <= {303, 401, 403}


def test_nothing_of_a_case_is_in_what_others_get(site: PortalUnderTest) -> None:
    for role in (None, Role.ADMIN, Role.PATIENT):
        client = site.client(role)
        for method, path in CLINICIAN:
            answer = client.request(method, real_path(site, path))
            assert answer.status_code in (303, 401, 403)
            assert PATIENT not in answer.text.replace(real_path(site, path), ""), (role, path)
            assert "31.4" not in answer.text


@pytest.mark.parametrize(("role", "method", "path"), CHANGING)
def test_a_session_changes_nothing_without_the_secret_of_its_forms(site: PortalUnderTest, role: Role, method: str, path: str) -> None:
    client, other = site.client(role), site.client(role)
    path = real_path(site, path)
    for secret in ("", "wrong", site.csrf(other)):
        assert client.request(method, path, headers={"x-csrf-token": secret}).status_code == 403
        assert client.request(method, path, data={"csrf": secret}).status_code == 403
        assert client.request(method, path, data={"csrf": secret}, files={"files": ("a.nii", b"x")}).status_code == 403
    assert client.request(method, path, data={"csrf": site.csrf(client)}).status_code != 403


@pytest.mark.parametrize("headers", FOREIGN_HEADERS)
def test_another_page_cannot_send_a_form(site: PortalUnderTest, headers: dict[str, str]) -> None:
    client = site.client(Role.CLINICIAN)
    body = {"csrf": site.csrf(client)}
    assert client.post(f"/cases/{site.key}/export", data=body, headers=headers).status_code == 403
    own = {"Origin": ADDRESS, "Sec-Fetch-Site": "same-origin"}
    assert client.post(f"/cases/{site.key}/export", data=body, headers=own).status_code == 303


def test_a_foreign_name_reaches_nothing(site: PortalUnderTest) -> None:
    """DNS rebinding: a page of evil.example whose name points to 127.0.0.1."""
    assert site.client().get("/health", headers={"Host": "evil.example"}).status_code == 400
    assert site.client().get("/health", headers={"Host": "localhost:9094"}).status_code == 200


def sign_in(site: PortalUnderTest, client: Browser, *, name: str = NAMES[Role.CLINICIAN], password: str = PASSWORD, **more: str) -> Any:
    client.get("/login")
    return client.post("/login", data={"csrf": client.cookies[f"{COOKIE}_form"], "name": name, "password": password, **more})


def test_a_sign_in_makes_a_new_session(site: PortalUnderTest) -> None:
    """Session fixation: a cookie that somebody put into the browser before is worth nothing after."""
    site.desk.accounts.set_password(NAMES[Role.CLINICIAN], PASSWORD)
    planted = site.client(Role.CLINICIAN).cookies[COOKIE]
    client = site.client()
    client.cookies.set(COOKIE, planted)
    answer = sign_in(site, client)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    fresh = next(line for line in answer.headers.get_list("set-cookie") if line.startswith(f"{COOKIE}="))
    value = fresh.partition("=")[2].partition(";")[0]
    assert value != planted
    assert "HttpOnly" in fresh
    assert "samesite=strict" in fresh.lower()
    assert site.desk.accounts.session(planted, longest_s=1e6, idle_s=1e6) is None
    assert site.desk.accounts.session(value, longest_s=1e6, idle_s=1e6) is not None


def test_a_wrong_password_opens_nothing_and_guessing_is_slowed_down(site: PortalUnderTest) -> None:
    site.desk.accounts.set_password(NAMES[Role.CLINICIAN], PASSWORD)
    site.app.state.gate.failures.most = 3
    client = site.client()
    for status in (401, 401, 401, 429):
        answer = sign_in(site, client, password="guessed-1234")
        assert answer.status_code == status
        assert not any(line.startswith(f"{COOKIE}=") for line in answer.headers.get_list("set-cookie"))
    assert sign_in(site, client).status_code == 429, "the right one waits as well"
    assert sign_in(site, client, name="nobody").status_code == 401, "every name has failures of its own"
    outcomes = [line.outcome for line in site.desk.audit.lines() if line.action == "POST /login"]
    assert (outcomes.count("refused: password"), outcomes.count("refused: too many failures")) == (4, 2)
    content = b"".join(path.read_bytes() for path in site.folder.path.glob("portal.db*"))
    assert b"guessed-1234" not in content


def test_a_sign_in_wants_its_own_form(site: PortalUnderTest) -> None:
    site.desk.accounts.set_password(NAMES[Role.CLINICIAN], PASSWORD)
    client = site.client()
    assert client.post("/login", data={"csrf": "", "name": NAMES[Role.CLINICIAN], "password": PASSWORD}).status_code == 403
    client.get("/login")
    assert client.post("/login", data={"csrf": "guessed", "name": NAMES[Role.CLINICIAN], "password": PASSWORD}).status_code == 403


@pytest.mark.parametrize("following", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", ""])
def test_a_sign_in_leads_nowhere_else(site: PortalUnderTest, following: str) -> None:
    site.desk.accounts.set_password(NAMES[Role.CLINICIAN], PASSWORD)
    assert 'name="next" value="/"' in site.client().get("/login", params={"next": following}).text
    assert sign_in(site, site.client(), next=following).headers["location"] == "/"


def test_signing_out_and_removal_end_a_session_at_once(site: PortalUnderTest) -> None:
    client = site.client(Role.CLINICIAN)
    cookie = client.cookies[COOKIE]
    assert site.post(client, "/logout").status_code == 303
    client.cookies.set(COOKIE, cookie)  # somebody kept it
    assert client.get("/cases").headers["location"] == "/login?next=/cases"
    again = site.client(Role.CLINICIAN)
    assert again.get("/cases").status_code == 200
    site.desk.accounts.remove(NAMES[Role.CLINICIAN])
    assert again.get("/cases").status_code == 303


def test_a_link_signs_in_once_by_its_button(site: PortalUnderTest) -> None:
    ticket = site.desk.accounts.make_ticket(NAMES[Role.PATIENT])
    client, thief = site.client(), site.client()
    for _ in range(2):
        assert NAMES[Role.PATIENT] in client.get("/welcome", params={"ticket": ticket}).text
    assert client.post("/welcome", data={"csrf": "guessed", "ticket": ticket}).status_code == 403
    client.get("/welcome", params={"ticket": ticket})
    answer = client.post("/welcome", data={"csrf": client.cookies[f"{COOKIE}_form"], "ticket": ticket})
    assert (answer.status_code, client.get("/").headers["location"]) == (303, "/mine")
    assert thief.get("/welcome", params={"ticket": ticket}).status_code == 410
    assert thief.post("/welcome", data={"csrf": thief.cookies[f"{COOKIE}_form"], "ticket": ticket}).status_code == 410


def test_large_requests_are_refused(site: PortalUnderTest) -> None:
    client, stranger = site.client(Role.CLINICIAN), site.client()
    secret = {"x-csrf-token": site.csrf(client)}

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"

    def length(count: int) -> dict[str, str]:
        return {**secret, "content-length": str(count)}

    assert client.post(f"/cases/{site.key}/again", content=pieces(), headers=secret).status_code == 413
    assert client.post(f"/cases/{site.key}/again", content=b"", headers=length(LARGEST_FORM_BYTES + 1)).status_code == 413
    assert client.post(f"/cases/{site.key}/correct", content=b"", headers=length(LARGEST_MASK_BYTES + 1)).status_code == 413
    assert client.post("/upload", content=b"", headers=length((site.folder.config.upload_mib << 20) + 1)).status_code == 413
    assert client.post("/upload", content=b"", headers={**secret, "content-length": "-1"}).status_code == 413
    assert stranger.post("/upload", content=b"", headers={"content-length": str(LARGEST_FORM_BYTES + 1)}).status_code == 413


def test_headers_forbid_everything_foreign(site: PortalUnderTest) -> None:
    client = site.client(Role.CLINICIAN)
    for path in ("/cases", "/login", "/health", f"/cases/{site.key}", "/static/viewer.js", "/absent", f"/cases/{site.key}/v1/montage.png"):
        answer = client.get(path)
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self' 'wasm-unsafe-eval'"
        assert {policy[name] for name in ("style-src", "connect-src", "form-action")} == {"'self'"}
        assert policy["img-src"] == "'self' data: blob:"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == ("no-cache" if path.startswith("/static/") else "no-store")


def test_requests_are_audited_with_who_what_and_outcome(site: PortalUnderTest) -> None:
    stranger, doctor, patient = site.client(), site.client(Role.CLINICIAN), site.client(Role.PATIENT)
    stranger.get(f"/cases/{site.key}")
    for _ in range(3):
        doctor.get(f"/cases/{site.key}")
    patient.get(f"/cases/{site.key}")
    site.post(patient, f"/cases/{site.key}/export")
    lines = [(line.who, line.role, line.action, line.subject, line.outcome) for line in reversed(site.desk.audit.lines())]
    assert lines == [
        ("", "", f"GET /cases/{site.key}", site.key, "refused: 303"),
        (NAMES[Role.CLINICIAN], "clinician", f"GET /cases/{site.key}", site.key, "200"),
        (NAMES[Role.PATIENT], "patient", f"GET /cases/{site.key}", site.key, "refused: 403"),
        (NAMES[Role.PATIENT], "patient", f"POST /cases/{site.key}/export", site.key, "refused: 403"),
    ]
    assert site.desk.audit.verify().broken_at is None


@pytest.mark.parametrize(
    "path",
    [
        "/cases/{key}/image/../../portal.db",
        "/cases/{key}/image/..%2f..%2fportal.db",
        "/cases/{key}/image/flair",
        "/cases/{key}/image/t2.nii.gz",
        "/cases/{key}/v1/..%2f..%2f..%2fportal.db",
        "/cases/{key}/v1/record.json",
        "/cases/{key}/v99/montage.png",
        "/cases/{key}/v-1/montage.png",
        "/cases/..%2f..%2fportal.db",
        "/upload/..%2fcases",
        "/upload/%2e%2e",
        "/static/../portal.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/app.py",
    ],
)
def test_no_path_leads_to_another_file(site: PortalUnderTest, path: str) -> None:
    answer = site.client(Role.CLINICIAN).get(path.replace("{key}", site.key))
    assert answer.status_code in (404, 409)
    assert b"SQLite" not in answer.content
    assert b"import " not in answer.content


EVIL: Final = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"


def test_hostile_texts_are_shown_as_text(site: PortalUnderTest) -> None:
    desk = site.desk
    key = add_case(desk, patient=EVIL)
    doctor, admin = site.client(Role.CLINICIAN), site.client(Role.ADMIN)
    clinician, patient = (doctor.get(f"/cases/{key}/report.json", params={"audience": a}).text for a in ("clinician", "patient"))
    row = desk.cases.sign(key, 1, by=EVIL, comment=EVIL, clinician=clinician, patient=patient)
    desk.cases.withdraw(row.id, by=EVIL, reason=EVIL)
    desk.audit.note(EVIL, who=EVIL, subject=EVIL, outcome=EVIL, reason=EVIL)
    pages = [doctor.get(path) for path in ("/cases", f"/cases/{key}", f"/cases/{key}/report", f"/cases/{key}/correct")]
    pages += [site.post(doctor, f"/cases/{key}/question", question=EVIL), admin.get("/audit")]
    pages += [site.post(admin, "/accounts", name=EVIL, role="patient", patient=EVIL), doctor.get("/login", params={"next": EVIL})]
    for page in pages:
        assert "<script>alert" not in page.text
        assert "<img src=x" not in page.text
    assert sum("&lt;script&gt;" in page.text for page in pages) >= 6, "it was shown at all"


def test_of_guesses_that_are_sent_at_once_no_more_are_looked_at_than_one_after_another(site: PortalUnderTest) -> None:
    site.desk.accounts.set_password(NAMES[Role.CLINICIAN], PASSWORD)
    site.app.state.gate.failures.most = 3
    client = site.client()
    client.get("/login")
    form = {"csrf": client.cookies[f"{COOKIE}_form"], "name": NAMES[Role.CLINICIAN], "password": "guessed-1234"}
    cookies = {f"{COOKIE}_form": form["csrf"]}

    async def all_at_once() -> list[int]:
        transport = httpx.ASGITransport(app=site.app)
        async with httpx.AsyncClient(transport=transport, base_url=ADDRESS, cookies=cookies) as many:
            answers = await asyncio.gather(*(many.post("/login", data=form) for _ in range(20)))
        return [answer.status_code for answer in answers]

    statuses = site.portal.call(all_at_once)
    assert (statuses.count(401), statuses.count(429)) == (3, 17)


def test_the_current_password_is_not_guessed_from_an_open_session(site: PortalUnderTest) -> None:
    site.desk.accounts.set_password(NAMES[Role.CLINICIAN], PASSWORD)
    site.app.state.gate.failures.most = 3
    client, wish = site.client(Role.CLINICIAN), {"password": "another horse", "again": "another horse"}
    for words in ("is wrong", "is wrong", "is wrong", "Please wait"):
        assert words in site.post(client, "/account", current="guessed-1234", **wish).text
    assert "Please wait" in site.post(client, "/account", current=PASSWORD, **wish).text
    assert site.desk.accounts.verify(NAMES[Role.CLINICIAN], PASSWORD) is not None


def test_a_pseudonym_may_begin_as_the_parts_of_a_page_do(site: PortalUnderTest) -> None:
    add_case(site.desk, patient="participant-07")
    site.client().get("/patients/participant-07")
    assert site.client(Role.CLINICIAN).get("/patients/participant-07").status_code == 200
    lines = [(line.who, line.action, line.outcome) for line in reversed(site.desk.audit.lines())]
    assert lines == [
        ("", "GET /patients/participant-07", "refused: 303"),
        (NAMES[Role.CLINICIAN], "GET /patients/participant-07", "200"),
    ]


def test_a_request_that_fails_is_audited_too(site: PortalUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    doctor = site.client(Role.CLINICIAN)
    assert doctor.get(f"/cases/{site.key}?version=first").status_code == 404
    header = {"x-csrf-token": site.csrf(doctor), "content-type": "multipart/form-data"}
    assert doctor.post(f"/cases/{site.key}/correct", content=b"x", headers=header).status_code == 400

    def broken(*_given: object, **_named: object) -> None:
        raise RuntimeError("Jane Doe")

    monkeypatch.setattr(site.desk.jobs, "add", broken)
    with pytest.raises(RuntimeError):
        site.post(doctor, f"/cases/{site.key}/export")
    outcomes = [line.outcome for line in reversed(site.desk.audit.lines())]
    assert outcomes == ["failed: RequestValidationError", "failed: HTTPException", "failed: RuntimeError"]
