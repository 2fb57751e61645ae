"""The resident trainer of a hospital node: `python -m client.trainer --config site.yaml`.

One process owns the scans, the caches and torch. It opens the cohort, then serves typed requests on a Unix socket of rights 0600
(client/trainer_service.proto) beside the standard gRPC health service, which says SERVING once the cohort is open.

Exit codes: 0 after SIGTERM or SIGINT; 78 (EX_CONFIG of sysexits.h) for a fault that a restart does not mend, explained in the log and
in trainer-fault.json; anything else is worth a restart.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from client.activity import Activity
from client.folder import NodeFolder
from client.trainer_channel import OPTIONS, SERVICE
from client.trainer_service_pb2_grpc import add_TrainerServicer_to_server
from gmmas_schema.errors import FederationError, GmmasError
from gmmas_schema.site import SiteConfig

logger = logging.getLogger(__name__)

EXIT_CONFIG: Final = os.EX_CONFIG
CALLS: Final = 32
"""Threads of the server: each task, each `status --follow` and each short call takes one."""
STOP_GRACE_S: Final = 5.0


def serve(config: SiteConfig, *, stop: threading.Event) -> None:
    """Open the cohort and serve it until `stop` is set.

    Raises:
        GmmasError: the cohort cannot be opened, or the socket cannot be made, or another trainer holds the folder.
    """
    # Here, not above: the processes that read scans import this file anew, and have no use for torch.
    from client.trainer_servicer import SiteTrainer

    folder = NodeFolder(config.node.state)
    with folder.held_by_trainer():
        activity = Activity(config.site, paused=folder.paused.exists())
        trainer = SiteTrainer(config, activity)
        # A cohort that cannot be opened ends the process.
        trainer.cohort.add_done_callback(lambda future: stop.set() if future.exception() else None)
        health = HealthServicer()
        server = grpc.server(ThreadPoolExecutor(max_workers=CALLS, thread_name_prefix="call"), options=OPTIONS)
        add_TrainerServicer_to_server(trainer, server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        for service in ("", SERVICE):
            health.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)
        _bind(server, folder.socket)
        server.start()
        logger.info("trainer of site %s listens on %s", config.site, folder.socket)
        trainer.cohort.add_done_callback(lambda future: None if future.exception() else _set_serving(health))
        try:
            stop.wait()
        finally:
            health.enter_graceful_shutdown()
            trainer.close()
            server.stop(STOP_GRACE_S).wait()
            folder.socket.unlink(missing_ok=True)
        if trainer.cohort.done() and not trainer.cohort.cancelled():
            trainer.cohort.result()


def _set_serving(health: HealthServicer) -> None:
    for service in ("", SERVICE):
        health.set(service, health_pb2.HealthCheckResponse.SERVING)
    logger.info("ready")


def _bind(server: grpc.Server, socket: Path) -> None:
    """Listen on a Unix socket that nobody but this user may open."""
    socket.unlink(missing_ok=True)
    umask = os.umask(0o177)  # the socket is made by gRPC: its rights must be right from the first moment
    try:
        server.add_insecure_port(f"unix:{socket}")
    except RuntimeError as error:
        raise FederationError(
            "the trainer's socket cannot be made", where=socket, got=str(error), expected="a folder this user may write to"
        ) from error
    finally:
        os.umask(umask)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the trainer until SIGTERM or SIGINT; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m client.trainer", description="Resident trainer of a gmmas-fed site.")
    parser.add_argument("--config", type=Path, required=True, help="site.yaml")
    path: Path = parser.parse_args(arguments).config
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    folder: NodeFolder | None = None
    try:
        config = SiteConfig.from_yaml(path)
        folder = NodeFolder(config.node.state)
        folder.make()
        folder.clear_fault()
        serve(config, stop=stop)
    except GmmasError as error:
        logger.error("the trainer cannot start: %s", error)
        if folder is not None:
            folder.write_fault(error)
        return EXIT_CONFIG
    return 0


if __name__ == "__main__":
    sys.exit(main())
