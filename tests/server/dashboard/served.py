"""The dashboard behind a real server, in a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from tests.gmmas_runtime.waiting import wait_until


@contextmanager
def serve(app: FastAPI, port: int) -> Iterator[str]:
    """Serve an application on loopback and give its address."""
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", ws="none", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="dashboard")
    thread.start()
    try:
        wait_until(lambda: server.started, what="the server")
        yield f"http://127.0.0.1:{port}"
    finally:
        app.state.closing.set()
        server.should_exit = True
        thread.join(timeout=20)
        assert not thread.is_alive()
