"""Headers of every answer, and templates that escape."""

from pathlib import Path

import anyio
import httpx
import pytest
from jinja2 import UndefinedError
from starlette.types import Receive, Scope, Send

from gmmas_runtime.web_answers import SafeHeaders, make_environment


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"kept")]})
    await send({"type": "http.response.body", "body": b"ok"})


def ask(path: str, policy: dict[str, str] | None = None) -> httpx.Response:
    async def get() -> httpx.Response:
        transport = httpx.ASGITransport(app=SafeHeaders(application, policy))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path)

    return anyio.run(get)


def test_every_answer_forbids_what_is_foreign() -> None:
    answer = ask("/page")
    assert (answer.text, answer.headers["x-own"], answer.headers["cache-control"]) == ("ok", "kept", "no-store")
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in policy
    assert ask("/static/a.js").headers["cache-control"] == "no-cache"


def test_a_directive_can_be_widened_alone() -> None:
    parts = ask("/", {"img-src": "'self' data:"}).headers["content-security-policy"].split("; ")
    assert "img-src 'self' data:" in parts
    assert "script-src 'self'" in parts


def test_templates_escape_and_miss_nothing_silently(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>{{ text | twice }}</p>")
    page = make_environment(tmp_path, {"twice": lambda text: text + text}).get_template("page.html")
    assert page.render(text="<b>") == "<p>&lt;b&gt;&lt;b&gt;</p>"
    with pytest.raises(UndefinedError):
        page.render()
