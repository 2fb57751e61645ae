"""The plots: differences to the reference with their intervals, and validation over the rounds, arm by arm."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.learning.report import ArmSummary, Summary
from benchmarks.learning.statistics import FIGURES
from gmmas_schema.messages import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN: Final = ("dice", "dice_et", "et_t1ce", "auc_idh_15", "auc_codeletion_15")
BETTER, WORSE, NEITHER = "#009E73", "#D55E00", "#6E6E6E"
"""Okabe-Ito green and vermilion, which readers with a colour vision deficiency can tell apart; grey where the interval holds 0."""
LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
CURVES: Final = {"score": "mean validation Dice", "dice_et": "validation Dice ET"}
PANELS_A_ROW: Final = 4
SHORTEST_AXIS, FITTING = 0.02, 0.8
"""An axis of differences reaches at least this far, and so far that this share of the intervals fits on it."""
_DPI = 130


def draw_differences(summary: Summary, path: Path) -> None:
    """Write a forest plot: a panel a figure, a line an arm, grouped by piece."""
    from matplotlib.figure import Figure

    rows = [row for row in summary.arms if row.arm.name != summary.plan["reference"]]
    figure = Figure(figsize=(4.2 + 2.3 * len(SHOWN), 1.3 + 0.25 * len(rows)), dpi=_DPI, layout="constrained")
    panels = figure.subplots(1, len(SHOWN), sharey=True, squeeze=False)[0]
    for name, axes in zip(SHOWN, panels, strict=True):
        _draw_panel(axes, rows, name)
    labels = [f"{row.arm.name} - {row.arm.compare_with}" if row.arm.compare_with else row.arm.name for row in rows]
    panels[0].set_yticks(range(len(rows)), labels, fontsize=8)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    for piece in dict.fromkeys(row.arm.piece for row in rows):
        places = [place for place, row in enumerate(rows) if row.arm.piece == piece]
        middle = sum(places) / len(places)
        panels[-1].text(1.03, middle, piece, transform=panels[-1].get_yaxis_transform(), va="center", fontsize=8, color="#555555")
    reference = summary.plan["reference"]
    figure.suptitle(f"difference to {reference} at the hospital {summary.site}; 95 % paired bootstrap over patients and seeds", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_curves(summary: Summary, path: Path) -> None:
    """Write validation over the rounds: a column a piece, mean Dice above, enhancing tumour below; the reference is black in each.

    An arm with a single hospital is left out: it is validated on that hospital's patients only.
    """
    from matplotlib.figure import Figure

    reference = next((row for row in summary.arms if row.arm.name == summary.plan["reference"]), None)
    shown = [
        row for row in summary.arms if row is not reference and (isinstance(row.arm.participants, str) or len(row.arm.participants) > 1)
    ]
    pieces = list(dict.fromkeys(row.arm.piece for row in shown)) or [""]
    across = min(PANELS_A_ROW, len(pieces))
    bands = -(-len(pieces) // across)
    figure = Figure(figsize=(3.6 * across, 4.6 * bands), dpi=_DPI, layout="constrained")
    panels = figure.subplots(2 * bands, across, squeeze=False)
    for place in range(across * bands):
        column = [panels[2 * (place // across) + below, place % across] for below in range(len(CURVES))]
        for axes, (curve, title) in zip(column, CURVES.items(), strict=True):
            if place < len(pieces):
                rows = [row for row in shown if row.arm.piece == pieces[place]]
                _draw_lines(axes, rows, reference, curve, title=f"{pieces[place]}: {title}")
            else:
                axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_panel(axes: "Axes", rows: Sequence[ArmSummary], name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    limit = _limit([row.figures[name].difference for row in rows])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlim(-limit, limit)
    for place, row in enumerate(rows):
        if place and row.arm.piece != rows[place - 1].arm.piece:
            axes.axhline(place - 0.5, color="#CCCCCC", linewidth=0.6)
        _draw_difference(axes, row.figures[name].difference, place, better=FIGURES[name].better, limit=limit)
    axes.set_title(FIGURES[name].title, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)


def _draw_difference(axes: "Axes", change: Interval, place: int, *, better: int, limit: float) -> None:
    """Draw one interval; a difference beyond the axis is an arrow with its value."""
    if change.value is None or change.low is None or change.high is None:
        return
    beyond_0 = change.low > 0 or change.high < 0
    colour = (BETTER if better * change.value > 0 else WORSE) if beyond_0 else NEITHER
    if abs(change.value) > limit:
        side = math.copysign(1, change.value)
        axes.plot(side * 0.97 * limit, place, ">" if side > 0 else "<", color=colour, markersize=5)
        at, align = side * 0.9 * limit, "right" if side > 0 else "left"
        axes.text(at, place, f"{change.value:+.2f}", va="center", ha=align, fontsize=7, color=colour)
        return
    axes.plot([change.low, change.high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot(change.value, place, "o", color=colour, markersize=4)


def _limit(changes: Sequence[Interval]) -> float:
    """Return the end of an axis that most intervals fit on: one arm that fails must not hide the differences of the others."""
    reach = sorted(max(-change.low, change.high) for change in changes if change.low is not None and change.high is not None)
    return max(SHORTEST_AXIS, 1.1 * reach[int(FITTING * (len(reach) - 1))]) if reach else SHORTEST_AXIS


def _draw_lines(axes: "Axes", rows: Sequence[ArmSummary], reference: ArmSummary | None, curve: str, *, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for place, row in enumerate(rows):
        if points := row.validation.get(curve):
            style = "-" if place < len(LINES) else "--"
            axes.plot(*zip(*points, strict=True), style, color=LINES[place % len(LINES)], linewidth=1.4, label=row.arm.name)
    if reference is not None and (points := reference.validation.get(curve)):
        axes.plot(*zip(*points, strict=True), color="black", linewidth=1.8, label=reference.arm.name)
    axes.set_title(title, fontsize=8)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("round", fontsize=7)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=6, frameon=False, loc="lower right")
