"""Flower's own HTTP applications, served over TLS on loopback in the test's process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from gmmas_runtime.keys import SERVER_CERTIFICATE, SERVER_KEY
from tests.gmmas_runtime.waiting import wait_until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serve_app(app: FastAPI, *, port: int, certificates: Path) -> Iterator[None]:
    """Serve until the context ends; `certificates` is a folder made by issue_server_certificate()."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_level="critical",
        log_config=None,  # uvicorn's own clears every handler of the process, and absl's closes standard error with its own
        ws="none",
        timeout_graceful_shutdown=1,
        ssl_certfile=str(certificates / SERVER_CERTIFICATE),
        ssl_keyfile=str(certificates / SERVER_KEY),
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started, what="the HTTP server")
        yield
    finally:
        server.should_exit = True
        thread.join(10)
