"""Who may speak to the SuperLink's administration. The second half is a contract with flwr 1.41's internals."""

import asyncio

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from flwr.superlink import extensions
from flwr.superlink.main import create_app
from starlette.middleware import Middleware

from server.superlink import LoopbackAdministration

REMOTE, LOCAL = ("203.0.113.7", 50000), ("127.0.0.1", 50000)


async def answer(client: tuple[str, int] | None, path: str) -> int:
    """Send a request from an address through the middleware; behind it everything answers 200."""
    sent = []

    async def inside(scope: object, receive: object, send: object) -> None:
        sent.append(200)

    async def send(message: object) -> None:
        if isinstance(message, dict) and "status" in message:
            sent.append(message["status"])

    async def receive() -> dict[str, object]:
        return {}

    await LoopbackAdministration(inside)({"type": "http", "path": path, "client": client}, receive, send)
    (status,) = sent
    return int(status)


@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task", "/docs", "/openapi.json", "/"]
)
@pytest.mark.parametrize("client", [REMOTE, ("2001:db8::1", 1), ("not an address", 1), None])
def test_administration_is_closed_to_other_machines(path: str, client: tuple[str, int] | None) -> None:
    assert asyncio.run(answer(client, path)) == 403


@pytest.mark.parametrize("path", ["/v1/fleet/pull-messages", "/v1/fleet/activate-node", "/health"])
def test_nodes_and_health_are_served_to_everyone(path: str) -> None:
    assert asyncio.run(answer(REMOTE, path)) == 200


@pytest.mark.parametrize("path", ["/v1/fleet", "/v1/fleetless", "/health/x", "/healthy", "/v1/control/v1/fleet/", "//v1/fleet/"])
def test_similar_paths_are_not_public(path: str) -> None:
    assert asyncio.run(answer(REMOTE, path)) == 403


@pytest.mark.parametrize("client", [LOCAL, ("127.8.8.8", 1), ("::1", 1)])
def test_loopback_may_do_everything(client: tuple[str, int]) -> None:
    assert asyncio.run(answer(client, "/v1/control/start-run")) == 200


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_flower_puts_the_middleware_in_front_of_its_own_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With flwr's real application: an administrative request from outside never reaches Flower, one from loopback does."""
    monkeypatch.setattr(extensions, "get_middleware", lambda: (Middleware(LoopbackAdministration),))
    app = create_app()

    async def post(client: tuple[str, int], path: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=client, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://superlink") as session:
            return await session.post(path)

    outside = asyncio.run(post(REMOTE, "/v1/control/list-nodes"))
    assert (outside.status_code, outside.text) == (403, "administration is on loopback only\n")
    assert "administration" not in asyncio.run(post(LOCAL, "/v1/control/list-nodes")).text
    assert "administration" not in asyncio.run(post(REMOTE, "/v1/fleet/pull-messages")).text


def test_every_route_of_flower_is_known_here() -> None:
    """A new public route in another flwr must be looked at before it is served to the world."""
    prefixes = {"/".join(context.path.split("/")[:3]) for context in iter_route_contexts(create_app().routes)}
    assert prefixes == {"/v1/control", "/v1/fleet", "/v1/runtime", "/health", "/docs", "/docs/oauth2-redirect", "/openapi.json"}
