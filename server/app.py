"""The coordinator's Flower ServerApp: opens the run's folder and does what is left of the run.

Flower starts it in a process of its own with the run configuration key `run-dir`. It may be killed at any moment; started again on
the same folder, it goes on from the last finished round.
"""

import logging
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.superlink.grid.http_grid import HttpGrid

from gmmas_runtime.disk import told_of_disk
from gmmas_schema.errors import ConfigError, GmmasError, ReasonCode
from gmmas_schema.events import Event, EventKind
from server.checkpoint import RunFolder
from server.courier import Timing
from server.events import EventLog
from server.records import RunResult, Tracker
from server.rounds import run_federation
from server.validation_folder import ValidationFolder, open_work
from strategies.object_pulls import retry_soon
from strategies.torn_connections import make_patient

logger = logging.getLogger(__name__)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Do the federated run, or the validation, whose folder the run configuration names; any failure fails the Flower run."""
    # Not everything at INFO: the Grid's HTTP client writes a line for every look for replies.
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("server").setLevel(logging.INFO)
    retry_soon()
    if isinstance(grid, HttpGrid):
        make_patient(grid._retry_invoker)
    folder = open_run_folder(context)
    if isinstance(folder, ValidationFolder):
        from server.validation import publish_matrix, validate_in_folder

        validate_in_folder(grid, folder, publish=publish_matrix)
        return
    from server.tracking import MlflowTracker

    run_in_folder(grid, folder, tracker=MlflowTracker(folder.config.tracking, folder.path))


def open_run_folder(context: Context) -> RunFolder | ValidationFolder:
    """Return the folder that the run configuration names: of a run, or of a cross-site validation.

    Raises:
        ConfigError: no absolute path is given, or there is neither.
    """
    value = str(context.run_config.get("run-dir", ""))
    if not Path(value).is_absolute():
        raise ConfigError(
            "the run's folder is not named",
            where="run configuration key run-dir",
            got=value or "nothing",
            expected="an absolute path",
            remedy="start runs with `gmmas run`, which sets it",
        )
    return open_work(Path(value))


def run_in_folder(
    grid: Grid,
    folder: RunFolder,
    *,
    tracker: Tracker,
    on_event: Callable[[Event], None] | None = None,
    timing: Timing | None = None,
) -> RunResult:
    """Run what is left of a run while no other process works in its folder.

    Args:
        grid: the way to the nodes.
        folder: the run's folder.
        tracker: is told the rounds and the models.
        on_event: is called with every event after it has been written.
        timing: clock and polling.

    Raises:
        GmmasError: the run failed or the folder is in use; the event log says so too, and the run can be resumed.
    """
    with told_of_disk(folder.path), folder.hold():
        events = EventLog(folder.events_path, on_event=on_event)
        try:
            with told_of_disk(folder.path):
                return run_federation(grid, folder, tracker=tracker, events=events, timing=timing)
        except Exception as error:
            code = error.code if isinstance(error, GmmasError) else ReasonCode.INTERNAL
            message = str(error) if isinstance(error, GmmasError) else f"{type(error).__name__}: {error}"
            logger.exception("the run failed")
            # What ended the run matters more than a tracker, or a full disk, that cannot be told of it.
            with suppress(Exception):
                tracker.finish("FAILED")
            with suppress(Exception):
                events.emit(EventKind.RUN_FAILED, code=code, message=message)
            raise
        finally:
            with suppress(sqlite3.Error):
                events.close()
