"""The environment every Flower process of ours runs in: its own home, no telemetry, no update check, no proxy to loopback."""

import os
import sys
from pathlib import Path

LOOPBACK = ("127.0.0.1", "localhost")
QUIET = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""Nothing of ours, Flower's or MLflow's calls home."""


def quiet_environment() -> dict[str, str]:
    """Return the variables every process of ours runs with: nothing calls home, and no proxy sees the traffic inside one machine."""
    inherited = [entry for entry in os.environ.get("NO_PROXY", os.environ.get("no_proxy", "")).split(",") if entry]
    direct = ",".join(dict.fromkeys([*inherited, *LOOPBACK]))
    return {**QUIET, "NO_PROXY": direct, "no_proxy": direct}


def flower_environment(home: Path) -> dict[str, str]:
    """Return the variables to set on top of the inherited environment.

    Args:
        home: folder for Flower's configuration and installed bundles; must be absolute, because processes run in other folders.
    """
    assert home.is_absolute(), f"FLWR_HOME must be absolute, got {home}"
    programs = str(Path(sys.executable).parent)
    return {
        **quiet_environment(),
        "FLWR_HOME": str(home),
        # Flower starts its own programs by bare name: they must be those of this environment.
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", os.defpath)]),
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
        # Without it, what one of many threads has freed stays with that thread: a server's memory grows with its clients.
        "MALLOC_ARENA_MAX": "2",
    }


def flower_program(name: str) -> str:
    """Return the path of one of Flower's programs (`flower-superlink`, `flwr`, ...) in this interpreter's environment."""
    return str(Path(sys.executable).parent / name)
