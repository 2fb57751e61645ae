"""What every answer of our web pages has: headers that forbid whatever is not of this very address, and templates that escape everything.

The Content Security Policy (Level 3) keeps a foreign text that should ever end up in a page as markup from acting: no script, style,
picture or connection of another address, nothing inline.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final[Mapping[str, str]] = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}

_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    # `no-referrer` would make browsers hide the origin of our own forms as well.
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class SafeHeaders:
    """ASGI middleware, outermost: adds the headers to every answer; nothing but static files may be kept by browsers.

    Args:
        app: what answers.
        policy: directives that replace those of POLICY.
    """

    def __init__(self, app: ASGIApp, policy: Mapping[str, str] | None = None) -> None:
        self._app = app
        directives = "; ".join(f"{name} {value}" for name, value in {**POLICY, **(policy or {})}.items())
        self._headers = {"content-security-policy": directives, **_HEADERS}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            await self._app(scope, receive, partial(self._send_with_headers, send, scope))

    async def _send_with_headers(self, send: Send, scope: Scope, message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = "no-cache" if scope["path"].startswith("/static/") else "no-store"
            added = [(name.encode(), value.encode()) for name, value in (self._headers | {"cache-control": kept}).items()]
            message["headers"] = [*message.get("headers", ()), *added]
        await send(message)


def make_environment(folder: Path, filters: Mapping[str, Callable[..., Any]]) -> Environment:
    """Return the templates of a folder: everything is escaped, and a name that is not given is an error."""
    environment = Environment(
        loader=FileSystemLoader(folder), autoescape=select_autoescape(), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters)
    return environment
