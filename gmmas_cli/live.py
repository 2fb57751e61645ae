"""A run on the terminal while it goes on: rounds with the time left, one row per hospital, faults in red.

On a terminal the picture is redrawn in place; into a file or pipe one line per event is written instead.
"""

import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gmmas_schema.events import Event, EventKind
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Modality
from gmmas_workflows.scores import score_of
from server.run_view import RoundReader, RunView, SiteRow
from server.wording import format_bytes, format_clock, format_metrics, format_seconds

REFRESH_PER_S: Final = 2
MOST_ROWS: Final = 20
"""Sites that have a row of their own."""
SHORT_NAMES: Final = {Modality.T1: "T1", Modality.T1CE: "T1ce", Modality.T2: "T2", Modality.FLAIR: "FL"}
_FAULTS = (
    EventKind.REPLY_REFUSED,
    EventKind.REPLY_MISSING,
    EventKind.REPLY_DISMISSED,
    EventKind.SITE_REFUSED,
    EventKind.ROUND_FAILED,
    EventKind.MODEL_UNREADABLE,
    EventKind.RUN_FAILED,
)


class Redrawn:
    """What is redrawn in place while it goes on, on a terminal; elsewhere nothing is drawn, and lines are printed instead. A context.

    Args:
        console: where to.
        transient: take the picture away at the end.
    """

    def __init__(self, console: Console, *, transient: bool) -> None:
        self._console = console
        self._live: Live | None = None
        if console.is_terminal:
            self._live = Live(console=console, get_renderable=self.render, refresh_per_second=REFRESH_PER_S, transient=transient)

    def render(self) -> RenderableType:
        """Return the picture of this moment."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        """Begin to redraw."""
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Draw for the last time."""
        if self._live is not None:
            self._live.stop()


class LiveRun(Redrawn):
    """Shows a run's events; its last picture stays on the terminal.

    Use as a context: `with LiveRun(console, run_dir=folder) as live: live.update(event)`.

    Args:
        console: where to.
        run_dir: the run's folder, for the accuracies by site; without it the columns stay empty.
    """

    def __init__(self, console: Console, *, run_dir: Path | None = None) -> None:
        self.view = RunView(RoundReader(run_dir) if run_dir else None)
        super().__init__(console, transient=False)

    def update(self, event: Event) -> None:
        """Show one event."""
        self.view.update(event)
        if self._live is None:
            line = describe_event(event, self.view)
            if line is not None:
                self._console.print(line, soft_wrap=True)

    def note(self, text: str) -> None:
        """Show what goes on beside the run's own events, as its stage."""
        self.view.stage = text
        if self._live is None:
            self._console.print(text, soft_wrap=True)

    def render(self) -> RenderableType:
        """Return the picture of this moment."""
        return draw_run(self.view, now=None if self.view.ended else time.time())


def draw_run(view: RunView, *, now: float | None = None) -> Group:
    """Return the picture of a run; `now` (seconds since 1970) counts the elapsed time on, None stops it at the last event."""
    style = "green" if view.succeeded else "red" if view.ended else "cyan"
    head = Text.assemble((view.name or "run", "bold"), "  ", (view.stage, style))
    parts: list[RenderableType] = [head, _progress(view, now)]
    if view.sites:
        parts.append(_sites(view))
    if view.validation:
        parts.append(_validation(view))
    parts += [Text.assemble((time.strftime("%H:%M:%S ", time.localtime(fault.time)), "dim"), (fault.text, "red")) for fault in view.faults]
    return Group(*parts)


