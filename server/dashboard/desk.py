"""What the dashboard knows: runs with their state so far, and the hospitals' connections. Each page asks here.

A run's events are read once and only what is new after that, since a run of a thousand hospitals has hundreds of thousands. What takes a
question to another process is asked at most every few seconds.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Generic, TypeVar

from gmmas_schema.coordinator import DashboardConfig
from gmmas_schema.errors import ConfigError, FederationError, GmmasError, TrustError
from gmmas_schema.federation import FederationConfig
from server.checkpoint import SIMULATION, RunFolder
from server.enrolment import Connection, NodeStatus, list_nodes
from server.events import EVENTS_FILE, events_after
from server.folder import CoordinatorFolder
from server.records import RoundRecord
from server.run_register import known_runs
from server.run_view import RoundReader, RunView
from server.submission import find_run_state, is_at_work, read_submission

NODES_FOR_S: Final = 3.0
STATE_FOR_S: Final = 1.0
START_UP_S: Final = 60.0
"""A run of which nothing is heard for so long after it was submitted does not come any more."""

Value = TypeVar("Value")


class NoSuchRunError(ConfigError):
    """Somebody asked for a run that this coordinator does not know."""


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
        view: its state; read it inside `locked`.
        last: number of the newest event that `view` has taken into account.
    """

    key: str
    path: Path
    config: FederationConfig
    view: RunView
    last: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._read_round = RoundReader(self.path)
        self._at_work = Asked(lambda: is_at_work(self.path), for_s=STATE_FOR_S)
        self._withdrawn = Asked(self._is_withdrawn, for_s=NODES_FOR_S)

    def refresh(self) -> None:
        """Take the newest events into account."""
        with self.lock:
            for number, event in events_after(self.path / EVENTS_FILE, self.last):
                self.view.update(event)
                self.last = number
            self.view.rounds = self.view.rounds or self.config.rounds

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
            heard = submission is None or self.last > submission.events_before
            end = ("finished" if self.view.succeeded else "failed") if self.view.ended else ""
            before = "stopped" if self.last else "never started"
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
    def is_simulation(self) -> bool:
        """Whether hospitals are functions of one process."""
        return (self.path / SIMULATION).exists()

    def summary(self) -> RunSummary:
        """Return its line in the list of runs."""
        state = self.state
        with self.lock:
            view = self.view
            return RunSummary(
                key=self.key,
                name=self.config.name,
                folder=self.path.name,
                state=state,
                stage=view.stage if self.last else "",
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


class Desk:
    """What the dashboard of one coordinator knows.

    Args:
        folder: the coordinator's.
        config: of the dashboard.
    """

    def __init__(self, folder: CoordinatorFolder, config: DashboardConfig) -> None:
        self.folder, self.config = folder, config
        self._runs: dict[str, WatchedRun] = {}
        self._lock = threading.Lock()
        self._nodes = Asked(self._ask_nodes, for_s=NODES_FOR_S)

    def runs(self) -> list[WatchedRun]:
        """Return all runs that can be read, the newest first, each with its newest events."""
        found = []
        for key in reversed(known_runs(self.folder)):
            try:
                found.append(self.run(key))
            except GmmasError:
                continue
        return found

    def run(self, key: str) -> WatchedRun:
        """Return one run with its newest events.

        Raises:
            NoSuchRunError: there is none of this key.
            ConfigError: it cannot be read.
        """
        path = known_runs(self.folder).get(key)
        if path is None:
            raise NoSuchRunError(
                "there is no such run",
                where=self.folder.path,
                got=key,
                expected="a run of this coordinator",
                remedy="choose one from the list of runs",
            )
        with self._lock:
            if key not in self._runs:
                self._runs[key] = WatchedRun(key, path, RunFolder.open(path).config, RunView(RoundReader(path)))
            run = self._runs[key]
        run.refresh()
        return run

    def nodes(self) -> tuple[NodeStatus, ...] | None:
        """Return the enrolled hospitals; None while the coordinator does not answer."""
        return self._nodes.get()

    def connections(self) -> dict[str, NodeStatus]:
        """Return the connection of each hospital that is not revoked, by name."""
        return {node.name: node for node in self.nodes() or () if node.connection is not Connection.UNREGISTERED}

    def _ask_nodes(self) -> tuple[NodeStatus, ...] | None:
        try:
            return list_nodes(self.folder.path)
        except (FederationError, TrustError):
            return None
