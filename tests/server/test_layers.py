"""Flower's layers, gone round where they do nothing. A contract with flwr 1.41's internals, on its real application."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from flwr.proto.control_pb2 import ListFederationsRequest, StartRunRequest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.proto.message_pb2 import PullObjectRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, GetNodesRequest
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from flwr.superlink import main
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from server.layers import CONTROL_PATH, FLEET_PATH, ONLY_UNDER, RUNTIME_PATH, OnlyUnder, where_needed

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:No path_separator found"),  # Flower's own Alembic set-up
]

REQUESTS = {
    f"{CONTROL_PATH}list-federations": ListFederationsRequest(),
    f"{CONTROL_PATH}start-run": StartRunRequest(),
    f"{CONTROL_PATH}get-auth-tokens": ListFederationsRequest(),
    f"{FLEET_PATH}pull-messages": PullMessagesRequest(),
    f"{FLEET_PATH}activate-node": ActivateNodeRequest(public_key=b"nobody"),
    f"{FLEET_PATH}pull-object": PullObjectRequest(object_id="0" * 64),
    f"{RUNTIME_PATH}acquire-task": AcquireTaskRequest(),
    f"{RUNTIME_PATH}get-nodes": GetNodesRequest(),
}


@pytest.fixture(scope="module")
def apps() -> Iterator[tuple[FastAPI, FastAPI]]:
    """Flower's SuperLink as it comes, and as it is run here."""
    layers = main._get_middleware
    before = main.create_app()
    main._get_middleware = lambda: where_needed(layers())
    try:
        yield before, main.create_app()
    finally:
        main._get_middleware = layers


def post(app: FastAPI, path: str, content: bytes, *, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict[str, str]]:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=("127.0.0.1", 50000), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://superlink") as session:
            return await session.post(path, content=content, headers={"content-type": PROTOBUF_MEDIA_TYPE, **(headers or {})})

    answer = asyncio.run(ask())
    return answer.status_code, answer.content, dict(answer.headers)


def test_these_are_the_layers_of_flower() -> None:
    """A layer that another flwr adds, or puts elsewhere, must be looked at; until then it is around everything."""
    assert [layer.cls.__name__ for layer in main._get_middleware()] == [
        "ControlSensitiveResponseMiddleware",
        "BaseHTTPMiddleware",
        "ControlAuthenticationMiddleware",
        "ControlLicenseMiddleware",
        "ProtobufTranslationMiddleware",
        "RuntimeTracingMiddleware",
        "ControlEventLogMiddleware",
        "NodeAuthMiddleware",
        "FleetEventLogMiddleware",
    ]
    assert set(ONLY_UNDER) < {layer.cls for layer in main._get_middleware()}


@pytest.mark.parametrize(
    "path", [*REQUESTS, "/health/live", "/v1/fleet", "/v1/fleet/nothing", "/v1/control//list-federations", "/%761/fleet/pull-object"]
)
def test_every_answer_is_flowers(apps: tuple[FastAPI, FastAPI], path: str) -> None:
    content = REQUESTS[path].SerializeToString() if path in REQUESTS else b""
    before, after = (post(app, path, content) for app in apps)
    assert after == before


@pytest.mark.parametrize("path", [path for path in REQUESTS if path.startswith(FLEET_PATH)])
@pytest.mark.parametrize("headers", [{}, {"host": "superlink/x"}, {"host": "superlink/v1/control"}])
def test_who_is_not_enrolled_is_refused(apps: tuple[FastAPI, FastAPI], path: str, headers: dict[str, str]) -> None:
    """A Host header with a path in it must not lead past the authentication of nodes."""
    for spelling in (path, path.replace("/v1", "/%76%31")):
        before, after = (post(app, spelling, REQUESTS[path].SerializeToString(), headers=headers) for app in apps)
        assert after == before
        assert after[0] == 401


class Named:
    """A layer that says that a request went through it."""

    def __init__(self, app: ASGIApp | None, *, name: str, seen: list[str]) -> None:
        self._app, self._name, self._seen = app, name, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._seen.append(self._name)
        if self._app is not None:
            await self._app(scope, receive, send)


@pytest.mark.parametrize(
    ("scope", "through"),
    [
        ({"type": "http", "path": "/v1/fleet/pull-object"}, ["layer"]),
        ({"type": "http", "path": "/v1/fleet/"}, ["layer"]),
        ({"type": "http", "path": "/v1/fleet"}, []),
        ({"type": "http", "path": "/v1/runtime/v1/fleet/"}, []),
        ({"type": "lifespan"}, ["layer"]),
    ],
)
def test_a_layer_is_around_its_path_only(scope: Scope, through: list[str]) -> None:
    seen: list[str] = []
    layer = Middleware(Named, name="layer", seen=seen)
    app = OnlyUnder(Named(None, name="app", seen=seen), layer=layer, path=FLEET_PATH)
    asyncio.run(app(scope, None, None))  # type: ignore[arg-type]
    assert seen == [*through, "app"]
