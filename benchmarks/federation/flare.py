"""NVFlare's FedAvg in an environment of its own, which is made at the first use: its dependencies are not ours.

One array of the model's bytes travels, which is the cheapest form for it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.federation.launching import ROOT, Launcher
from benchmarks.federation.plan import Cell
from gmmas_schema.errors import FederationError
from server.initial_model import make_initial_model

VERSION: Final = "2.9.0"
ENVIRONMENT: Final = ROOT / "runs" / f"nvflare-{VERSION}"
ROLES: Final = {
    "server_train": "coordinator",
    "server.runner_process": "coordinator",
    "client_train": "site",
    "client.worker_process": "site",
    "simulator.simulator": "coordinator",
    "simulator_worker": "site",
    "job.py": "operator",
}
"""What NVFlare's processes are for, by the end of their names."""
POC_VARIABLE: Final = "NVFLARE_POC_WORKSPACE"


def make_environment() -> Path:
    """Return the interpreter of NVFlare's environment; makes it where it is missing (downloads from the package index).

    Raises:
        FederationError: pip failed.
    """
    python = ENVIRONMENT / "bin" / "python"
    done = ENVIRONMENT / "installed"
    if not done.exists():
        install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"nvflare=={VERSION}")
        for command in ((sys.executable, "-m", "venv", "--clear", ENVIRONMENT), install):
            ended = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
            if ended.returncode != 0:
                raise FederationError(
                    "NVFlare cannot be installed", where=ENVIRONMENT, got=ended.stderr[-500:], expected=f"nvflare {VERSION}"
                )
        done.touch()
    return python


def run(cell: Cell, folder: Path, launcher: Launcher) -> dict[str, float]:
    """Run the cell; returns payload bytes of the whole run by direction."""
    python = make_environment()
    flat = np.concatenate([value.ravel() for value in make_initial_model(cell.federation).values()])
    arrays = folder / "arrays.npy"
    np.save(arrays, flat)
    simulator = cell.system == "nvflare-simulator"
    settings = {
        "arrays": str(arrays),
        "sites": cell.sites,
        "rounds": cell.rounds,
        "simulator": simulator,
        "workspace": str(folder / "simulator"),
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    environment = {
        "HOME": str(folder),
        POC_VARIABLE: str(folder / "poc"),
        "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)]),
    }
    launcher.sampler.programs |= ROLES
    script = Path(__file__).parent / "nvflare_app" / "job.py"
    launcher.run("job", (python, script, folder / "settings.json"), role="system", environment=environment)
    size = float(flat.nbytes * cell.sites * cell.rounds)
    return {"payload_down": size, "payload_up": size}
