"""One run as the dashboard knows it: its events so far, whether anything works on it, and its line in the list of runs.

Events are read once and only what is new after that, since a run of a thousand hospitals has hundreds of thousands; the list of runs makes
do with those that are not about single hospitals. What takes a question to another process is asked at most every few seconds.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from gmmas_schema.errors import GmmasError
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig
from server.checkpoint import CONFIGURATION, SIMULATION
from server.events import EVENTS_FILE, events_after
from server.records import RoundRecord
from server.run_view import RoundReader, RunView
from server.submission import find_run_state, is_at_work, read_submission

ASK_EVERY_S: Final = 3.0
LOOK_EVERY_S: Final = 1.0
START_UP_S: Final = 60.0
"""A run of which nothing is heard for so long after it was submitted does not come any more."""

LATE_ROUNDS: Final = 5
OUTLINE: Final = frozenset(EventKind) - {
    EventKind.SITE_JOINED,
    EventKind.SITE_LEFT,
    EventKind.SITE_REFUSED,
    EventKind.REPLY_ACCEPTED,
    EventKind.REPLY_REFUSED,
    EventKind.REPLY_MISSING,
    EventKind.REPLY_DISMISSED,
}

Value = TypeVar("Value")


class Asked(Generic[Value]):
    """An answer that is kept for a while; one thread asks at a time.

    Args:
        ask: gives it.
        for_s: seconds.
    """

    def __init__(self, ask: Callable[[], Value], *, for_s: float) -> None:
        self._ask, self._for_s, self._lock = ask, for_s, threading.Lock()
        self._answer: tuple[float, Value] | None = None

    def get(self) -> Value:
        """Return the answer."""
        with self._lock:
            now = time.monotonic()
            if self._answer is None or now - self._answer[0] > self._for_s:
                self._answer = (now, self._ask())
            return self._answer[1]

    def forget(self) -> None:
        """Ask anew next time."""
        with self._lock:
            self._answer = None


@dataclass(frozen=True)
class RunSummary:
    """One line of the list of runs.

    Attributes:
        remaining_s: estimated seconds until the last round ends; None unless it is at work and a round has ended.
        metrics: validation of the newest measured model.
    """

    key: str
    name: str
    folder: str
    state: str
    stage: str
    finished: int
    rounds: int
    remaining_s: float | None
    metrics: dict[str, float]


@dataclass
class WatchedRun:
    """One run.

    Attributes:
        key: in addresses.
        path: its folder.
        config: what it was begun with.
        view: its state with every hospital, as of the last look(); read it while `lock` is held.
        last: number of the newest event that `view` has taken into account.
        outline: its state without hospitals, as of the last refresh().
    """

    key: str
    path: Path
    config: FederationConfig
    last: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._begun = _begun(self.path)
        self._read_round, self._oldest_round = RoundReader(self.path), 0
        self.view, self.outline, self._outlined = RunView(self._read_late_round), RunView(), 0
        self._at_work = Asked(lambda: is_at_work(self.path), for_s=LOOK_EVERY_S)
        self._withdrawn = Asked(self._is_withdrawn, for_s=ASK_EVERY_S)

    def refresh(self) -> None:
        """Bring `outline` up to date."""
        with self.lock:
            for number, event in events_after(self.path / EVENTS_FILE, self._outlined, kinds=OUTLINE):
                self.outline.update(event)
                self._outlined = number
            self.outline.rounds = self.outline.rounds or self.config.rounds

    def look(self) -> None:
        """Bring `view` and `outline` up to date."""
        self.refresh()
        with self.lock:
            new = events_after(self.path / EVENTS_FILE, self.last)
            # A round's record tells the accuracies that it has seen; those of long ago would be read to be overwritten.
            finished = [event.round or 0 for _, event in new if event.kind is EventKind.ROUND_FINISHED]
            self._oldest_round = max(finished, default=0) - LATE_ROUNDS
            for number, event in new:
                self.view.update(event)
                self.last = number
            self.view.rounds = self.view.rounds or self.config.rounds

    def _read_late_round(self, number: int) -> RoundRecord | None:
        return self._read_round(number) if number > self._oldest_round else None

    def forget(self) -> None:
        """Ask anew whether anything works on it."""
        self._at_work.forget()
        self._withdrawn.forget()

    @property
    def state(self) -> str:
        """Where it stands: never started, submitted, at work, stopping, stopped, finished, failed.

        The process of a stopped run notices within half a minute, by its heartbeat; until then it is stopping.
        """
        submission = read_submission(self.path)
        with self.lock:
            heard = submission is None or self._outlined > submission.events_before
            end = ("finished" if self.outline.succeeded else "failed") if self.outline.ended else ""
            before = "stopped" if self._outlined else "never started"
        if heard and end:
            return end
        if self._at_work.get():
            return "stopping" if self._withdrawn.get() else "at work"
        is_new = submission is not None and not heard and time.time() - submission.submitted < START_UP_S
        return "submitted" if is_new and not self._withdrawn.get() else end or before

    def _is_withdrawn(self) -> bool:
        """Return whether Flower counts the last submission as ended."""
        submission = read_submission(self.path)
        if submission is None:
            return False
        try:
            state = find_run_state(submission.coordinator, submission.flower_run)
        except GmmasError:
            return False
        return state is None or state.ended

    @property
    def is_replaced(self) -> bool:
        """Whether the folder is by now that of another run, whose events begin anew."""
        return _begun(self.path) != self._begun

    @property
    def is_simulation(self) -> bool:
        """Whether hospitals are functions of one process."""
        return (self.path / SIMULATION).exists()

    def summary(self) -> RunSummary:
        """Return its line in the list of runs."""
        state = self.state
        with self.lock:
            view = self.outline
            return RunSummary(
                key=self.key,
                name=self.config.name,
                folder=self.path.name,
                state=state,
                stage=view.stage if self._outlined else "",
                finished=view.finished,
                rounds=view.rounds,
                remaining_s=view.remaining_s if state == "at work" else None,
                metrics=dict(view.validation[max(view.validation)]) if view.validation else {},
            )

    def records(self, last: int) -> list[RoundRecord]:
        """Return the records of the last finished rounds, oldest first."""
        with self.lock:
            finished = self.view.finished
        numbers = range(max(1, finished - last + 1), finished + 1)
        return [record for number in numbers if (record := self._read_round(number)) is not None]


def _begun(path: Path) -> tuple[int, int] | None:
    """Return what tells a run from a later one of the same folder: its configuration's file, which is written once."""
    try:
        status = (path / CONFIGURATION).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
