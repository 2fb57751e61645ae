"""The state of a run as its events tell it: rounds, stage, one row per site, failures. For the terminal and for the dashboard."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from gmmas_schema.audit import SMALLEST_COUNT
from gmmas_schema.errors import ReasonCode
from gmmas_schema.events import Event, EventKind
from gmmas_schema.messages import Evaluation
from gmmas_schema.vocabulary import HEAD_NAMES, REGIONS, TASKS, Region, Task
from server.records import RoundRecord

RECENT_ROUNDS: Final = 5
"""The estimate of the remaining time rests on the last rounds."""
KEPT_FAULTS: Final = 5

ReadRound = Callable[[int], RoundRecord | None]


@dataclass
class SiteRow:
    """One site: counts of cases, bytes since the start, seconds of its last round, accuracy of the model it was sent last.

    Attributes:
        failures: requests that were not answered, or not in a way that counts, since the start.
        software: version of this project at the site, as it tells it.
        few: whether that accuracy rests on fewer than SMALLEST_COUNT cases.
        measured: round of the model that it is of; a hospital that was out for a while last saw an older one.
    """

    name: str
    state: str = "joined"
    failed: bool = False
    modalities: tuple[str, ...] = ()
    cases: int | None = None
    labelled: dict[str, int] = field(default_factory=dict)
    seconds: float | None = None
    bytes_down: int = 0
    bytes_up: int = 0
    dice: dict[Region, float] = field(default_factory=dict)
    auc: dict[Task, float] = field(default_factory=dict)
    failures: int = 0
    software: str = ""
    few: bool = False
    measured: int | None = None


@dataclass
class Trouble:
    """What keeps going wrong: one reason at one site, or of the run itself; `message` and `round` are of the last time."""

    site: str | None
    code: ReasonCode
    count: int = 0
    round: int | None = None
    time: float = 0.0
    message: str = ""


@dataclass
class Fault:
    """Something that went wrong and was survived, or not."""

    time: float
    text: str


class RunView:
    """What a display needs to know of a run.

    Args:
        read_round: returns a finished round's record, for the accuracies by site; None where there is none.
    """

    def __init__(self, read_round: ReadRound | None = None) -> None:
        self._read_round = read_round or (lambda _number: None)
        self.name = ""
        self.run = ""
        self.stage = "waiting for the coordinator"
        self.ready: frozenset[str] = frozenset()
        self.readiness_change = ""
        self.rounds = 0
        self.finished = 0
        self.round: int | None = None
        self.started: float | None = None
        self.now: float | None = None
        self.ended = False
        self.succeeded = False
        self.sites: dict[str, SiteRow] = {}
        self.faults: deque[Fault] = deque(maxlen=KEPT_FAULTS)
        self.troubles: dict[tuple[str | None, ReasonCode], Trouble] = {}
        self.validation: dict[int, dict[str, float]] = {}
        self.result: dict[str, Any] = {}
        self._seconds: deque[float] = deque(maxlen=RECENT_ROUNDS)

    @property
    def remaining_s(self) -> float | None:
        """Estimated seconds until the last round ends; None before the first round has."""
        if not self._seconds or not self.rounds:
            return None
        return (self.rounds - self.finished) * sum(self._seconds) / len(self._seconds)

    @property
    def elapsed_s(self) -> float:
        """Seconds from the start, or the last resume, to the last event."""
        return 0.0 if self.started is None or self.now is None else self.now - self.started

    def update(self, event: Event) -> None:
        """Take one event into account; what is done with a run's model afterwards is no part of the run."""
        if event.kind is EventKind.MODEL_PROMOTED:
            return
        self.started = event.time if self.started is None else self.started
        self.now = event.time
        if event.code is not None:
            self._trouble(event, event.code)
        handle = {
            EventKind.RUN_STARTED: self._begin,
            EventKind.RUN_RESUMED: self._begin,
            EventKind.WAITING_FOR_SITES: self._wait,
            EventKind.SITE_JOINED: self._join,
            EventKind.SITE_LEFT: self._leave,
            EventKind.SITE_REFUSED: lambda e: self._fail(e, f"{e.site or 'a node'} was not admitted"),
            EventKind.ROUND_STARTED: self._start_round,
            EventKind.REPLY_ACCEPTED: self._reply,
            EventKind.REPLY_REFUSED: self._reply,
            EventKind.REPLY_MISSING: self._reply,
            EventKind.REPLY_DISMISSED: self._dismiss,
            EventKind.SUM_PHASE: self._sum,
            EventKind.SUM_OPENED: self._open,
            EventKind.BUDGET_SPENT: self._stop,
            EventKind.ROUND_FINISHED: self._finish_round,
            EventKind.ROUND_FAILED: lambda e: self._fail(e, f"round {e.round} did not count"),
            EventKind.MODEL_UNREADABLE: lambda e: self._fail(e, f"the model of round {e.round} is missing or damaged"),
            EventKind.MODEL_REGISTERED: self._register,
            EventKind.RUN_FINISHED: self._end,
            EventKind.RUN_FAILED: self._end,
        }
        # What says nothing of rounds, sites or faults changes no picture.
        if event.kind in handle:
            handle[event.kind](event)

    def _begin(self, event: Event) -> None:
        self.ended = self.succeeded = False
        self.started = event.time
        self.run = str(event.detail.get("run", self.run))
        self.name = str(event.detail.get("name", self.name or self.run))
        self.rounds = int(event.detail.get("rounds", self.rounds))
        self.finished = event.round or 0
        self.stage = f"resumed after round {event.round}" if event.kind is EventKind.RUN_RESUMED else "started"
        privacy = event.detail.get("privacy") or {}
        if privacy:
            left = int(privacy.get("affordable", 0)) - int(privacy.get("releases", 0))
            self.stage += f"; the privacy budget affords {left} more round{'s' if left != 1 else ''}, {self.rounds} are planned"
        for row in self.sites.values():
            row.state, row.failed = "expected", False

    def _wait(self, event: Event) -> None:
        self.stage = f"waiting for hospitals: {event.detail.get('joined', 0)} of {event.detail.get('needed', '?')} have joined"

    def _row(self, site: str) -> SiteRow:
        return self.sites.setdefault(site, SiteRow(site))

    def _join(self, event: Event) -> None:
        row, detail = self._row(event.site or "?"), event.detail
        row.state, row.failed = "joined", False
        row.modalities = tuple(detail.get("modalities", ()))
        row.cases = detail.get("cases")
        row.software = str(detail.get("software", ""))
        row.labelled = dict(detail.get("labelled", {}))
        row.bytes_down += int(detail.get("bytes_down", 0))
        row.bytes_up += int(detail.get("bytes_up", 0))

    def _leave(self, event: Event) -> None:
        row = self._row(event.site or "?")
        row.state, row.failed = "left", True

    def _start_round(self, event: Event) -> None:
        self.round = event.round
        attempt = int(event.detail.get("attempt", 1))
        ready = frozenset(event.detail.get("ready", ()))
        self.readiness_change = _describe_readiness(self.ready, ready)
        self.ready = ready
        unlabelled = ", unlabelled scans too" if ready else ""
        self.stage = f"round {event.round}: hospitals train{unlabelled}" + (f" (attempt {attempt})" if attempt > 1 else "")
        asked = set(event.detail.get("sites", ()))
        for name in asked:
            self._row(name)
        for row in self.sites.values():
            row.state, row.failed = ("training", False) if row.name in asked else ("absent", True)

    def _reply(self, event: Event) -> None:
        row, detail = self._row(event.site or "?"), event.detail
        row.bytes_down += int(detail.get("bytes_down", 0))
        row.bytes_up += int(detail.get("bytes_up", 0))
        if event.kind is EventKind.REPLY_ACCEPTED:
            row.state, row.failed = "done", False
            row.seconds = detail.get("round_trip_s", row.seconds)
            if detail.get("action") == "evaluate":
                self.stage = f"evaluating on {detail.get('split') or 'held-out'} cases"
            return
        row.failed, row.failures = True, row.failures + 1
        row.state = "no answer" if event.kind is EventKind.REPLY_MISSING else "failed"
        self._fail(event, f"{row.name}, round {event.round}: {row.state}")

    def _sum(self, event: Event) -> None:
        self.stage = f"round {event.round}, adding up unseen: {event.message}"
        for site in event.detail.get("dropped", ()):
            row = self._row(site)
            row.state, row.failed = "dropped out", True

    def _open(self, event: Event) -> None:
        self.stage = f"round {event.round}, added up unseen: {event.message}"

    def _finish_round(self, event: Event) -> None:
        self.finished = event.round or self.finished
        self._seconds.append(float(event.detail.get("seconds", 0.0)))
        self.stage = f"round {event.round} is finished"
        validation = event.detail.get("validation") or {}
        if validation.get("metrics"):
            self.validation[int(validation.get("model_round", self.finished - 1))] = dict(validation["metrics"])
        record = self._read_round(self.finished)
        for site in record.sites if record else ():
            if site.evaluation is not None:
                _set_accuracy(self._row(site.site), site.evaluation, measured=self.finished - 1)

    def _register(self, event: Event) -> None:
        self.stage = f"registered the {event.detail.get('kind', '')} model (round {event.round})"

    def _dismiss(self, event: Event) -> None:
        row = self._row(event.site or "?")
        row.state, row.failed, row.failures = "refused", True, row.failures + 1
        self._fail(event, f"{row.name}, round {event.round}")

    def _stop(self, event: Event) -> None:
        self.rounds = event.round or self.rounds
        self.stage = f"the privacy budget ends the run after round {event.round}"

    def _end(self, event: Event) -> None:
        self.ended, self.succeeded = True, event.kind is EventKind.RUN_FINISHED
        self.stage = "finished" if self.succeeded else "stopped by a failure"
        if self.succeeded:
            self.result = event.detail
        else:
            self._fail(event, "the run failed")

    def _trouble(self, event: Event, code: ReasonCode) -> None:
        trouble = self.troubles.setdefault((event.site, code), Trouble(event.site, code))
        trouble.count += 1
        trouble.round, trouble.time = event.round, event.time
        trouble.message = first_line(event)

    def _fail(self, event: Event, what: str) -> None:
        reason = " ".join(filter(None, [event.code, first_line(event)]))
        self.faults.append(Fault(event.time, f"{what}: {reason}" if reason else what))


