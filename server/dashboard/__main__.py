"""`python -m server.dashboard FOLDER`: serve the dashboard of a coordinator until SIGTERM."""

import logging
import sys
from pathlib import Path

from gmmas_runtime.web_server import serve_app
from server.dashboard.app import make_app
from server.folder import CoordinatorFolder


def main(arguments: list[str]) -> None:
    """Serve the coordinator in the folder named first."""
    folder = CoordinatorFolder.open(Path(arguments[0]))
    assert folder.config.dashboard is not None, "coordinator.yaml asks for no dashboard"
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    serve_app(make_app(folder, folder.config.dashboard), port=folder.config.dashboard.port)


if __name__ == "__main__":
    main(sys.argv[1:])
