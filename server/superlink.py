"""flower-superlink whose administration is closed: `python -m server.superlink OPTIONS OF flower-superlink`.

Out of the box, Flower's Control API (start a run, enrol a node, read logs) and its Runtime API share the port that hospitals connect to,
and whoever reaches that port may use the Control API. Here, before Flower sees a request:

    /v1/fleet/, /health    pass: a node proves itself by its enrolled key
    /v1/runtime/           from loopback only: Flower's own executor and run processes, each with a secret
    everything else        from loopback only, and with a key in the header CONTROL_HEADER

What passes and carries models is kept on disk while the line is slow (server.spooling), and meets only those of Flower's layers that are
for it (server.layers).

The key (server.control_key) is known to whoever may read the coordinator's folder. So other users of this machine, and requests that a
misconfigured reverse proxy lets through as if they were local, administer nothing.
"""

import gc
import hmac
import ipaddress
import sys
from pathlib import Path
from typing import Any, Final

from flwr.superlink import extensions
from flwr.superlink import main as superlink_main
from flwr.superlink.cli import flower_superlink
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from server.control_key import CONTROL_HEADER, control_key
from server.layers import FLEET_PATH, RUNTIME_PATH, where_needed
from server.spooling import SpooledObjects

PUBLIC_PATHS: Final = (FLEET_PATH, "/health")
SECRET_OPTION: Final = "--superexec-auth-secret-file"  # noqa: S105 - its name


class ClosedAdministration:
    """ASGI middleware, outermost: decides who reaches what.

    Args:
        app: what is behind it.
        key: of the administration, hexadecimal (server.control_key).
    """

    def __init__(self, app: ASGIApp, *, key: str) -> None:
        self._app, self._key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        if scope["type"] == "lifespan" or (scope["type"] == "http" and self._may_pass(scope)):
            await self._app(scope, receive, send)
            return
        assert scope["type"] == "http", "Flower's server has no websockets"
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"administration is closed\n"})

    def _may_pass(self, scope: Scope) -> bool:
        if _is_public(scope["path"]):
            return True
        if not _is_local(scope.get("client")):
            return False
        given = dict(scope.get("headers", ())).get(CONTROL_HEADER.encode(), b"")
        return scope["path"].startswith(RUNTIME_PATH) or hmac.compare_digest(given, self._key)


def _is_public(path: str) -> bool:
    return any(path == public or (public.endswith("/") and path.startswith(public)) for public in PUBLIC_PATHS)


def _is_local(client: tuple[str, int] | None) -> bool:
    try:
        return client is not None and ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


def main() -> None:
    """Run flower-superlink with the middleware in front of everything."""
    flower: Any = superlink_main
    before, layers = extensions.get_middleware, flower._get_middleware
    key = control_key(Path(sys.argv[sys.argv.index(SECRET_OPTION) + 1]).read_bytes())
    extensions.get_middleware = lambda: (Middleware(ClosedAdministration, key=key), Middleware(SpooledObjects), *before())
    flower._get_middleware = lambda: where_needed(layers())
    gc.freeze()  # what has been imported stays: the collector need not look through it again and again
    flower_superlink()


if __name__ == "__main__":
    main()
