"""This project's deployment on loopback, by the commands that a real one uses."""

import sys
from pathlib import Path

from benchmarks.federation.launching import Launcher
from benchmarks.federation.network import free_port
from benchmarks.federation.plan import Cell
from gmmas_cli.site_setup import SiteAnswers, write_site
from gmmas_runtime.process_state import live_state
from gmmas_schema.errors import FederationError
from gmmas_schema.events import EventKind
from gmmas_schema.vocabulary import MODALITIES
from server.checkpoint import RunFolder
from server.deployment import enrol, init_coordinator, online_nodes, prepare_run, submit_run
from server.events import read_events
from server.folder import CoordinatorFolder

GMMAS = (sys.executable, "-m", "gmmas_cli.main")
ENDS = (EventKind.RUN_FINISHED, EventKind.RUN_FAILED)


def run(cell: Cell, folder: Path, launcher: Launcher) -> dict[str, float]:
    """Run the cell; returns payload bytes of the whole run by direction, from the ledger."""
    coordinator = start_coordinator(folder, launcher)
    names = [f"site-{number}" for number in range(1, cell.sites + 1)]
    for name in names:
        key = _write_site(folder / name, name, coordinator)
        enrol(coordinator.path, key, name=name)
        launcher.start(
            name, (sys.executable, "-m", "benchmarks.federation.site_node", "site", "start", "-c", folder / name / "site.yaml"), role="site"
        )
    launcher.wait(lambda: len(online_nodes(coordinator.path)) == cell.sites, what="nodes online")
    return run_rounds(cell, folder, coordinator, launcher)


def start_coordinator(folder: Path, launcher: Launcher) -> CoordinatorFolder:
    """Make and start a coordinator; returns once it serves."""
    coordinator = init_coordinator(folder / "coordinator", port=free_port(), name="bench")
    launcher.start("coordinator", (*GMMAS, "server", "up", coordinator.path), role="coordinator")

    def is_ready() -> bool:
        state = live_state(coordinator.state_file)
        return state is not None and state.ready

    launcher.wait(is_ready, what="coordinator")
    return coordinator


def run_rounds(cell: Cell, folder: Path, coordinator: CoordinatorFolder, launcher: Launcher) -> dict[str, float]:
    """Submit the run and wait for its end; returns payload bytes by direction, from the records of the rounds.

    Raises:
        FederationError: the run failed, as it does where one reply of one round is missing (plan.Cell.federation).
    """
    prepare_run(folder / "run", cell.federation)
    opened = RunFolder.open(folder / "run")
    submit_run(coordinator.path, opened.path)
    launcher.wait(lambda: any(event.kind in ENDS for event in read_events(opened.events_path)), what="end of the run")
    if opened.read_result() is None:
        raise FederationError(
            "the run failed", where=opened.path, got=read_events(opened.events_path)[-1].message, expected="a finished run"
        )
    records = opened.read_records()
    stages: dict[str, float] = {}
    for record in records:
        for site in record.sites:
            stages["round_trip_s"] = stages.get("round_trip_s", 0.0) + site.round_trip_s / len(record.sites) / len(records)
    return {
        "payload_down": float(sum(record.bytes_down for record in records)),
        "payload_up": float(sum(record.bytes_up for record in records)),
        **stages,
    }


def _write_site(folder: Path, name: str, coordinator: CoordinatorFolder) -> Path:
    """Set up a site without cases; returns the public key."""
    (folder / "scans").mkdir(parents=True)
    answers = SiteAnswers(
        site=name,
        data=folder / "scans",
        labels=None,
        modalities=tuple(MODALITIES),
        coordinator=coordinator.config.local_address,
        root_certificate=coordinator.authority_certificate,
        runtime_port=free_port(),
        threads=1,
    )
    return write_site(folder, answers).public_key
