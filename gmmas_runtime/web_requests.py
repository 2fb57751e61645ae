"""Whether a request may be looked at, before anybody asks what it wants: its size, where it comes from, the secret of its form.

A forged form from another page lacks the cookie (SameSite), has a foreign origin, and lacks the secret of the session's forms (OWASP,
"Cross-Site Request Forgery Prevention").
"""

import hmac
import re
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final
from urllib.parse import parse_qsl, urlsplit

from fastapi import Request, Response
from fastapi.routing import APIRoute

LARGEST_FORM_BYTES: Final = 256 * 1024
CSRF_FIELD, CSRF_HEADER = "csrf", "x-csrf-token"
UNSAFE_METHODS: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})

# Anybody may ask before a login: a pattern that can take a text in one way only is looked at once.
_OWN_PATH: Final = r"/(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]*"

Handle = Callable[[Request], Awaitable[Response]]


class GuardedRoute(APIRoute):
    """A route that the application's gate decides on (`app.state.gate.admit`); every router has a subclass that says for whom it is."""

    access: ClassVar[Any]

    def get_route_handler(self) -> Callable[[Request], Any]:
        """Return the handler with the gate in front."""
        handle, access = super().get_route_handler(), self.access

        async def guarded(request: Request) -> Response:
            response: Response = await request.app.state.gate.admit(request, access, handle)
            return response

        return guarded


async def form_of(request: Request) -> dict[str, str]:
    """Return the fields of a form; another kind of body has none."""
    if not request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return {}
    try:
        return dict(parse_qsl((await request.body()).decode(), keep_blank_values=True, max_num_fields=50))
    except ValueError:
        return {}


def fault_of(request: Request, *, largest_bytes: int = LARGEST_FORM_BYTES) -> tuple[int, str] | None:
    """Return status and reason for which a request is refused for its size or its origin, whoever sends it; None where it is not."""
    length = request.headers.get("content-length") or "0"
    # A body in pieces says nowhere how long it is, however its header is spelled.
    if not length.isdecimal() or int(length) > largest_bytes or "transfer-encoding" in request.headers:
        return 413, "the request is too large"
    if request.method in UNSAFE_METHODS and not _comes_from_here(request):
        return 403, "the request comes from another page"
    return None


def same_secret(given: str, expected: str) -> bool:
    """Compare two secrets in constant time."""
    return hmac.compare_digest(given.encode(), expected.encode())


def own_path(path: str) -> str:
    """Return where to go after a login: a path of this very site, else its beginning."""
    return path if re.fullmatch(_OWN_PATH, path) else "/"


def _comes_from_here(request: Request) -> bool:
    """Return whether a browser says that a page of this site sent the request; programs say nothing."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")
