"""The picture of a cross-site validation: a panel per metric, a row per model, a column per site.

A cell holds the value, and below it the difference to the first model on the same patients. A difference whose 95 % interval leaves zero
out stands in bold with an arrow. What was not measured is a dash on grey.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from gmmas_schema.validation import MatrixRow, ValidationMatrix
from gmmas_schema.vocabulary import MARKER_NAMES, REGIONS
from gmmas_workflows.run_metrics import evaluation_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

PICTURE: Final = "matrix.png"
METRICS: Final = {f"dice_{r}": f"Dice {r.upper()}" for r in REGIONS} | {f"auc_{task}": f"AUC {name}" for task, name in MARKER_NAMES.items()}
MEAN: Final = "mean"
MOST_SITES: Final = 30
FEWEST_SURE: Final = 10
"""Patients behind a difference of AUCs that is called sure."""
_TEXT: Final = "#222222"
_DPI: Final = 130


def draw_matrix(matrix: ValidationMatrix, folder: Path) -> Path:
    """Write matrix.png into a folder and return its path. Of more than MOST_SITES sites only the mean is drawn."""
    # Figure without pyplot: no global state, no display.
    from matplotlib.figure import Figure

    metrics = [name for name in METRICS if any(name in row.metrics for row in matrix.rows)]
    sites = list(matrix.sites) if len(matrix.sites) <= MOST_SITES else []
    columns = [*sites, MEAN]
    width, height = 1.6 + 0.95 * len(columns), 0.75 + 0.5 * len(matrix.rows)
    across = 1 if not metrics else max(1, min(len(metrics), int(14 // width)))
    down = max(1, -(-len(metrics) // across))
    figure = Figure(figsize=(width * across + 0.9, height * down + 0.7), dpi=_DPI, layout="constrained")
    drawn: AxesImage | None = None
    for place, metric in enumerate(metrics):
        axes = figure.add_subplot(down, across, place + 1)
        drawn = _draw(axes, matrix, metric, columns)
        axes.set_title(METRICS[metric], fontsize=9, color=_TEXT)
    if drawn is not None:
        figure.colorbar(drawn, ax=figure.axes, shrink=0.8, aspect=30).ax.tick_params(labelsize=7)
    else:
        figure.text(0.5, 0.5, "no site measured anything", ha="center", va="center", color=_TEXT)
    figure.suptitle(f"{matrix.split} patients; below the value: difference to {matrix.rows[0].model.label}", fontsize=9, color=_TEXT)
    path = folder / PICTURE
    figure.savefig(path)
    return path


def _draw(axes: "Axes", matrix: ValidationMatrix, metric: str, columns: list[str]) -> "AxesImage":
    """Draw one metric."""
    values_MK = np.array([[_value(row, site, metric) for site in columns] for row in matrix.rows], dtype=np.float64)
    image = axes.imshow(np.ma.masked_invalid(values_MK), cmap="cividis", vmin=0, vmax=1, aspect="auto")
    axes.set_facecolor("#EEEEEE")
    for row, model in enumerate(matrix.rows):
        for column, site in enumerate(columns):
            value = values_MK[row, column]
            if np.isnan(value):
                axes.text(column, row, "–", ha="center", va="center", fontsize=8, color="#888888")
                continue
            colour = "white" if value < 0.55 else "black"
            lower, sure = _difference(matrix.rows[0], model, site, metric)
            axes.text(column, row - (0.14 if lower else 0), f"{value:.2f}", ha="center", va="center", fontsize=8, color=colour)
            if lower:
                weight = "bold" if sure else "normal"
                axes.text(column, row + 0.22, lower, ha="center", va="center", fontsize=6.5, color=colour, fontweight=weight)
    axes.set_xticks(range(len(columns)), columns, fontsize=7, rotation=30, ha="right", color=_TEXT)
    axes.set_yticks(range(len(matrix.rows)), [row.model.label for row in matrix.rows], fontsize=7, color=_TEXT)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if MEAN in columns and len(columns) > 1:
        axes.axvline(len(columns) - 1.5, color="white", linewidth=3)
    return image


def _value(row: MatrixRow, site: str, metric: str) -> float:
    found = row.metrics if site == MEAN else evaluation_metrics(row.sites[site]) if site in row.sites else {}
    return found.get(metric, float("nan"))


def _difference(first: MatrixRow, row: MatrixRow, site: str, metric: str) -> tuple[str, bool]:
    """Return the difference to the first model as text, and whether its interval leaves zero out."""
    if row is first:
        return "", False
    if site == MEAN:
        both = metric in first.metrics and metric in row.metrics
        return (f"{row.metrics[metric] - first.metrics[metric]:+.2f}" if both else ""), False
    own = row.sites[site].paired.get(metric)
    if own is None or own.value is None:
        before, after = _value(first, site, metric), _value(row, site, metric)
        return ("" if np.isnan(before) or np.isnan(after) else f"{after - before:+.2f}"), False
    sure = own.low is not None and own.high is not None and (own.low > 0 or own.high < 0)
    # The resamples of a few patients' AUC may all be alike, and say nothing of other patients.
    sure &= own.n >= FEWEST_SURE or not metric.startswith("auc_")
    arrow = ("▲" if own.value > 0 else "▼") if sure else ""
    return f"{own.value:+.2f}{arrow}", sure
