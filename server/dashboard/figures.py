"""Tables and curves of a run, ready to be drawn: templates hold no arithmetic."""

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup, escape

from gmmas_schema.errors import ReasonCode
from gmmas_schema.events import Event, EventKind
from gmmas_schema.vocabulary import MARKER_NAMES, REGIONS, TASKS, Region, Task
from server.enrolment import Connection
from server.ledger import Cost, LedgerEntry, add_up
from server.reasons import Reason, reason_of
from server.run_view import RunView, Trouble, first_line
from server.wording import METRICS, format_bytes, format_clock, format_metrics, format_seconds

WORSE: Final = 0.1
"""So much below the mean of all hospitals is marked."""

KINDS: Final = {
    EventKind.RUN_STARTED: "the run began",
    EventKind.RUN_RESUMED: "the run was resumed",
    EventKind.WAITING_FOR_SITES: "waiting for hospitals",
    EventKind.SITE_JOINED: "joined",
    EventKind.SITE_LEFT: "left",
    EventKind.SITE_REFUSED: "was not admitted",
    EventKind.ROUND_STARTED: "round began",
    EventKind.REPLY_ACCEPTED: "answered",
    EventKind.REPLY_REFUSED: "answer refused",
    EventKind.REPLY_MISSING: "no answer",
    EventKind.REPLY_DISMISSED: "answer refused beside the others",
    EventKind.SUM_PHASE: "letters of the unseen sum",
    EventKind.SUM_OPENED: "sum opened",
    EventKind.BUDGET_SPENT: "privacy budget spent",
    EventKind.ROUND_FINISHED: "round finished",
    EventKind.ROUND_FAILED: "round did not count",
    EventKind.MODEL_UNREADABLE: "a kept model is missing or damaged",
    EventKind.MODEL_REGISTERED: "model registered",
    EventKind.MODEL_PROMOTED: "model promoted",
    EventKind.MODEL_VALIDATED: "model validated at the hospitals",
    EventKind.RUN_FINISHED: "the run finished",
    EventKind.RUN_FAILED: "the run failed",
}


@dataclass(frozen=True)
class FeedLine:
    """One event of the feed; nothing of its `detail` but what is no count of patients."""

    number: int
    time: float
    round: int | None
    site: str | None
    text: str
    code: str
    message: str


def feed_line(number: int, event: Event) -> FeedLine:
    """Return an event as a line."""
    text = KINDS.get(event.kind, event.kind.replace("_", " "))
    if event.kind is EventKind.REPLY_ACCEPTED and event.detail.get("round_trip_s") is not None:
        text = f"{event.detail.get('action', 'train')}: answered in {format_clock(event.detail['round_trip_s'])}"
    elif event.kind is EventKind.ROUND_FINISHED:
        shown = format_metrics((event.detail.get("validation") or {}).get("metrics") or {})
        text = f"{text} in {format_seconds(event.detail.get('seconds', 0))}" + (f"; {shown}" if shown else "")
    elif event.kind is EventKind.WAITING_FOR_SITES:
        text = f"{text}: {event.detail.get('joined', 0)} of {event.detail.get('needed', '?')} are there"
    elif event.kind is EventKind.MODEL_REGISTERED:
        text = f"{event.detail.get('kind', '')} {text}".strip()
    return FeedLine(number, event.time, event.round, event.site, text, event.code or "", first_line(event))


@dataclass(frozen=True)
class Accuracy:
    """One figure of one hospital; `behind` is how far it is below that of all hospitals, where that is much."""

    value: float | None
    behind: float | None


@dataclass(frozen=True)
class AccuracyRow:
    """The figures of one hospital, or of all; `few`: they rest on fewer than 11 cases."""

    name: str
    few: bool
    cells: tuple[Accuracy, ...]


