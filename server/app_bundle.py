"""The Flower app that a run submits: a pyproject.toml with names and no code.

Flower ships a run's app to every node. Ours says only which objects to call, `server.app:app` and `client.app:app`; the coordinator and,
with Flower's own executor, a hospital import them from the software they have installed themselves. So no code travels, and the bundle
is the same for every run of a version.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Final

from gmmas_runtime.files import make_private_folder, write_atomic

RUN_DIR: Final = "run-dir"
"""Key of the run configuration: the absolute folder of the run."""

_PYPROJECT: Final = """\
[project]
name = "gmmas-fed"
version = "{version}"
description = "Names of the components of gmmas-fed; each machine runs its own installed code"
license = {{ text = "Apache-2.0" }}
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


def write_app_bundle(folder: Path) -> Path:
    """Write the app's folder, or bring it up to date; returns it."""
    make_private_folder(folder)
    write_atomic(folder / "README.md", b"The components of gmmas-fed by name. No code travels.\n", mode=0o644)
    text = _PYPROJECT.format(version=version("gmmas-fed"), run_dir=RUN_DIR)
    write_atomic(folder / "pyproject.toml", text.encode(), mode=0o644)
    return folder
