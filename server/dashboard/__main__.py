"""`python -m server.dashboard FOLDER`: serve the dashboard of a coordinator until SIGTERM."""

import logging
import sys
from pathlib import Path
from typing import Final

import uvicorn

from server.dashboard.app import make_app
from server.folder import CoordinatorFolder

LOOPBACK: Final = "127.0.0.1"
GRACE_S: Final = 2
"""Event streams never end by themselves, so they are cut when the process is told to stop."""


def main(arguments: list[str]) -> None:
    """Serve the coordinator in the folder named first."""
    folder = CoordinatorFolder.open(Path(arguments[0]))
    assert folder.config.dashboard is not None, "coordinator.yaml asks for no dashboard"
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    uvicorn.run(
        make_app(folder, folder.config.dashboard),
        host=LOOPBACK,
        port=folder.config.dashboard.port,
        forwarded_allow_ips=LOOPBACK,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
        ws="none",
    )


if __name__ == "__main__":
    main(sys.argv[1:])