def accuracy_table(view: RunView) -> tuple[tuple[str, ...], list[AccuracyRow]]:
    """Return headings, and the rows of all hospitals together and of each that measured the same model; none where nothing was."""
    newest = max(view.validation, default=None)
    overall = {} if newest is None else view.validation[newest]
    rows = [row for row in view.sites.values() if row.measured == newest]
    names = {
        f"{family} {label}": name
        for family, labels in METRICS.items()
        for name, label in labels.items()
        if name in overall or any(_own(row.dice, row.auc, name) is not None for row in rows)
    }
    if not names:
        return (), []
    table = [AccuracyRow("all hospitals", False, tuple(Accuracy(overall.get(name), None) for name in names.values()))]
    for row in sorted(rows, key=lambda each: each.name):
        cells = []
        for name in names.values():
            value, mean = _own(row.dice, row.auc, name), overall.get(name)
            behind = mean - value if value is not None and mean is not None and mean - value >= WORSE else None
            cells.append(Accuracy(value, behind))
        if any(cell.value is not None for cell in cells):
            table.append(AccuracyRow(row.name, row.few, tuple(cells)))
    return tuple(names), table


def _own(dice: Mapping[Region, float], auc: Mapping[Task, float], name: str) -> float | None:
    family, _, what = name.partition("_")
    return dice.get(Region(what)) if family == "dice" else auc.get(Task(what))


def curves(view: RunView) -> dict[str, Any]:
    """Return the validation of each round's model: {"round": [...], "dice": {label: [...]}, "auc": {label: [...]}}; or null."""
    rounds = sorted(view.validation)
    families = {"dice": {f"dice_{region}": region.upper() for region in REGIONS}}
    families["auc"] = {f"auc_{task}": MARKER_NAMES[task] for task in TASKS if task in MARKER_NAMES}
    told: dict[str, Any] = {"round": rounds}
    for family, names in families.items():
        lines = {label: [view.validation[number].get(name) for number in rounds] for name, label in names.items()}
        told[family] = {label: values for label, values in lines.items() if any(value is not None for value in values)}
    return told


@dataclass(frozen=True)
class TroubleRow:
    """What keeps going wrong, in words."""

    trouble: Trouble
    reason: Reason


def trouble_rows(view: RunView) -> list[TroubleRow]:
    """Return what went wrong, the latest first."""
    return [TroubleRow(each, reason_of(each.code)) for each in sorted(view.troubles.values(), key=lambda each: -each.time)]


@dataclass(frozen=True)
class CostTables:
    """What a run costs: by hospital, the coordinator's own share, all of them, and by round (-1: joining)."""

    sites: list[tuple[str, Cost]]
    coordinator: Cost | None
    total: Cost
    rounds: list[tuple[int, Cost]]


def cost_tables(entries: Iterable[LedgerEntry]) -> CostTables:
    """Return the ledger added up."""
    sites: dict[str, list[LedgerEntry]] = {}
    rounds: dict[int, list[LedgerEntry]] = {}
    own = []
    for entry in entries:
        if entry.site is None:
            own.append(entry)
            continue
        sites.setdefault(entry.site, []).append(entry)
        rounds.setdefault(-1 if entry.round is None else entry.round, []).append(entry)
    return CostTables(
        sites=[(name, add_up(each)) for name, each in sorted(sites.items())],
        coordinator=add_up(own) if own else None,
        total=add_up(entry for each in sites.values() for entry in each),
        rounds=[(number, add_up(each)) for number, each in sorted(rounds.items())],
    )


def _clock_time(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _date_time(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(seconds))


def _mark_code(text: str) -> Markup:
    """Return a text with what stands in backticks marked as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


CONNECTIONS: Final = {Connection.REGISTERED: "never connected", Connection.UNREGISTERED: "revoked"}

FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "bytes": format_bytes,
    "connection": lambda connection: CONNECTIONS.get(connection, connection.value),
    "code": _mark_code,
    "duration": format_seconds,
    "clock": format_clock,
    "metrics": format_metrics,
    "time": _clock_time,
    "date": _date_time,
    "reason": lambda code: reason_of(ReasonCode(code)),
}
