"""flower-superlink whose administration answers on loopback only: `python -m server.superlink OPTIONS OF flower-superlink`.

Out of the box, Flower's Control API (start a run, enrol a node) and its Runtime API share the port that hospitals connect to, and whoever
reaches that port may use them. Here a request from another machine reaches the Fleet API, where a node proves itself by its enrolled
key, and the health check; everything else answers 403 before Flower sees it.

A reverse proxy on this machine would make every request look local: let it pass `/v1/fleet/` and `/health` only.
"""

import ipaddress
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from flwr.superlink import extensions
from flwr.superlink.cli import flower_superlink
from starlette.middleware import Middleware

PUBLIC_PATHS: Final = ("/v1/fleet/", "/health")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class LoopbackAdministration:
    """ASGI middleware, outermost: refuses requests from other machines except those to PUBLIC_PATHS."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 403."""
        if scope["type"] == "lifespan" or _is_local(scope.get("client")) or (scope["type"] == "http" and _is_public(scope["path"])):
            await self._app(scope, receive, send)
            return
        assert scope["type"] == "http", "Flower's server has no websockets"
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"administration is on loopback only\n"})


def _is_public(path: str) -> bool:
    return any(path == public or (public.endswith("/") and path.startswith(public)) for public in PUBLIC_PATHS)


def _is_local(client: tuple[str, int] | None) -> bool:
    try:
        return client is not None and ipaddress.ip_address(client[0]).is_loopback
    except ValueError:
        return False


def main() -> None:
    """Run flower-superlink with the middleware in front of everything."""
    before = extensions.get_middleware
    extensions.get_middleware = lambda: (Middleware(LoopbackAdministration), *before())
    flower_superlink()


if __name__ == "__main__":
    main()
