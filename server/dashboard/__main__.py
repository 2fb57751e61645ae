"""`python -m server.dashboard FOLDER`: serve the dashboard of a coordinator until SIGTERM."""

import logging
import sys
from pathlib import Path
from types import FrameType
from typing import Final

import uvicorn
from fastapi import FastAPI

from server.dashboard.app import make_app
from server.folder import CoordinatorFolder

LOOPBACK: Final = "127.0.0.1"
GRACE_S: Final = 3


class DashboardServer(uvicorn.Server):
    """Ends the event streams, which would go on for ever, as soon as it is told to stop."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._closing = app.state.closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop."""
        self._closing.set()
        super().handle_exit(sig, frame)


def main(arguments: list[str]) -> None:
    """Serve the coordinator in the folder named first."""
    folder = CoordinatorFolder.open(Path(arguments[0]))
    assert folder.config.dashboard is not None, "coordinator.yaml asks for no dashboard"
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    app = make_app(folder, folder.config.dashboard)
    config = uvicorn.Config(
        app,
        host=LOOPBACK,
        port=folder.config.dashboard.port,
        forwarded_allow_ips=LOOPBACK,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        ws="none",
    )
    DashboardServer(app, config).run()


if __name__ == "__main__":
    main(sys.argv[1:])