def first_line(event: Event) -> str:
    """Return the first line of an event's message, without the code that stands beside it."""
    return event.message.partition("\n")[0].removesuffix(f" [{event.code}]")


def _describe_readiness(before: frozenset[str], after: frozenset[str]) -> str:
    """Return what changed in what unlabelled scans teach; empty where nothing did."""
    gained, lost = (
        ", ".join(name for target, name in HEAD_NAMES.items() if target in targets) for targets in (after - before, before - after)
    )
    parts = [f"unlabelled scans now teach {gained}"] if gained else []
    return "; ".join(parts + ([f"unlabelled scans no longer teach {lost}: their validation fell below the threshold"] if lost else []))


def _set_accuracy(row: SiteRow, evaluation: Evaluation, *, measured: int) -> None:
    row.measured = measured
    row.dice = {region: value for region in REGIONS if region in evaluation.dice and (value := evaluation.dice[region].value) is not None}
    row.few = evaluation.cases < SMALLEST_COUNT
    row.auc = {task: value for task in TASKS if task in evaluation.auc and (value := evaluation.auc[task].value) is not None}


class RoundReader:
    """Reads round.json of a finished round; one that is missing or damaged is nothing to show."""

    def __init__(self, run_dir: Path) -> None:
        self._rounds = run_dir / "rounds"

    def __call__(self, number: int) -> RoundRecord | None:
        """Return the record of a round."""
        try:
            return RoundRecord.model_validate_json((self._rounds / f"{number:04d}" / "round.json").read_bytes())
        except (OSError, ValidationError):
            return None
