"""Who may speak to the SuperLink's administration. The second half is a contract with flwr 1.41's internals."""

import asyncio

import httpx
import pytest
from fastapi.routing import iter_route_contexts
from flwr.superlink import extensions
from flwr.superlink.main import create_app
from starlette.middleware import Middleware

from server.control_key import CONTROL_HEADER, control_key
from server.superlink import ClosedAdministration

REMOTE, LOCAL = ("203.0.113.7", 50000), ("127.0.0.1", 50000)
KEY = control_key(b"secret")


async def answer(client: tuple[str, int] | None, path: str, *, key: str | None = None) -> int:
    """Send a request from an address through the middleware; behind it everything answers 200."""
    sent = []

    async def inside(scope: object, receive: object, send: object) -> None:
        sent.append(200)

    async def send(message: object) -> None:
        if isinstance(message, dict) and "status" in message:
            sent.append(message["status"])

    async def receive() -> dict[str, object]:
        return {}

    headers = [] if key is None else [(CONTROL_HEADER.encode(), key.encode())]
    await ClosedAdministration(inside, key=KEY)({"type": "http", "path": path, "client": client, "headers": headers}, receive, send)
    (status,) = sent
    return int(status)


@pytest.mark.parametrize(
    "path", ["/v1/control/start-run", "/v1/control/register-node", "/v1/runtime/acquire-task", "/docs", "/openapi.json", "/"]
)
@pytest.mark.parametrize("client", [REMOTE, ("2001:db8::1", 1), ("not an address", 1), None])
def test_administration_is_closed_to_other_machines(path: str, client: tuple[str, int] | None) -> None:
    assert asyncio.run(answer(client, path)) == 403
    assert asyncio.run(answer(client, path, key=KEY)) == 403, "the key does not make another machine local"


@pytest.mark.parametrize("path", ["/v1/fleet/pull-messages", "/v1/fleet/activate-node", "/health"])
def test_nodes_and_health_are_served_to_everyone(path: str) -> None:
    assert asyncio.run(answer(REMOTE, path)) == 200


@pytest.mark.parametrize("path", ["/v1/fleet", "/v1/fleetless", "/health/x", "/healthy", "/v1/control/v1/fleet/", "//v1/fleet/"])
def test_similar_paths_are_not_public(path: str) -> None:
    assert asyncio.run(answer(REMOTE, path)) == 403


@pytest.mark.parametrize("path", ["/v1/control/start-run", "/v1/control/stream-logs", "/docs", "/openapi.json", "/"])
@pytest.mark.parametrize("client", [LOCAL, ("127.8.8.8", 1), ("::1", 1)])
def test_on_loopback_the_key_decides(client: tuple[str, int], path: str) -> None:
    assert asyncio.run(answer(client, path)) == 403
    assert asyncio.run(answer(client, path, key="")) == 403
    assert asyncio.run(answer(client, path, key=control_key(b"another"))) == 403
    assert asyncio.run(answer(client, path, key=KEY)) == 200


def test_flowers_own_processes_need_no_key_of_ours() -> None:
    assert asyncio.run(answer(LOCAL, "/v1/runtime/acquire-task")) == 200
    assert asyncio.run(answer(LOCAL, "/v1/runtimes/acquire-task")) == 403


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_flower_puts_the_middleware_in_front_of_its_own_routes(monkeypatch: pytest.MonkeyPatch) -> None:
    """With flwr's real application: an administrative request without the key never reaches Flower, one with it does."""
    monkeypatch.setattr(extensions, "get_middleware", lambda: (Middleware(ClosedAdministration, key=KEY),))
    app = create_app()

    async def post(client: tuple[str, int], path: str, *, key: str = "") -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=client, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://superlink", headers={CONTROL_HEADER: key}) as session:
            return await session.post(path)

    for refused in (post(REMOTE, "/v1/control/list-nodes", key=KEY), post(LOCAL, "/v1/control/list-nodes")):
        outside = asyncio.run(refused)
        assert (outside.status_code, outside.text) == (403, "administration is closed\n")
    assert "administration" not in asyncio.run(post(LOCAL, "/v1/control/list-nodes", key=KEY)).text
    assert "administration" not in asyncio.run(post(REMOTE, "/v1/fleet/pull-messages")).text


def test_every_route_of_flower_is_known_here() -> None:
    """A new public route in another flwr must be looked at before it is served to the world."""
    prefixes = {"/".join(context.path.split("/")[:3]) for context in iter_route_contexts(create_app().routes)}
    assert prefixes == {"/v1/control", "/v1/fleet", "/v1/runtime", "/health", "/docs", "/docs/oauth2-redirect", "/openapi.json"}
