"""Accuracies with their intervals, one row per cohort, model or subset: for the terminal and as Markdown."""

from collections.abc import Mapping
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.vocabulary import MARKER_NAMES, REGIONS, REQUIRED_TASKS, Region, Task

COLUMNS: Final[dict[str, tuple[str, Region | Task]]] = {
    **{f"Dice {region.upper()}": ("dice", region) for region in REGIONS},
    **{f"AUC {name}": ("auc", task) for task, name in MARKER_NAMES.items()},
}
NOTHING: Final = "–"


def accuracy_table(rows: Mapping[str, Evaluation], *, title: str, first: str = "held-out\npatients") -> Table:
    """Return a table that fits 80 columns: means or AUCs, and below each its 95 % bootstrap interval."""
    columns = _columns(rows)
    caption = f"below: 95 % bootstrap interval over patients\n{NOTHING} no such label, or one class only"
    table = Table(title=title, caption=caption, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0) if len(columns) > 5 else (0, 1))
    table.add_column(first)
    table.add_column("n", justify="right")
    for column in columns:
        table.add_column(column, justify="right", max_width=9)
    for name, evaluation in rows.items():
        table.add_row(name, str(evaluation.cases), *(_cell(_interval(evaluation, key)) for key in columns.values()))
    return table


def markdown_table(rows: Mapping[str, Evaluation]) -> str:
    """Return the same table as Markdown."""
    columns = _columns(rows)
    lines = ["| model or cohort | n | " + " | ".join(columns) + " |", "|---|---|" + "---|" * len(columns)]
    for name, evaluation in rows.items():
        cells = [interval_text(_interval(evaluation, key)) for key in columns.values()]
        lines.append(f"| {name} | {evaluation.cases} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(interval: Interval | None) -> Text:
    """Return a value over its interval; every bound is three characters wide, .85 or 1.0."""
    if interval is None or interval.value is None or interval.low is None or interval.high is None:
        return Text(interval_text(interval))
    low, high = (f"{bound:.2f}".removeprefix("0")[:3] for bound in (interval.low, interval.high))
    return Text.assemble(f"{interval.value:.2f}\n", (f"{low}–{high}", "dim"))


def _columns(rows: Mapping[str, Evaluation]) -> dict[str, tuple[str, Region | Task]]:
    """Return the columns to show: an optional marker only where a row has it."""
    found = {task for evaluation in rows.values() for task in evaluation.auc}
    return {column: key for column, key in COLUMNS.items() if key[0] == "dice" or key[1] in REQUIRED_TASKS or key[1] in found}


def _interval(evaluation: Evaluation, key: tuple[str, Region | Task]) -> Interval | None:
    kind, name = key
    found: Mapping[Any, Interval] = evaluation.dice if kind == "dice" else evaluation.auc
    return found.get(name)


def interval_text(interval: Interval | None) -> str:
    """Return a value with its interval, or a dash."""
    if interval is None or interval.value is None:
        return NOTHING
    if interval.low is None or interval.high is None:
        return f"{interval.value:.2f}"
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
