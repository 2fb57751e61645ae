"""The Flower app that a run submits: a pyproject.toml with names and no code.

Flower ships a run's app to every node. Ours says only which objects to call, `server.app:app` and `client.app:app`; the coordinator and,
with Flower's own executor, a hospital import them from the software they have installed themselves. So no code travels, and the bundle
is the same for every run of a version.
"""

import hashlib
from importlib.metadata import version
from typing import Final

from flwr.cli.build import build_fab_from_files
from flwr.supercore.fab import Fab

RUN_DIR: Final = "run-dir"
"""Key of the run configuration: the absolute folder of the run."""

_README: Final = "The components of gmmas-fed by name. Each machine runs the code it has installed; none travels.\n"
_PYPROJECT: Final = """\
[project]
name = "gmmas-fed"
version = "{version}"
description = "Names of the components of gmmas-fed"
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "gmmas"
fab-include = ["README.md"]

[tool.flwr.app.components]
serverapp = "server.app:app"
clientapp = "client.app:app"

[tool.flwr.app.config]
{run_dir} = ""
"""


def make_app_bundle() -> Fab:
    """Return the app as Flower wants it."""
    pyproject = _PYPROJECT.format(version=version("gmmas-fed"), run_dir=RUN_DIR)
    content, _ = build_fab_from_files({"pyproject.toml": pyproject.encode(), "README.md": _README.encode()})
    return Fab(hashlib.sha256(content).hexdigest(), content, {})
