"""Coordinators with real processes, and nodes that are threads of one process (node_process): the memory that many sites ask for."""

import json
import sys
from pathlib import Path

from benchmarks.federation import flower, ours
from benchmarks.federation.launching import Launcher
from benchmarks.federation.plan import Cell
from gmmas_runtime.keys import AUTHORITY_CERTIFICATE, make_node_key
from server.deployment import enrol, online_nodes


def run(cell: Cell, folder: Path, launcher: Launcher) -> dict[str, float]:
    """Run the cell; returns payload bytes of the whole run by direction."""
    names = [f"site-{number}" for number in range(1, cell.sites + 1)]
    if cell.system == "flower-nodes":
        address = flower.start_superlink(folder, launcher)
        _start_nodes(cell, folder, launcher, address, folder / "trust" / AUTHORITY_CERTIFICATE, dict.fromkeys(names))
        return flower.run_rounds(cell, folder, address, launcher)
    coordinator = ours.start_coordinator(folder, launcher)
    keys: dict[str, str | None] = {}
    (folder / "keys").mkdir()
    for name in names:
        enrol(coordinator.path, make_node_key(folder / "keys" / name), name=name)
        keys[name] = str(folder / "keys" / name)
    _start_nodes(cell, folder, launcher, coordinator.config.local_address, coordinator.authority_certificate, keys)
    launcher.wait(lambda: len(online_nodes(coordinator.path)) == cell.sites, what="nodes online")
    return ours.run_rounds(cell, folder, coordinator, launcher)


def _start_nodes(cell: Cell, folder: Path, launcher: Launcher, address: str, certificate: Path, keys: dict[str, str | None]) -> None:
    settings = {"kind": cell.system, "address": address, "certificate": str(certificate), "nodes": keys}
    (folder / "nodes.json").write_text(json.dumps(settings))
    launcher.start("nodes", (sys.executable, "-m", "benchmarks.federation.node_process", folder / "nodes.json"), role="site")
