"""The plots: differences to the reference with their intervals, and validation over the rounds, arm by arm."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.learning.statistics import FEWEST_SEEDS, FIGURES, told_apart
from benchmarks.learning.summary import ArmSummary, Results, Summary, validation_curves
from gmmas_schema.messages import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN: Final = ("dice", "et_visible", "et_visible_t1ce", "et_false", "auc_idh_15", "auc_codeletion_15")
BETTER, WORSE, NEITHER = "#009E73", "#D55E00", "#6E6E6E"
"""Okabe-Ito green and vermilion, which readers with a colour vision deficiency can tell apart; grey where nothing is told apart."""
LINES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
CURVES: Final = {"dice": "mean validation Dice", "dice_et": "validation Dice ET"}
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
    panels[0].set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)
    for piece in dict.fromkeys(row.arm.piece for row in rows):
        places = [place for place, row in enumerate(rows) if row.arm.piece == piece]
        middle = sum(places) / len(places)
        panels[-1].text(1.03, middle, piece, transform=panels[-1].get_yaxis_transform(), va="center", fontsize=8, color="#555555")
    reference = summary.plan["reference"]
    figure.suptitle(
        f"difference to {reference} at the hospital {summary.site}; 95 % paired bootstrap over patients and seeds; "
        f"hollow: fewer than {FEWEST_SEEDS} seeds, patients only",
        fontsize=10,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_curves(summary: Summary, results: Results, path: Path) -> None:
    """Write validation over the rounds: a column a piece, mean Dice above, enhancing tumour below; the reference is black in each.

    All lines of a column are means over the same seeds. An arm with a single hospital is not drawn: it is validated on that hospital's
    patients only.
    """
    from matplotlib.figure import Figure

    reference = summary.plan["reference"]
    shown = [row.arm for row in summary.arms if isinstance(row.arm.participants, str) or len(row.arm.participants) > 1]
    others = [arm for arm in shown if arm.name != reference]
    pieces = list(dict.fromkeys(arm.piece for arm in others)) or [""]
    across = min(PANELS_A_ROW, len(pieces))
    bands = -(-len(pieces) // across)
    figure = Figure(figsize=(3.6 * across, 4.6 * bands), dpi=_DPI, layout="constrained")
    panels = figure.subplots(2 * bands, across, squeeze=False)
    for place in range(across * bands):
        column = [panels[2 * (place // across) + below, place % across] for below in range(len(CURVES))]
        if place < len(pieces):
            names = [arm.name for arm in others if arm.piece == pieces[place]]
            _draw_column(column, {name: results[name] for name in (*names, reference)}, reference=reference, piece=pieces[place])
        else:
            for axes in column:
                axes.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _label(row: ArmSummary) -> str:
    """Return the name of a row: what is subtracted, if not the reference, and the seeds where they are few."""
    name = f"{row.arm.name} - {row.arm.compare_with}" if row.arm.compare_with else row.arm.name
    return name if len(row.seeds) >= FEWEST_SEEDS else f"{name} ({', '.join(map(str, row.seeds))})"


def _draw_panel(axes: "Axes", rows: Sequence[ArmSummary], name: str) -> None:
    from matplotlib.ticker import MaxNLocator

    limit = _limit([row.figures[name].difference for row in rows])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlim(-limit, limit)
    for place, row in enumerate(rows):
        if place and row.arm.piece != rows[place - 1].arm.piece:
            axes.axhline(place - 0.5, color="#CCCCCC", linewidth=0.6)
        _draw_difference(axes, row.figures[name].difference, place, seeds=len(row.seeds), better=FIGURES[name].better, limit=limit)
    axes.set_title(FIGURES[name].title, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(4, symmetric=True))
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)


def _draw_difference(axes: "Axes", change: Interval, place: int, *, seeds: int, better: int, limit: float) -> None:
    """Draw one interval; a difference beyond the axis is an arrow with its value."""
    if change.value is None or change.low is None or change.high is None:
        return
    colour = (BETTER if better * change.value > 0 else WORSE) if told_apart(change, seeds=seeds) else NEITHER
    if abs(change.value) > limit:
        side = math.copysign(1, change.value)
        axes.plot(side * 0.97 * limit, place, ">" if side > 0 else "<", color=colour, markersize=5)
        at, align = side * 0.9 * limit, "right" if side > 0 else "left"
        axes.text(at, place, f"{change.value:+.2f}", va="center", ha=align, fontsize=7, color=colour)
        return
    axes.plot([change.low, change.high], [place, place], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot(change.value, place, "o", color=colour, markerfacecolor=colour if seeds >= FEWEST_SEEDS else "white", markersize=4)


def _limit(changes: Sequence[Interval]) -> float:
    """Return the end of an axis that most intervals fit on: one arm that fails must not hide the differences of the others."""
    reach = sorted(max(-change.low, change.high) for change in changes if change.low is not None and change.high is not None)
    return max(SHORTEST_AXIS, 1.1 * reach[int(FITTING * (len(reach) - 1))]) if reach else SHORTEST_AXIS


def _draw_column(column: "Sequence[Axes]", results: Results, *, reference: str, piece: str) -> None:
    """Draw the curves of a piece's arms, over the seeds that all of them have; each over its own where there is none."""
    seeds = sorted(set.intersection(*(set(of_arm) for of_arm in results.values())))
    curves = {arm: validation_curves([of_arm[seed] for seed in seeds or of_arm]) for arm, of_arm in results.items()}
    of_seeds = f"seeds {', '.join(map(str, seeds))}" if seeds else "seeds differ"
    for axes, (curve, title) in zip(column, CURVES.items(), strict=True):
        points = {arm: of_arm[curve] for arm, of_arm in curves.items() if of_arm.get(curve)}
        _draw_lines(axes, points, reference=reference)
        axes.set_title(f"{piece}: {title}", fontsize=8)
        axes.set_xlabel(f"round; {of_seeds}", fontsize=7)


def _draw_lines(axes: "Axes", points: Mapping[str, Sequence[tuple[int, float]]], *, reference: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for place, (arm, of_arm) in enumerate(points.items()):
        if arm == reference:
            axes.plot(*zip(*of_arm, strict=True), color="black", linewidth=1.8, label=arm)
        else:
            style = "-" if place < len(LINES) else "--"
            axes.plot(*zip(*of_arm, strict=True), style, color=LINES[place % len(LINES)], linewidth=1.4, label=arm)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if points:
        axes.legend(fontsize=6, frameon=False, loc="lower right")
