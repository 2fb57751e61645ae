"""A whole federated run on this machine: the true round loop, codec, checks, checkpoints, events and tracking over functions as sites.

Only sockets, keys and supervision are missing. The run's folder is an ordinary one, so a simulation can be killed, resumed, shown by
`gmmas status` and compared in MLflow like any other run.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal

from gmmas_schema.events import Event
from server.app import run_in_folder
from server.checkpoint import RunFolder
from server.courier import Timing
from server.local_grid import Client, LocalGrid
from server.records import RoundRecord, RunResult, Tracker
from server.worker_grid import WorkerGrid

FIRST_NODE: Final = 100
"""Flower node of the first site; the coordinator is 1."""


def simulate(
    folder: RunFolder,
    sites: Mapping[str, Client],
    *,
    tracker: Tracker,
    keys: Mapping[str, bytes] = MappingProxyType({}),
    processes: int = 1,
    on_event: Callable[[Event], None] | None = None,
) -> RunResult:
    """Run what is left of a federated run over sites of this machine.

    Args:
        folder: the run's folder.
        sites: what answers for each site, by the name it gives itself. Picklable where `processes` is above 1.
        tracker: is told the rounds and the models.
        keys: public keys (PEM) that the sites are enrolled with; secure aggregation needs them.
        processes: worker processes that answer for the sites; 1 answers in this process, one site after the other. So does a run with
            secure aggregation, whatever is asked for: its sites' secrets live from phase to phase, in one process.
        on_event: is called with every event after it has been written.

    Returns:
        The run's result: the same, bit for bit, whatever the number of processes.

    Raises:
        GmmasError: the run failed or the folder is in use; it can be resumed.
    """
    nodes = dict(enumerate(sites.values(), start=FIRST_NODE))
    names = dict(enumerate(sites, start=FIRST_NODE))
    enrolled = {node: keys[site] for node, site in names.items() if site in keys}
    # A simulated site is never late: it waits for a core of this machine, not for its hospital.
    if processes <= 1 or folder.config.secure is not None:
        grid_here = LocalGrid(nodes, names=names, keys=enrolled)
        return run_in_folder(grid_here, folder, tracker=tracker, on_event=on_event, timing=Timing(deadlines=False))
    with WorkerGrid(nodes, names=names, processes=processes) as grid:
        return run_in_folder(grid, folder, tracker=tracker, on_event=on_event, timing=Timing(sleep=grid.sleep, deadlines=False))


class NoTracker:
    """A tracker that keeps nothing: the run's folder holds all that is needed."""

    def start(self, resolved: Mapping[str, Any]) -> None:
        """Take the configuration."""

    def log_round(self, record: RoundRecord) -> None:
        """Take a round."""

    def register(self, kind: Literal["best", "last"], weights_folder: Any, *, round: int, metrics: Mapping[str, float]) -> str:  # noqa: A002, ARG002
        """Take a model; its name is its folder's."""
        return str(weights_folder.name)

    def log_result(self, result: RunResult) -> None:
        """Take the result."""

    def finish(self, status: str) -> None:
        """Take the end."""
