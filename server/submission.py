"""Handing a run to Flower and asking after it; the rounds themselves are server.rounds.

RUN_DIR/federation.json    resolved configuration (server.checkpoint)
RUN_DIR/submission.json    number of the Flower run that works on it, and which coordinator
"""

import time
from pathlib import Path
from typing import Final

import pydantic
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest, StopRunRequest, StreamLogsRequest
from flwr.supercore.error import ApiErrorCode

from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel, differing_keys
from gmmas_schema.errors import ConfigError, FederationError
from gmmas_schema.federation import FederationConfig
from gmmas_workflows.run_identity import is_held
from server.app_bundle import RUN_DIR, make_app_bundle
from server.checkpoint import RunFolder, note_encryption
from server.control import RefusalError, open_control
from server.events import EVENTS_FILE, read_events
from server.folder import CoordinatorFolder
from server.run_register import note_run, note_validation
from server.validation_folder import open_work

FINISHED: Final = "finished"
MOST_DIFFERENCES_SHOWN: Final = 8
START_UP_S: Final = 30.0
"""A run's process may take so long until it holds the run's folder."""


class Submission(FrozenModel):
    """Contents of submission.json.

    Attributes:
        submitted: seconds since 1970-01-01 UTC.
        events_before: how many events of the run were there already; clocks may be set, so times do not tell old events from new ones.
    """

    flower_run: str
    coordinator: Path
    submitted: float
    events_before: int = 0


class RunState(FrozenModel):
    """A Flower run: `status` is pending, starting, running, finished:completed, finished:failed or finished:stopped."""

    flower_run: str
    status: str
    details: str = ""

    @property
    def ended(self) -> bool:
        """Nothing works on the run any more."""
        return self.status.startswith(FINISHED)


def prepare_run(run_dir: Path, config: FederationConfig, *, resume: bool = False) -> RunFolder:
    """Make the folder of a new run, or open that of an unfinished one.

    Args:
        run_dir: the run's folder; a new run wants none or an empty one.
        config: resolved configuration.
        resume: go on with the run in `run_dir`, whose configuration must be the same.

    Raises:
        ConfigError: the folder is in use, holds no run to resume, holds one of another configuration, or one that is finished.
    """
    run_dir = run_dir.resolve()
    if not resume:
        if run_dir.exists() and (not run_dir.is_dir() or any(run_dir.iterdir())):
            holds_run = (run_dir / "federation.json").exists()
            raise ConfigError(
                "the run's folder is not empty",
                where=run_dir,
                got="a federated run" if holds_run else "files of something else",
                expected="no folder, or an empty one",
                remedy="go on with that run by `--resume`, or name another folder" if holds_run else "name another folder",
            )
        return RunFolder.create(run_dir, config)
    folder = RunFolder.open(run_dir)
    differences = differing_keys(folder.config.model_dump(mode="json"), config.model_dump(mode="json"))
    if differences:
        shown = differences[:MOST_DIFFERENCES_SHOWN]
        raise ConfigError(
            "a run can only be resumed with the configuration it began with",
            where=run_dir / "federation.json",
            got="; ".join(shown) + (f"; and {len(differences) - len(shown)} more" if len(differences) > len(shown) else ""),
            expected="no difference",
            remedy="undo these changes to resume, or start a new run in another folder",
        )
    if folder.read_result() is not None:
        raise ConfigError(
            "this run is finished",
            where=run_dir,
            got=f"{config.rounds} of {config.rounds} rounds",
            expected="an unfinished run",
            remedy="start a new run in another folder",
        )
    return folder


