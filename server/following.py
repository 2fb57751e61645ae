"""Watching a submitted run to its end, by its event log; and noticing that the process behind it has died without a word.

The run's process holds a lock in the run's folder, so its death is seen at once; that it never started is seen by asking Flower now and
then, as each question costs a second of processor time.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gmmas_runtime.process_state import is_supervised
from gmmas_schema.errors import FederationError
from gmmas_schema.events import Event, EventKind
from server.checkpoint import SIMULATION
from server.events import EVENTS_FILE, follow_events, read_events
from server.folder import CoordinatorFolder
from server.submission import FINISHED, Submission, find_run_state, is_at_work, read_submission, run_log
from server.validation_folder import VALIDATION

ENDS: Final = frozenset({EventKind.RUN_FINISHED, EventKind.RUN_FAILED})
FIRST_QUESTION_S: Final = 6.0
LAST_QUESTION_S: Final = 60.0
DEATH_GRACE_S: Final = 2.0
COORDINATOR_GRACE_S: Final = 15.0


def follow_run(run_dir: Path, *, on_event: Callable[[Event], None], sleep: Callable[[float], None] = time.sleep) -> Event:
    """Hand every event of a run to `on_event`, earlier ones first, until the run that was submitted last has ended.

    Returns:
        The run's last event, RUN_FINISHED or RUN_FAILED.

    Raises:
        FederationError: nothing was submitted, the run's process died, or the coordinator was stopped. Finished rounds stay.
    """
    submission = read_submission(run_dir)
    if submission is None and (run_dir / SIMULATION).exists():
        return _follow_simulation(run_dir, on_event=on_event, sleep=sleep)
    if submission is None:
        raise FederationError(
            "no run was submitted from this folder",
            where=run_dir,
            got="no submission.json",
            expected="the folder of a run that `gmmas run` or `gmmas simulate` started",
            remedy="start it with `gmmas run`",
        )
    watch = _Watch(run_dir, submission)
    for event in follow_events(run_dir / EVENTS_FILE, stop=watch.is_over, sleep=sleep):
        on_event(event)
        if watch.note(event):
            return event
    raise watch.explain()


def resume_command(run_dir: Path, coordinator: Path | None) -> str:
    """Return the command that goes on with a run or a validation; without a coordinator, with a simulation."""
    if (run_dir / VALIDATION).exists():
        return f"gmmas validate --resume --out {run_dir} --server {coordinator}"
    return (
        f"gmmas simulate --resume --out {run_dir}" if coordinator is None else f"gmmas run --resume --out {run_dir} --server {coordinator}"
    )


def _follow_simulation(run_dir: Path, *, on_event: Callable[[Event], None], sleep: Callable[[float], None]) -> Event:
    """Follow a run of this machine, whose process holds its folder while it works."""
    told = len(read_events(run_dir / EVENTS_FILE))
    silent_since: float | None = None

    def is_over() -> bool:
        nonlocal silent_since
        silent_since = None if is_at_work(run_dir) else silent_since or time.monotonic()
        return silent_since is not None and time.monotonic() - silent_since > DEATH_GRACE_S

    for number, event in enumerate(follow_events(run_dir / EVENTS_FILE, stop=is_over, sleep=sleep), start=1):
        on_event(event)
        # An end that others follow is one before a resume.
        if event.kind in ENDS and number >= told:
            return event
    raise _stopped(run_dir, "no process works on it", None)


def _stopped(run_dir: Path, got: str, coordinator: Path | None) -> FederationError:
    return FederationError(
        "the run stopped before its end",
        where=run_dir,
        got=got,
        expected="all rounds; those that are finished are safe",
        remedy=f"resume with: {resume_command(run_dir, coordinator)}",
    )


class _Watch:
    """Decides whether a silent run is still alive."""

    def __init__(self, run_dir: Path, submission: Submission) -> None:
        self._run_dir, self._submission = run_dir, submission
        self._events, self._heard = 0, False
        self._pause_s = FIRST_QUESTION_S
        self._next_question = time.monotonic() + FIRST_QUESTION_S
        self._dead_since: float | None = None
        self._orphaned_since: float | None = None
        self._got = ""

    def note(self, event: Event) -> bool:
        """Take an event into account; returns whether it ends the run that was submitted last."""
        self._events += 1
        if self._events <= self._submission.events_before:
            return False
        self._heard, self._dead_since, self._pause_s = True, None, FIRST_QUESTION_S
        self._next_question = time.monotonic() + self._pause_s
        return event.kind in ENDS

    def is_over(self) -> bool:
        """Return whether the run has ended without saying so; asked whenever there is nothing new."""
        now = time.monotonic()
        if not is_supervised(CoordinatorFolder.open(self._submission.coordinator).state_file):
            self._orphaned_since = self._orphaned_since or now
            if now - self._orphaned_since > COORDINATOR_GRACE_S:
                self._got = "the coordinator's processes are not running"
                return True
            return False
        self._orphaned_since = None
        if self._heard and not is_at_work(self._run_dir):
            self._dead_since = self._dead_since or now
            if now - self._dead_since > DEATH_GRACE_S:
                self._got = "the run's process is gone"
                return True
        if now >= self._next_question:
            self._pause_s = min(self._pause_s * 2, LAST_QUESTION_S)
            state = find_run_state(self._submission.coordinator, self._submission.flower_run)
            self._next_question = time.monotonic() + self._pause_s
            if state is not None and state.ended and not self._heard:
                self._got = f"Flower run {state.flower_run} is {state.status}" + (f" ({state.details})" if state.details else "")
                return True
        return False

    def explain(self) -> FederationError:
        """Return what happened as an error with the way on."""
        coordinator = self._submission.coordinator
        lines = [] if FINISHED not in self._got else run_log(coordinator, self._submission.flower_run).strip().splitlines()
        return _stopped(self._run_dir, self._got + (f"; its last line: {lines[-1]:.300}" if lines else ""), coordinator)
