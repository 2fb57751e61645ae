"""Starting, stopping and resuming a run: one way for the command line and for the dashboard."""

from pathlib import Path

from gmmas_runtime.probe import check_health
from gmmas_schema.errors import ConfigError
from gmmas_schema.federation import FederationConfig
from server.checkpoint import RunFolder
from server.folder import CoordinatorFolder
from server.submission import prepare_run, read_submission, stop_run, submit_run


def start_run(run_dir: Path, server: Path, config: FederationConfig) -> str:
    """Prepare a new run's folder and hand the run to the coordinator; returns the number of the Flower run.

    Args:
        run_dir: the run's folder; none, or an empty one.
        server: folder of the coordinator.
        config: resolved configuration.

    Raises:
        ConfigError: the folder is in use.
        FederationError: the coordinator does not answer, or refuses.
        TrustError: its certificate is not this folder's.
    """
    check_server(server)
    prepare_run(run_dir, config)
    return submit_run(server, run_dir)


def resume_run(run_dir: Path, server: Path, config: FederationConfig | None = None) -> str:
    """Go on with a run after its last finished round; returns the number of the Flower run.

    Args:
        run_dir: the run's folder.
        server: folder of the coordinator.
        config: what the run is expected to have begun with; None: whatever it began with.

    Raises:
        ConfigError: there is no run, it is finished, or it began with another configuration.
        FederationError: the coordinator does not answer, refuses, or is still at work on the run.
        TrustError: its certificate is not this folder's.
    """
    config = config or RunFolder.open(run_dir).config
    check_server(server)
    prepare_run(run_dir, config, resume=True)
    return submit_run(server, run_dir)


def stop_submitted_run(run_dir: Path) -> None:
    """Stop whatever works on a folder; finished rounds stay and the run can be resumed.

    Raises:
        ConfigError: nothing was submitted from this folder.
        FederationError: the coordinator does not answer, or the run has ended.
    """
    submission = read_submission(run_dir)
    if submission is None:
        raise ConfigError(
            "no run was submitted from this folder",
            where=run_dir,
            got="no submission.json",
            expected="the folder of a run that `gmmas run` started",
            remedy="name the folder given to `gmmas run --out`",
        )
    stop_run(submission.coordinator, submission.flower_run)


def check_server(server: Path) -> None:
    """Refuse a coordinator that does not answer, before anything is written."""
    opened = CoordinatorFolder.open(server)
    check_health(opened.config.local_address, authority_certificate=opened.authority_certificate)