def submit_run(folder: Path, run_dir: Path) -> str:
    """Hand a prepared run, or a validation, to the coordinator's SuperLink; returns the number of the Flower run.

    Raises:
        ConfigError: `run_dir` holds neither.
        FederationError: the SuperLink does not answer, refuses, or still works on this run.
    """
    opened, run_dir = CoordinatorFolder.open(folder), run_dir.resolve()
    work = open_work(run_dir)
    _settle_earlier(opened, run_dir)
    if isinstance(work, RunFolder):
        note_encryption(run_dir, opened.config.encryption)
    events_before = len(read_events(run_dir / EVENTS_FILE))
    request = StartRunRequest(fab=fab_to_proto(make_app_bundle()), override_config=user_config_to_proto({RUN_DIR: str(run_dir)}))
    with open_control(opened, purpose="start the run", record=f"start the run in {run_dir}") as control:
        answer = control.StartRun(request)
    submission = Submission(flower_run=str(answer.run_id), coordinator=opened.path, submitted=time.time(), events_before=events_before)
    write_atomic(run_dir / "submission.json", submission.model_dump_json(indent=1).encode() + b"\n")
    (note_run if isinstance(work, RunFolder) else note_validation)(opened, run_dir)
    return submission.flower_run


def _settle_earlier(opened: CoordinatorFolder, run_dir: Path) -> None:
    """Refuse a run that something works on; a Flower run whose process has died is closed, which Flower itself takes a minute to do."""
    earlier = read_submission(run_dir)
    state = find_run_state(opened.path, earlier.flower_run) if earlier is not None and earlier.coordinator == opened.path else None
    if earlier is None or state is None or state.ended:
        return
    has_begun = len(read_events(run_dir / EVENTS_FILE)) > earlier.events_before
    if is_at_work(run_dir) or (not has_begun and time.time() - earlier.submitted < START_UP_S):
        raise FederationError(
            "the coordinator is still at work on this run",
            where=run_dir,
            got=f"Flower run {state.flower_run}, {state.status}",
            expected="a run that has stopped",
            remedy=f"watch it with `gmmas status {run_dir} --follow`, or stop it with `gmmas server stop-run {run_dir}`",
        )
    stop_run(opened.path, earlier.flower_run)


def is_at_work(run_dir: Path) -> bool:
    """Return whether a process works in the run's folder now."""
    return is_held(open_work(run_dir).path)


def read_submission(run_dir: Path) -> Submission | None:
    """Return which Flower run works or worked on a folder last; None if it was never submitted."""
    try:
        return Submission.model_validate_json((run_dir / "submission.json").read_bytes())
    except (OSError, pydantic.ValidationError):
        return None


def run_state(folder: Path, flower_run: str) -> RunState:
    """Return the state of a Flower run.

    Raises:
        FederationError: the SuperLink does not answer or does not know the run.
    """
    with open_control(CoordinatorFolder.open(folder), purpose="tell the state of a run") as control:
        answer = control.ListRuns(ListRunsRequest(run_id=int(flower_run)))
    status = answer.run_dict[int(flower_run)].status
    return RunState(flower_run=flower_run, status=":".join(filter(None, [status.status, status.sub_status])), details=status.details)


def find_run_state(folder: Path, flower_run: str) -> RunState | None:
    """Return the state of a Flower run, or None if this SuperLink does not know it."""
    try:
        return run_state(folder, flower_run)
    except RefusalError as refusal:
        if refusal.reason is ApiErrorCode.RUN_ID_NOT_FOUND:
            return None
        raise


def run_log(folder: Path, flower_run: str) -> str:
    """Return what the run's process has printed, as far as Flower kept it; empty if there is nothing."""
    with open_control(CoordinatorFolder.open(folder), purpose="give the log of a run") as control:
        return next((part.log_output for part in control.StreamLogs(StreamLogsRequest(run_id=int(flower_run)))), "")


def stop_run(folder: Path, flower_run: str) -> None:
    """Stop a Flower run; its finished rounds stay and it can be resumed.

    Raises:
        FederationError: the SuperLink does not answer, or the run has ended.
    """
    with open_control(CoordinatorFolder.open(folder), purpose="stop the run", record=f"stop Flower run {flower_run}") as control:
        control.StopRun(StopRunRequest(run_id=int(flower_run)))
