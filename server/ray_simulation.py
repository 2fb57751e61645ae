"""A federated run over simulated sites by Flower's own simulation runtime, whose workers are Ray actors (`gmmas simulate --engine ray`).

The ServerApp is the round loop of a deployment; the ClientApp finds its site by the partition that Flower gives it. Flower keeps every
message and every reply in the memory of this process until they are pulled, so memory grows with the number of sites that answer faster
than the coordinator folds in; server.simulation does not.

What is phoned home is switched off: Flower's telemetry by its environment variable, Ray's usage statistics by theirs.
"""

import logging
import os
from collections.abc import Callable, Mapping
from typing import Final

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from gmmas_runtime.flower import quiet_environment
from gmmas_schema.errors import ConfigError, FederationError
from gmmas_schema.events import Event
from server.app import run_in_folder
from server.checkpoint import RunFolder
from server.courier import Timing
from server.local_grid import Client
from server.records import RunResult, Tracker

PARTITION: Final = "partition-id"
OBJECT_STORE_BYTES: Final = 512 * 2**20
"""Ray's shared memory; a message is copied through it once each way."""
_RAY: Final = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "RAY_DEDUP_LOGS": "0"}


def simulate_with_ray(
    folder: RunFolder,
    sites: Mapping[str, Client],
    *,
    tracker: Tracker,
    processes: int = 1,
    on_event: Callable[[Event], None] | None = None,
) -> RunResult:
    """Run what is left of a federated run over sites of this machine, as server.simulation.simulate does, by Flower's runtime.

    Args:
        folder: the run's folder.
        sites: what answers for each site, by the name it gives itself; picklable.
        tracker: is told the rounds and the models.
        processes: Ray actors that answer at one time.
        on_event: is called with every event after it has been written, in a thread.

    Raises:
        ConfigError: Ray is not installed, or the run aggregates securely.
        GmmasError: the run failed or the folder is in use; it can be resumed.
    """
    if folder.config.secure is not None:
        raise ConfigError(
            "secure aggregation cannot be simulated by Ray",
            where="--engine ray",
            got="a federation with `secure`, whose sites keep secrets from phase to phase",
            expected="sites that live on in one process",
            remedy="use --engine local, or a deployment (`gmmas server`, `gmmas site`, `gmmas run`)",
        )
    os.environ.update(quiet_environment() | _RAY)
    try:
        import ray  # noqa: F401 - Flower ends the process where it is missing
        from flwr.simulation import run_simulation
    except ImportError as error:
        raise ConfigError(
            "Flower's simulation runtime is not installed",
            where="--engine ray",
            got=str(error),
            expected="the optional dependencies `simulation`",
            remedy="pip install 'gmmas-fed[simulation]', or use --engine local",
        ) from error
    logging.getLogger("flwr").setLevel(logging.ERROR)
    results: list[RunResult] = []
    server = ServerApp()

    @server.main()
    def main(grid: Grid, _: Context) -> None:
        timing = Timing(shortest_s=0.1, longest_s=0.5, deadlines=False)
        results.append(run_in_folder(grid, folder, tracker=tracker, on_event=on_event, timing=timing))

    run_simulation(
        server,
        make_client_app(tuple(sites.values())),
        num_supernodes=len(sites),
        backend_config={
            "init_args": {"num_cpus": processes, "num_gpus": 0, "object_store_memory": OBJECT_STORE_BYTES, "log_to_driver": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    if not results:
        raise FederationError(
            "Flower's simulation runtime ended before the run",
            where=folder.path,
            got="no result",
            expected="all rounds; those that are finished are safe",
            remedy="see its log above, and resume with --engine local",
        )
    return results[0]


def make_client_app(sites: tuple[Client, ...]) -> ClientApp:
    """Return the ClientApp in which each partition is one site."""
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        reply = sites[int(context.node_config[PARTITION])](message, context)
        assert reply is not None, "a simulated site always answers"
        return reply

    app.query()(answer)
    app.train()(answer)
    app.evaluate()(answer)
    return app
