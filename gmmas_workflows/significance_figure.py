"""The picture of a modality significance: Shapley values with intervals, the value of every subset over a matrix of dots, gate weights.

The matrix of dots is that of UpSet plots (Lex et al., IEEE TVCG 2014). The colours of the sequences are from the Okabe-Ito palette, which
readers with a colour vision deficiency can tell apart, and are none of those of the label maps in gmmas_workflows.figures.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gmmas_schema.messages import Interval
from gmmas_schema.vocabulary import Modality, Region, Task
from gmmas_workflows.figures import MODALITY_NAMES
from gmmas_workflows.significance import NOTHING, Attribution, GateWeights, Significance

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODALITY_COLOURS: Final = {Modality.T1: "#999999", Modality.T1CE: "#E69F00", Modality.T2: "#009E73", Modality.FLAIR: "#0072B2"}
FIGURE_NAMES: Final = {
    f"dice_{Region.WT}": "whole tumour",
    f"dice_{Region.TC}": "tumour core",
    f"dice_{Region.ET}": "enhancing tumour",
    f"auc_{Task.IDH}": "IDH mutant",
    f"auc_{Task.CODELETION}": "1p/19q codeleted",
    f"auc_{Task.GRADE}": "high grade",
    f"auc_{Task.MGMT}": "MGMT methylated",
}
"""Figures in the order of tables and pictures."""

_KINDS: Final = {"dice": "Dice", "auc": "AUC"}
_TEXT, _FAINT = "#222222", "#D0D0D0"
_MAP: Final = "Greys"
_DPI = 130
_BAR = 0.19
_NOTE = (
    "A bar is the mean gain from adding the sequence to the others, over all orders; whiskers are 95 % bootstrap intervals over patients. "
    "The bars of a group sum to the step written under it,\nfrom nothing shown (no tumour, one probability for everybody) to everything "
    "shown. All of this describes one model on these patients: sequences that tell the same share the credit, and none of it is clinical "
    "worth."
)


def significance_picture(result: Significance, path: Path) -> None:
    """Write a PNG of a result with at least one figure."""
    # Figure without pyplot: no global state, no display, safe in threads.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    figure = Figure(figsize=(13.5, 9.6), dpi=_DPI, layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, hspace=0.03))
    figure.suptitle(_title(result), fontsize=12, x=0.008, ha="left", color=_TEXT)
    figure.supxlabel(_NOTE, fontsize=8, x=0.008, ha="left", color="#555555")
    halves: Any = figure.subfigures(2, 1, height_ratios=(1.0, 1.15))
    top, bottom = halves
    groups = {
        kind: {name: result.figures[name] for name in FIGURE_NAMES if name in result.figures and name.startswith(kind)} for kind in _KINDS
    }
    shown = {kind: found for kind, found in groups.items() if found}
    panels = top.subplots(1, len(shown), squeeze=False, width_ratios=[len(found) + 0.3 for found in shown.values()])[0]
    for axes, (kind, found) in zip(panels, shown.items(), strict=True):
        _draw_bars(axes, found, result.modalities, kind=_KINDS[kind])
    legend: dict[str, Any] = {"frameon": False, "fontsize": 9, "columnspacing": 1.2, "handlelength": 1.1, "borderaxespad": 0.3}
    panels[0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=len(result.modalities), **legend)
    left, right = bottom.subfigures(1, 2, width_ratios=(3.1, 1.0))
    values, dots = left.subplots(2, 1, sharex=True, height_ratios=(sum(map(len, shown.values())), 0.75 * len(result.modalities)))
    _draw_values(values, {name: found for group in shown.values() for name, found in group.items()})
    _draw_dots(dots, list(next(iter(result.figures.values())).value), result.modalities)
    _draw_gates(right.subplots(2, 1), result.gates, result.modalities)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _title(result: Significance) -> str:
    return f"What each sequence contributes to the model {result.weights_sha256[:12]} on {result.cases} cases"


def _draw_bars(axes: "Axes", figures: Mapping[str, Attribution], modalities: Sequence[Modality], *, kind: str) -> None:
    """Draw a group of bars per figure, one bar per sequence with its interval and its value."""
    for place, modality in enumerate(modalities):
        found = [figure.shapley[modality] for figure in figures.values()]
        x = np.arange(len(found)) + (place - (len(modalities) - 1) / 2) * _BAR
        value, low, high = np.array([_numbers(interval) for interval in found]).T
        axes.bar(x, value, _BAR * 0.92, color=MODALITY_COLOURS[modality], label=MODALITY_NAMES[modality])
        # Around its own middle: a percentile interval need not hold the value.
        axes.errorbar(x, (low + high) / 2, yerr=(high - low) / 2, fmt="none", ecolor=_TEXT, elinewidth=1, capsize=2.5)
        for at, shown, upper, lower in zip(x, value, high, low, strict=True):
            up = shown >= 0
            axes.annotate(
                _signed(shown),
                (at, max(upper, shown) if up else min(lower, shown)),
                xytext=(0, 3 if up else -3),
                textcoords="offset points",
                ha="center",
                va="bottom" if up else "top",
                fontsize=7.5,
                color=_TEXT,
            )
    axes.axhline(0, color=_TEXT, linewidth=0.8)
    axes.set_xticks(range(len(figures)), [_group_label(name, figure, kind) for name, figure in figures.items()], fontsize=9)
    axes.tick_params(axis="x", length=0)
    axes.set_ylabel(f"Shapley value (change of {kind})", fontsize=9)
    axes.set_title(f"{kind}: contribution of each sequence", fontsize=10, loc="left")
    axes.margins(y=0.14)
    side = 0.5 if len(figures) > 1 else 1.2
    axes.set_xlim(-side, len(figures) - 1 + side)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)


def _draw_values(axes: "Axes", figures: Mapping[str, Attribution]) -> None:
    """Draw a row per figure and a column per subset; dark is good, from that of chance to perfect."""
    table = np.array([[_numbers(interval)[0] for interval in figure.value.values()] for figure in figures.values()])
    floor = np.array([[0.0 if name.startswith("dice") else 0.5] for name in figures])
    shade = np.clip((table - floor) / (1 - floor), 0, 1) * 0.8
    axes.imshow(shade, cmap=_MAP, vmin=0, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8.5, color="white" if shade[row, column] > 0.5 else _TEXT)
    kinds = [f"{_KINDS[name.partition('_')[0]]} {FIGURE_NAMES[name]}" for name in figures]
    axes.set_yticks(range(len(figures)), kinds, fontsize=9)
    axes.set_title("Accuracy for every set of sequences shown (dark: perfect; white: Dice 0, AUC 0.5 or less)", fontsize=10, loc="left")
    _plain(axes)
    axes.set_xticks(np.arange(-0.5, table.shape[1]), minor=True)
    axes.set_yticks(np.arange(-0.5, table.shape[0]), minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)


def _draw_dots(axes: "Axes", subsets: Sequence[str], modalities: Sequence[Modality]) -> None:
    """Draw which sequences each column shows."""
    for column, name in enumerate(subsets):
        held = [place for place, m in enumerate(modalities) if m in name.split("+")]
        if held:
            axes.scatter([column] * len(modalities), range(len(modalities)), s=70, color=_FAINT, zorder=1)
            axes.plot([column, column], [held[0], held[-1]], color=_TEXT, linewidth=1.6, zorder=2)
        axes.scatter([column] * len(held), held, s=70, color=[MODALITY_COLOURS[modalities[p]] for p in held], edgecolors=_TEXT, zorder=3)
        if name == NOTHING:
            axes.text(column, (len(modalities) - 1) / 2, NOTHING, ha="center", va="center", rotation=90, fontsize=9, color=_TEXT)
    axes.set_yticks(range(len(modalities)), [MODALITY_NAMES[m] for m in modalities], fontsize=9)
    axes.set_ylim(len(modalities) - 0.5, -0.5)
    _plain(axes)


def _draw_gates(panels: Sequence["Axes"], gates: Sequence[GateWeights], modalities: Sequence[Modality]) -> None:
    """Draw the mean gate weights in the tumour and in the brain, levels downwards from fine to coarse."""
    for axes, place in zip(panels, ("tumour", "brain"), strict=True):
        weights: list[Mapping[Modality, Interval]] = [getattr(level, place) for level in gates]
        table = np.array([[_numbers(weight[m])[0] if m in weight else np.nan for m in modalities] for weight in weights])
        axes.imshow(table, cmap=_MAP, vmin=0, vmax=1.25, aspect="auto")
        for (row, column), value in np.ndenumerate(table):
            text = "–" if np.isnan(value) else f"{value:.0%}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8.5, color="white" if value > 0.6 else _TEXT)
        axes.set_yticks(range(len(gates)), [f"{level.spacing_mm:g} mm" for level in gates], fontsize=9)
        axes.set_title(f"Mean fusion weight in the {place}", fontsize=10, loc="left")
        _plain(axes)
        axes.set_xticks(range(len(modalities)), [MODALITY_NAMES[m] for m in modalities], fontsize=9)
        axes.tick_params(axis="x", labelbottom=True)


def _group_label(name: str, figure: Attribution, kind: str) -> str:
    all_shown = max((name for name in figure.value if name != NOTHING), key=lambda name: name.count("+"))
    (nothing, _, _), (everything, _, _) = _numbers(figure.value[NOTHING]), _numbers(figure.value[all_shown])
    patients = figure.value[NOTHING].n
    # Predicting nothing scores 1 where there is nothing, so its Dice is the share of cases without the region.
    none = f"\n{nothing:.0%} of cases have none" if name.startswith("dice") and nothing > 0 else ""
    return f"{FIGURE_NAMES[name]}\n{kind} {nothing:.2f} → {everything:.2f}\n{patients} patients{none}"


def _signed(value: float) -> str:
    """Return two decimals with their sign, and a plain zero."""
    text = f"{value:+.2f}".replace("-", "\N{MINUS SIGN}").replace("0.", ".", 1)
    return "0" if text[1:] == ".00" else text


def _numbers(interval: Interval) -> tuple[float, float, float]:
    """Return value, low and high."""
    assert interval.value is not None
    assert interval.low is not None
    assert interval.high is not None
    return interval.value, interval.low, interval.high


def _plain(axes: "Axes") -> None:
    axes.tick_params(which="both", length=0, labelbottom=False)
    axes.spines[:].set_visible(False)
