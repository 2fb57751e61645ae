"""Layers of Flower's server where they have something to do, and nowhere else.

flwr 1.41 puts nine layers around every request of the SuperLink. Seven of them are for one of its APIs, look at the path and hand on what
is another's, and each is a Starlette BaseHTTPMiddleware, which costs a task group, tasks and streams of its own for every request. Here
such a layer is gone round by the requests that it would hand on:

    /v1/control/    four layers      /v1/runtime/    tracing      /v1/fleet/    authentication of nodes, event log

A layer that is not named here is left around everything. Paths are those of the ASGI scope, by which Starlette finds the route too, so
that none reaches a route without its layers. tests/server/test_layers.py holds this against Flower's own list.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from flwr.supercore.routers.runtime.tracing import RuntimeTracingMiddleware
from flwr.superlink.routers.control.middlewares import (
    ControlAuthenticationMiddleware,
    ControlEventLogMiddleware,
    ControlLicenseMiddleware,
    ControlSensitiveResponseMiddleware,
)
from flwr.superlink.routers.fleet.middlewares import FleetEventLogMiddleware
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

CONTROL_PATH: Final = "/v1/control/"
FLEET_PATH: Final = "/v1/fleet/"
RUNTIME_PATH: Final = "/v1/runtime/"
ONLY_UNDER: Final[Mapping[Any, str]] = {
    ControlSensitiveResponseMiddleware: CONTROL_PATH,
    ControlAuthenticationMiddleware: CONTROL_PATH,
    ControlLicenseMiddleware: CONTROL_PATH,
    ControlEventLogMiddleware: CONTROL_PATH,
    RuntimeTracingMiddleware: RUNTIME_PATH,
    NodeAuthMiddleware: FLEET_PATH,
    FleetEventLogMiddleware: FLEET_PATH,
}


class OnlyUnder:
    """ASGI middleware: a layer around the requests under a path.

    Args:
        app: what is behind the layer.
        layer: as Flower lists it.
        path: beginning of the paths that it is for.
    """

    def __init__(self, app: ASGIApp, *, layer: Middleware, path: str) -> None:
        self._app, self._path = app, path
        self._with_layer: ASGIApp = layer.cls(app, *layer.args, **layer.kwargs)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, through the layer or past it."""
        is_past = scope["type"] == "http" and not scope["path"].startswith(self._path)
        await (self._app if is_past else self._with_layer)(scope, receive, send)


def where_needed(layers: Sequence[Middleware]) -> list[Middleware]:
    """Return Flower's layers in their order, each around the requests that it is for."""
    return [Middleware(OnlyUnder, layer=layer, path=ONLY_UNDER[layer.cls]) if layer.cls in ONLY_UNDER else layer for layer in layers]
