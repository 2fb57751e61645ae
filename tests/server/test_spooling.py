"""Objects through the SuperLink's middleware: real sockets under uvicorn, and an application that counts what it holds."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.spooling import FLEET_PATH, OBJECT_PATHS, PIECE_BYTES, SpooledObjects
from tests.gmmas_runtime.waiting import wait_until
from tests.server.ports import free_port

PUSH = "/v1/fleet/push-object"
BODY = bytes(range(256)) * (3 * PIECE_BYTES // 256) + b"end"
LIMIT = 4 * PIECE_BYTES


class Echo:
    """Answers with what came, and knows how many requests it held at once."""

    def __init__(self) -> None:
        self.held, self.most = 0, 0
        self.app = Starlette(routes=[Route("/{path:path}", self.answer, methods=["POST"])])

    async def answer(self, request: Request) -> Response:
        self.held += 1
        self.most = max(self.most, self.held)
        body = await request.body()
        await asyncio.sleep(0.02)
        self.held -= 1
        return Response(body, status_code=201, headers={"x-length": str(len(body))})


@contextmanager
def serving(app: object) -> Iterator[str]:
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, ws="none"))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, what="the server")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def address(echo: Echo) -> Iterator[str]:
    with serving(SpooledObjects(echo.app, at_once=2, largest_body_bytes=LIMIT)) as address:
        yield address


@pytest.mark.parametrize("path", [*sorted(OBJECT_PATHS), "/v1/fleet/activate-node", "/v1/runtime/pull-object"])
@pytest.mark.parametrize("body", [b"", b"short", BODY])
def test_requests_and_answers_are_not_changed(address: str, path: str, body: bytes) -> None:
    answer = httpx.post(address + path, content=body)
    assert (answer.status_code, answer.content, answer.headers["x-length"]) == (201, body, str(len(body)))


def test_few_are_held_at_once_however_many_come(address: str, echo: Echo) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda n: httpx.post(address + PUSH, content=BODY + bytes([n])), range(12)))
    assert [answer.content[-1] for answer in answers] == list(range(12))
    assert echo.most == 2


def test_a_hospital_on_a_slow_line_holds_up_nobody(address: str, echo: Echo) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as one, socket.create_connection((host, int(port))) as two:
        for slow in (one, two):
            slow.sendall(f"POST {PUSH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf".encode())
        assert httpx.post(address + PUSH, content=BODY).content == BODY
        assert echo.most == 1


@pytest.mark.parametrize("path", [PUSH, FLEET_PATH + "push-messages"])
def test_a_body_without_end_is_refused_unread(address: str, echo: Echo, path: str) -> None:
    def pieces() -> Iterator[bytes]:
        while True:
            yield bytes(PIECE_BYTES)

    for content in (pieces(), bytes(2 * LIMIT)):
        with suppress(httpx.TransportError):  # the connection may be gone before the answer is read
            assert httpx.post(address + path, content=content).status_code == 413
    assert echo.most == 0
    assert httpx.post(address + path, content=BODY).status_code == 201, "and others are served"


def test_who_hangs_up_leaves_nothing_behind(address: str, echo: Echo) -> None:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as gone:
        gone.sendall(f"POST {PUSH} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf".encode())
    assert httpx.post(address + PUSH, content=BODY).content == BODY
    assert echo.most == 1
