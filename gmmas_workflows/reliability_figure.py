"""The reliability diagram of a calibrated model (DeGroot and Fienberg, The Statistician 1983; Guo et al., ICML 2017).

A point is a bin of confidence: how sure the answers in it were against how many of them were right, its area the number of patients.
On the diagonal confidence is what it says; below it the model is too sure. A region's voxels share their patient's weight.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from gmmas_schema.calibration import Calibration, HeadCalibration, Reliability, ReliabilityPair
from gmmas_schema.vocabulary import MARKER_NAMES, Region, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REGION_NAMES: Final = {Region.WT: "whole tumour", Region.TC: "tumour core", Region.ET: "enhancing tumour"}
_STYLES: Final = {"before": "#999999", "after": "#0072B2"}
_TEXT = "#222222"
_DPI = 130
_LARGEST_POINT = 120.0


def reliability_diagram(calibration: Calibration, path: Path) -> None:
    """Write a PNG: a column per head, a row for the patients of the fit, and one for the test patients where there are any."""
    # Figure without pyplot: no global state, no display, safe in threads.
    from matplotlib.figure import Figure

    heads = {head: found for head, found in calibration.heads.items() if found.reliability.before.total}
    rows: dict[str, dict[Region | Task, ReliabilityPair | None]] = {"patients of the fit": {h: f.reliability for h, f in heads.items()}}
    if any(found.test is not None for found in heads.values()):
        rows["held-out test patients"] = {head: found.test for head, found in heads.items()}
    figure = Figure(figsize=(2.7 * max(len(heads), 2) + 0.4, 3.2 * len(rows) + 0.7), dpi=_DPI, layout="constrained")
    for number, (name, pairs) in enumerate(rows.items()):
        for column, (head, found) in enumerate(heads.items()):
            axes = figure.add_subplot(len(rows), len(heads), number * len(heads) + column + 1)
            # A marker's bins hold single patients, between which a line would tell of noise.
            line = isinstance(head, Region)
            _draw(axes, pairs[head], _title(head, found) if number == 0 else "", threshold=_threshold(found), line=line)
            if column == 0:
                axes.set_ylabel(f"{name}\nshare of right answers", fontsize=8, color=_TEXT)
            if number == len(rows) - 1:
                axes.set_xlabel("confidence", fontsize=8, color=_TEXT)
    if heads:
        _legend(figure)
    else:
        figure.text(0.5, 0.5, "no patient with a label", ha="center", va="center", color=_TEXT)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw(axes: "Axes", pair: ReliabilityPair | None, title: str, *, threshold: float | None, line: bool) -> None:
    """Draw one head: the diagonal, the threshold below which it is left open, and the points before and after calibration."""
    axes.set_title(title, fontsize=9, color=_TEXT)
    axes.set(xlim=(0.48, 1.02), ylim=(-0.04, 1.04), xticks=[0.5, 0.75, 1.0], yticks=[0, 0.25, 0.5, 0.75, 1.0])
    axes.tick_params(labelsize=7, colors=_TEXT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.plot([0.5, 1], [0.5, 1], color="#BBBBBB", linewidth=1, zorder=1)
    if threshold is not None:
        axes.axvline(threshold, color="#D55E00", linewidth=1, linestyle=":", zorder=1)
    words = []
    for kind, bins in (("before", pair.before), ("after", pair.after)) if pair is not None else ():
        if bins.ece is not None:
            _points(axes, bins, colour=_STYLES[kind], line=line)
            words.append(f"ECE {kind} {bins.ece:.3f}")
    patients = "no patient" if pair is None or not pair.before.total else f"{pair.before.total:.0f} patients"
    axes.text(0.5, 0.02, "\n".join([*words, patients]), fontsize=7, color=_TEXT, va="bottom")


def _points(axes: "Axes", bins: Reliability, *, colour: str, line: bool) -> None:
    count, confidence, correct = (np.array(sums) for sums in (bins.patients, bins.confidence, bins.correct))
    used = count > 1e-6 * bins.total
    x, y, area = confidence[used] / count[used], correct[used] / count[used], count[used] / count.max() * _LARGEST_POINT + 6
    if line:
        axes.plot(x, y, color=colour, linewidth=1, alpha=0.7, zorder=2)
    axes.scatter(x, y, s=area, color=colour, alpha=0.75, linewidths=0, zorder=3)


def _title(head: Region | Task, found: HeadCalibration) -> str:
    fitted = f"T = {found.temperature:.2f}" if found.fitted else "not fitted"
    return f"{REGION_NAMES[head] if isinstance(head, Region) else MARKER_NAMES[head]}\n{fitted}"


def _threshold(found: HeadCalibration) -> float | None:
    return None if found.abstention is None else found.abstention.threshold


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, marker="o", linewidth=1, label=kind) for kind, colour in _STYLES.items()]
    handles.append(Line2D([], [], color="#D55E00", linestyle=":", linewidth=1, label="left open below"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8, labelcolor=_TEXT)
