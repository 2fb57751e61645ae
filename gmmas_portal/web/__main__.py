"""`python -m gmmas_portal.web FOLDER`: serve the platform until SIGTERM. `gmmas portal` runs it beside the worker."""

import logging
import sys
import tempfile
from pathlib import Path

from gmmas_portal.web.app import make_app
from gmmas_portal.web.settings import PortalFolder
from gmmas_runtime.web_server import serve_app


def main(arguments: list[str]) -> None:
    """Serve the platform in the folder named first."""
    folder = PortalFolder.open(Path(arguments[0]))
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    tempfile.tempdir = str(folder.incoming)  # parts of an upload wait on the disk that is meant for patients' data
    serve_app(make_app(folder), port=folder.config.port)


if __name__ == "__main__":
    main(sys.argv[1:])
