"""Flower as its documentation deploys it: flower-superlink, flower-supernode, `flwr run`, TLS, everything else as it comes.

State in memory, no node authentication, no secret, no checkpoint, no tracking: what this project adds beside is not charged to Flower.
"""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.federation.launching import Launcher
from benchmarks.federation.network import free_port
from benchmarks.federation.notes import require_replies
from benchmarks.federation.plan import Cell
from gmmas_runtime.flower import flower_environment, flower_program
from gmmas_runtime.keys import AUTHORITY_CERTIFICATE, SERVER_CERTIFICATE, SERVER_KEY, issue_server_certificate, make_authority
from gmmas_runtime.probe import is_healthy
from gmmas_schema.errors import FederationError
from server.initial_model import make_initial_model

APP = Path(__file__).parent / "flower_app"
END = "Finished task"


def run(cell: Cell, folder: Path, launcher: Launcher) -> dict[str, float]:
    """Run the cell; returns payload bytes of the whole run by direction."""
    address = start_superlink(folder, launcher)
    trust = ("--root-certificates", folder / "trust" / AUTHORITY_CERTIFICATE)
    for number in range(1, cell.sites + 1):
        environment = flower_environment(folder / f"site-{number}")
        launcher.start(
            f"site-{number}",
            (flower_program("flower-supernode"), "--superlink", address, *trust, "--port", str(free_port())),
            role="site",
            environment=environment,
        )
    return run_rounds(cell, folder, address, launcher)


def start_superlink(folder: Path, launcher: Launcher, *options: str) -> str:
    """Start a SuperLink; returns its address once it serves."""
    trust, port = folder / "trust", free_port()
    make_authority(trust, name="benchmark")
    issue_server_certificate(trust, trust, hosts=["127.0.0.1"])
    command: list[str | Path] = [flower_program("flower-superlink"), "--port", str(port), "--disable-runtime-dependency-installation"]
    command += ["--ssl-certfile", trust / SERVER_CERTIFICATE, "--ssl-keyfile", trust / SERVER_KEY]
    command += ["--ssl-ca-certfile", trust / AUTHORITY_CERTIFICATE, *options]
    launcher.start("coordinator", command, role="coordinator", environment=flower_environment(folder / "home"))
    address = f"127.0.0.1:{port}"
    launcher.wait(lambda: is_healthy(address, authority_certificate=trust / AUTHORITY_CERTIFICATE), what="SuperLink")
    return address


def run_rounds(cell: Cell, folder: Path, address: str, launcher: Launcher) -> dict[str, float]:
    """Submit the run and wait for its end.

    Raises:
        FederationError: the run failed, or FedAvg went on without a site.
    """
    tensors: dict[str, Any] = make_initial_model(cell.federation)
    np.savez(folder / "arrays.npz", **tensors)
    home = folder / "operator"
    home.mkdir()
    certificate = folder / "trust" / AUTHORITY_CERTIFICATE
    (home / "config.toml").write_text(
        f'[superlink]\ndefault = "bench"\n[superlink.bench]\naddress = "{address}"\nroot-certificates = "{certificate}"\n'
    )
    evaluates = cell.system != "flower-train-only"
    settings = f'sites={cell.sites} rounds={cell.rounds} evaluate={float(evaluates)} arrays="{folder / "arrays.npz"}"'
    command = (flower_program("flwr"), "run", APP, "bench", "--run-config", settings)
    launcher.run("submit", command, role="operator", environment=flower_environment(home))
    log = folder / "logs" / "coordinator.log"
    launcher.wait(lambda: _has_ended(log), what="end of the run")
    kinds = ("train", "evaluate") if evaluates else ("train",)
    require_replies(folder / "replies.jsonl", sites=cell.sites, rounds=cell.rounds, kinds=kinds)
    size = float(sum(value.nbytes for value in tensors.values()) * cell.sites * cell.rounds)
    return {"payload_down": size * (1 + evaluates), "payload_up": size}


def _has_ended(log: Path) -> bool:
    text = log.read_text(errors="replace")
    if "Traceback" in text:
        raise FederationError("the run failed", where=log, got=text[-2000:], expected="a finished run")
    return END in text
