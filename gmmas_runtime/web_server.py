"""Serving an application on 127.0.0.1 until SIGTERM. Whoever needs it from elsewhere puts a reverse proxy or a tunnel in front."""

from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

LOOPBACK: Final = "127.0.0.1"
_GRACE_S: Final = 3


class ClosingServer(uvicorn.Server):
    """Ends the event streams (`app.state.closing`), which would go on for ever, as soon as it is told to stop."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._closing = app.state.closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop."""
        self._closing.set()
        super().handle_exit(sig, frame)


def serve_app(app: FastAPI, *, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    config = uvicorn.Config(
        app,
        host=LOOPBACK,
        port=port,
        forwarded_allow_ips=LOOPBACK,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        ws="none",
    )
    ClosingServer(app, config).run()
