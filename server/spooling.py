"""Many hospitals at once, memory for few: models on their way through the SuperLink wait on disk, not in memory.

Flower holds a request's whole body and a request's whole answer in memory, several times over, for as long as the slowest line needs. Here

    body -> file, as fast as the hospital sends -> AT_ONCE requests at a time: Flower -> file -> as fast as the hospital takes it

so that the SuperLink's memory does not grow with the hospitals that send or fetch at the same moment, and a slow line holds up nobody. A
body of more than LARGEST_BODY_BYTES is refused before it is read to its end: nobody has proved who they are at that point.
"""

import asyncio
from contextlib import nullcontext
from tempfile import SpooledTemporaryFile
from typing import IO, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.layers import FLEET_PATH

OBJECT_PATHS: Final = frozenset({f"{FLEET_PATH}push-object", f"{FLEET_PATH}pull-object"})
LARGEST_BODY_BYTES: Final = 32 * 2**20
"""Flower cuts arrays into objects of 5 MiB."""
AT_ONCE: Final = 2
PIECE_BYTES: Final = 256 * 2**10


class SpooledObjects:
    """ASGI middleware around whatever answers for objects.

    Args:
        app: what is behind it.
        at_once: requests for objects that it is given at the same time.
        largest_body_bytes: of any request of a node.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        at_once: int = AT_ONCE,
        largest_body_bytes: int = LARGEST_BODY_BYTES,
    ) -> None:
        self._app, self._largest_body_bytes = app, largest_body_bytes
        self._turns = asyncio.Semaphore(at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on once it has come whole and, where it is about an object, it is its turn."""
        if scope["type"] != "http" or not scope["path"].startswith(FLEET_PATH):
            await self._app(scope, receive, send)
            return
        with SpooledTemporaryFile(PIECE_BYTES) as body, SpooledTemporaryFile(PIECE_BYTES) as answer:
            more = _announced_bytes(scope) <= self._largest_body_bytes
            is_too_large = not more
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body.write(message.get("body", b""))
                is_too_large = body.tell() > self._largest_body_bytes
                more = message.get("more_body", False) and not is_too_large
            if is_too_large:
                await _refuse(send)
                return
            async with self._turns if scope["path"] in OBJECT_PATHS else nullcontext():
                start = await self._ask(scope, body, answer, receive)
            await send(start)
            await _send_file(answer, send)

    async def _ask(self, scope: Scope, body: IO[bytes], answer: IO[bytes], receive: Receive) -> Message:
        """Give the whole request to the application; returns the beginning of its answer, whose body goes to the file."""
        body.seek(0)
        pending: list[Message] = [{"type": "http.request", "body": body.read(), "more_body": False}]
        begun: list[Message] = []

        async def read() -> Message:
            return pending.pop() if pending else await receive()

        async def write(message: Message) -> None:
            if message["type"] == "http.response.start":
                begun.append(message)
            else:
                answer.write(message.get("body", b""))

        await self._app(scope, read, write)
        return begun[0]


def _announced_bytes(scope: Scope) -> int:
    """Return the length that a request announces, 0 if it does not."""
    told = dict(scope.get("headers", ())).get(b"content-length", b"0")
    return int(told) if told.isdigit() else 0


async def _refuse(send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": b"too large\n"})


async def _send_file(file: IO[bytes], send: Send) -> None:
    """Send a file piece by piece; each waits until the line has taken the one before."""
    file.seek(0)
    while piece := file.read(PIECE_BYTES):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