def describe_event(event: Event, view: RunView) -> Text | None:
    """Return one line for an event, or None for one that a log does not need; `view` has taken it into account."""
    clock = (time.strftime("%H:%M:%S ", time.localtime(event.time)), "dim")
    if event.kind in _FAULTS:
        return Text.assemble(clock, (view.faults[-1].text, "red"))
    if event.kind is EventKind.SITE_JOINED and event.site:
        row = view.sites[event.site]
        return Text.assemble(clock, f"{row.name} joined: {row.cases} training cases, {', '.join(row.modalities)}")
    if event.kind is EventKind.ROUND_FINISHED:
        left = f", about {format_seconds(view.remaining_s)} left" if view.remaining_s else ""
        shown = format_metrics(view.validation.get(view.finished - 1, {}))
        took = format_seconds(event.detail.get("seconds", 0))
        return Text.assemble(clock, f"round {event.round} of {view.rounds} in {took}{left}  {shown}")
    if event.kind is EventKind.ROUND_STARTED and view.readiness_change:
        return Text.assemble(clock, f"round {event.round}: {view.readiness_change}")
    smooth = event.kind is EventKind.SUM_PHASE and not event.detail.get("dropped")
    if smooth or event.kind in (EventKind.ROUND_STARTED, EventKind.REPLY_ACCEPTED, EventKind.SUM_OPENED):
        return None
    text = f"{event.site} left" if event.kind is EventKind.SITE_LEFT else view.stage
    return Text.assemble(clock, (text, "yellow" if event.kind is EventKind.BUDGET_SPENT else ""))


def _progress(view: RunView, now: float | None) -> Table:
    row = Table.grid(padding=(0, 2))
    elapsed = view.elapsed_s if now is None or view.started is None else max(0.0, now - view.started)
    bar = ProgressBar(total=max(view.rounds, 1), completed=view.finished, width=30)
    left = "" if view.ended or view.remaining_s is None else f"about {format_seconds(view.remaining_s)} left"
    row.add_row(Text(f"round {view.finished} of {view.rounds or '?'}"), bar, Text(format_seconds(elapsed), style="dim"), Text(left))
    return row


def _sites(view: RunView) -> Table:
    """Return one row per hospital, within 80 columns."""
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for column in ("site", "state", "sequences"):
        table.add_column(column, no_wrap=True)
    for column in ("cases", f"Dice {' '.join(region.upper() for region in REGIONS)}", "round", "down/up"):
        table.add_column(column, justify="right", no_wrap=True)
    # Of many, those in trouble first: they are what somebody must see to.
    rows = sorted(view.sites.values(), key=lambda row: (len(view.sites) > MOST_ROWS and not row.failed, row.name))
    for row in rows[:MOST_ROWS]:
        table.add_row(*_site_cells(row))
    if rest := rows[MOST_ROWS:]:
        states = Counter(row.state for row in rest)
        table.caption = f"and {len(rest)} more: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return table


def _site_cells(row: SiteRow) -> list[Text]:
    style = "red" if row.failed else "green" if row.state == "done" else "yellow" if row.state == "training" else ""
    return [
        Text(row.name, style="bold"),
        Text(row.state, style=style),
        Text(" ".join(SHORT_NAMES[modality] for modality in MODALITIES if modality in row.modalities)),
        Text("" if row.cases is None else str(row.cases)),
        Text(" ".join(f"{row.dice[region]:.2f}" if region in row.dice else "  - " for region in REGIONS) if row.dice else ""),
        Text("" if row.seconds is None else format_clock(row.seconds)),
        Text(f"{format_bytes(row.bytes_down)}/{format_bytes(row.bytes_up)}"),
    ]


def _validation(view: RunView) -> Text:
    """Return the mean validation of the newest measured model and of the best one so far."""
    last = max(view.validation)
    best = max(view.validation, key=lambda number: _rank(view.validation[number]))
    lines = [
        Text.assemble((f"{label:<12}", "dim"), f"model {number:<3} {format_metrics(view.validation[number])}")
        for label, number in (("validation", last), ("best so far", best))
    ]
    return Text("\n").join(lines)


def _rank(metrics: dict[str, float]) -> float:
    score = score_of(metrics)
    return float("-inf") if score is None else score
