"""A TCP line between a node and its coordinator that a test can cut: bytes stand still, or connections break and no new one is taken."""

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LOOK_S = 0.1
CHUNK_BYTES = 65536


class Line:
    """Passes connections on from a port of its own.

    Args:
        target: where to, on 127.0.0.1.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._stalled, self._broken, self._closed = threading.Event(), threading.Event(), threading.Event()
        threading.Thread(target=self._accept, name="line", daemon=True).start()

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Let nothing through inside, as a firewall does that drops packets; what was sent arrives afterwards."""
        self._stalled.set()
        try:
            yield
        finally:
            self._stalled.clear()

    @contextmanager
    def broken(self) -> Iterator[None]:
        """Break every connection, and every new one, inside."""
        self._broken.set()
        try:
            yield
        finally:
            self._broken.clear()

    def close(self) -> None:
        """End the line and everything on it."""
        self._closed.set()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while not self._closed.is_set():
                near, _ = self._listener.accept()
                threading.Thread(target=self._pass_on, args=(near,), daemon=True).start()

    def _pass_on(self, near: socket.socket) -> None:
        with contextlib.suppress(OSError), near:
            if self._broken.is_set():
                return
            with socket.create_connection(("127.0.0.1", self._target), timeout=10) as far:
                other = {near: far, far: near}
                while not self._closed.is_set() and not self._broken.is_set():
                    if self._stalled.is_set():
                        self._closed.wait(LOOK_S)
                        continue
                    for end in select.select([near, far], [], [], LOOK_S)[0]:
                        data = end.recv(CHUNK_BYTES)
                        if not data:
                            return
                        other[end].sendall(data)
