"""Pictures: the contact sheet of a cohort, the overview of one prediction, and learning curves.

Slices are shown in radiological convention: the patient's right is on the left of the picture, anterior or superior is up. Arrays are
RAS+ (X right, Y anterior, Z superior); label maps hold 0 background, 1 necrosis, 2 oedema, 3 enhancing tumour. The three colours are
from the Okabe-Ito palette, which readers with a colour vision deficiency can tell apart.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gmmas_schema.findings import Findings
from gmmas_schema.vocabulary import (
    ENHANCING,
    HEAD_NAMES,
    MARKER_NAMES,
    MARKERS,
    MODALITIES,
    NECROSIS,
    OEDEMA,
    POSITIVE,
    REGIONS,
    SUBTYPES,
    Modality,
    Region,
    Task,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL_COLOURS = {NECROSIS: "#D55E00", OEDEMA: "#56B4E9", ENHANCING: "#F0E442"}
LABEL_NAMES = {NECROSIS: "necrotic or non-enhancing core", OEDEMA: "oedema", ENHANCING: "enhancing tumour"}
MODALITY_NAMES = {Modality.T1: "T1", Modality.T1CE: "T1ce", Modality.T2: "T2", Modality.FLAIR: "FLAIR"}
_AXIS_NAMES = ("sagittal", "coronal", "axial")
_BACKGROUND, _TEXT = "#101014", "#E8E8E8"
_OPACITY = 0.5
_DPI = 130


@dataclass(frozen=True)
class SheetRow:
    """One case of a contact sheet.

    Attributes:
        title: what the row is called, for instance the hospital.
        images: volumes (X, Y, Z) of the sequences that are there.
        prediction: label map (X, Y, Z).
        truth: label map, or None where the case has no segmentation.
        dice: Dice per region of the whole case.
        spacing_mm: voxel size.
    """

    title: str
    images: Mapping[Modality, np.ndarray]
    prediction: np.ndarray
    truth: np.ndarray | None = None
    dice: Mapping[Region, float] = field(default_factory=dict)
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)


def contact_sheet(rows: Sequence[SheetRow], path: Path) -> None:
    """Write a PNG with one row per case: FLAIR, T1ce, truth and prediction on the axial slice with most tumour."""
    figure = _figure(width=9.2, height=3.1 * len(rows) + 0.5)
    for number, row in enumerate(map(_cropped_row, rows)):
        place = largest_slice(row.prediction if row.truth is None or not row.truth.any() else row.truth, axis=2)
        back = background_of(row.images)
        panels = [
            (MODALITY_NAMES[Modality.FLAIR], row.images.get(Modality.FLAIR), None),
            (MODALITY_NAMES[Modality.T1CE], row.images.get(Modality.T1CE), None),
            ("truth", row.images[back] if row.truth is not None else None, row.truth),
            ("prediction", row.images[back], row.prediction),
        ]
        for column, (name, image, labels) in enumerate(panels):
            axes = figure.add_subplot(len(rows), 4, 4 * number + column + 1)
            title = f"{name}\nDice {_dice_text(row.dice)}" if name == "prediction" and row.dice else name
            _draw(axes, image, labels, axis=2, place=place, spacing_mm=row.spacing_mm, title=title, shape=row.prediction.shape)
            if column == 0:
                axes.set_ylabel(row.title, color=_TEXT, fontsize=9)
    _legend(figure)
    _save(figure, path)


def overview(
    path: Path,
    *,
    images: Mapping[Modality, np.ndarray],
    labels: np.ndarray,
    spacing_mm: Sequence[float],
    findings: Findings,
    uncertainty: np.ndarray | None = None,
) -> None:
    """Write a PNG of one prediction: the sequences used, the segmentation in three planes, and the findings in words.

    Args:
        path: file to write.
        images: volumes (X, Y, Z) of the sequences that were used.
        labels: label map (X, Y, Z).
        spacing_mm: voxel size.
        findings: the words.
        uncertainty: volume (X, Y, Z) in [0, 1], drawn beside the sequences; None leaves it out.
    """
    columns = 4 if uncertainty is None else 5
    figure = _figure(width=2.875 * columns, height=6.4)
    box = brain_box(images)
    images, labels = {m: image[box] for m, image in images.items()}, labels[box]
    common: dict[str, Any] = {"spacing_mm": spacing_mm, "shape": labels.shape}
    place = largest_slice(labels, axis=2)
    for column, modality in enumerate(MODALITIES):
        axes = figure.add_subplot(2, columns, column + 1)
        _draw(axes, images.get(modality), None, axis=2, place=place, title=MODALITY_NAMES[modality], **common)
    back = images[background_of(images)]
    if uncertainty is not None:
        axes = figure.add_subplot(2, columns, columns)
        _draw(axes, back, None, axis=2, place=place, title="uncertainty", **common)
        _overlay_uncertainty(axes, uncertainty[box], axis=2, place=place, spacing_mm=spacing_mm)
    for column, axis in enumerate((2, 1, 0)):
        axes = figure.add_subplot(2, columns, columns + 1 + column)
        _draw(axes, back, labels, axis=axis, place=largest_slice(labels, axis=axis), title=_AXIS_NAMES[axis], **common)
    words = figure.add_subplot(2, columns, columns + 4)
    words.axis("off")
    words.text(0.0, 1.0, _findings_text(findings), color=_TEXT, fontsize=9, va="top", family="monospace", linespacing=1.35)
    _legend(figure)
    _save(figure, path)


def learning_curves(panels: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]], path: Path, *, best: int | None = None) -> None:
    """Write a PNG of curves over rounds.

    Args:
        panels: per panel title the curves by name, each a sequence of (round, value).
        path: file to write.
        best: a round to mark in every panel as the one of the best model.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(4.3 * len(panels), 3.4), dpi=_DPI, layout="constrained")
    for number, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), number + 1)
        for name, points in curves.items():
            axes.plot(*zip(*points, strict=True), marker="o", markersize=2.5, linewidth=1.4, label=name)
        if best is not None:
            axes.axvline(best, color="#888888", linestyle="--", linewidth=1, label="best model", zorder=0)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        if curves:
            axes.legend(fontsize=7, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def largest_slice(labels: np.ndarray, *, axis: int) -> int:
    """Return the slice along `axis` with most labelled voxels; the middle one where there is none."""
    area = np.count_nonzero(labels, axis=tuple(a for a in range(3) if a != axis))
    return int(area.argmax()) if area.any() else labels.shape[axis] // 2


def background_of(images: Mapping[Modality, np.ndarray]) -> Modality:
    """Return the sequence on which tumours show best among those that are there."""
    return next(m for m in (Modality.FLAIR, Modality.T2, Modality.T1CE, Modality.T1) if m in images)


def brain_box(images: Mapping[Modality, np.ndarray]) -> tuple[slice, slice, slice]:
    """Return the box around all voxels that are not zero in some sequence, one voxel larger on every side."""
    inside = np.any([image != 0 for image in images.values()], axis=0)
    edges = []
    for axis in range(3):
        occupied = np.flatnonzero(inside.any(axis=tuple(a for a in range(3) if a != axis)))
        edges.append(slice(max(0, int(occupied[0]) - 1), int(occupied[-1]) + 2) if len(occupied) else slice(None))
    return edges[0], edges[1], edges[2]


def _cropped_row(row: SheetRow) -> SheetRow:
    """Return the row cut to the brain."""
    box = brain_box(row.images)
    truth = row.truth[box] if row.truth is not None else None
    return replace(row, images={m: image[box] for m, image in row.images.items()}, truth=truth, prediction=row.prediction[box])


def _figure(*, width: float, height: float) -> "Figure":
    # Figure without pyplot: no global state, no display, safe in threads.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor=_BACKGROUND)


def _save(figure: "Figure", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, facecolor=_BACKGROUND)


def _plane(volume: np.ndarray, *, axis: int, place: int) -> np.ndarray:
    """Return a slice as rows from bottom to top, columns from the picture's left to right."""
    plane: np.ndarray = np.take(volume, place, axis=axis).T
    return plane[:, ::-1] if axis != 0 else plane


def _draw(
    axes: "Axes",
    image: np.ndarray | None,
    labels: np.ndarray | None,
    *,
    axis: int,
    place: int,
    spacing_mm: Sequence[float],
    title: str,
    shape: tuple[int, ...],
) -> None:
    """Draw one slice, with the labels over it if there are any; without an image an empty panel of the same shape."""
    from matplotlib.colors import BoundaryNorm, ListedColormap

    axes.set_title(title, color=_TEXT, fontsize=9, pad=3)
    axes.set(xticks=[], yticks=[], facecolor="black")
    for spine in axes.spines.values():
        spine.set_visible(False)
    across, up = [a for a in range(3) if a != axis]
    style: dict[str, Any] = {"origin": "lower", "interpolation": "nearest", "aspect": spacing_mm[up] / spacing_mm[across]}
    if image is None:
        axes.imshow(np.zeros((shape[up], shape[across])), cmap="gray", vmin=0, vmax=1, **style)
        axes.text(0.5, 0.5, "not available", color="#888888", ha="center", va="center", transform=axes.transAxes, fontsize=9)
        return
    inside = image[image != 0]
    low, high = np.percentile(inside, (1, 99.5)) if inside.size else (0.0, 1.0)
    shown = np.where(image == 0, low, image)
    axes.imshow(_plane(shown, axis=axis, place=place), cmap="gray", vmin=low, vmax=max(high, low + 1e-6), **style)
    if labels is not None:
        plane = _plane(labels, axis=axis, place=place)
        colours = ListedColormap(list(LABEL_COLOURS.values()))
        norm = BoundaryNorm([value - 0.5 for value in (*LABEL_COLOURS, ENHANCING + 1)], colours.N)
        axes.imshow(np.ma.masked_equal(plane, 0), cmap=colours, norm=norm, alpha=_OPACITY, **style)
    if axis != 0:
        axes.text(0.02, 0.03, "R", color=_TEXT, fontsize=7, transform=axes.transAxes)


def _overlay_uncertainty(axes: "Axes", uncertainty: np.ndarray, *, axis: int, place: int, spacing_mm: Sequence[float]) -> None:
    """Draw a volume in [0, 1] over a slice; the more certain a voxel, the more of the image shows through."""
    plane = _plane(uncertainty, axis=axis, place=place)
    across, up = [a for a in range(3) if a != axis]
    drawn = axes.imshow(
        plane,
        cmap="inferno",
        vmin=0,
        vmax=1,
        alpha=np.clip(2 * plane, 0, 0.9),
        origin="lower",
        interpolation="nearest",
        aspect=spacing_mm[up] / spacing_mm[across],
    )
    # Inside the panel, which keeps its place among the others.
    bar = axes.figure.colorbar(drawn, cax=axes.inset_axes((0.93, 0.06, 0.025, 0.3)), ticks=(0, 0.5, 1))
    bar.ax.yaxis.set_ticks_position("left")
    bar.ax.tick_params(colors=_TEXT, labelsize=7, length=2)
    bar.outline.set_visible(False)


def _legend(figure: "Figure") -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=LABEL_COLOURS[value], label=LABEL_NAMES[value]) for value in LABEL_COLOURS]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, labelcolor=_TEXT, fontsize=8)


def _with_spread(findings: Findings, task: Task) -> str:
    """Return a probability, and its spread where that is known."""
    spread = "" if findings.uncertainty is None else f" ± {findings.uncertainty.probability_std[task]:.2f}"
    return f"{findings.probability[task]:.2f}{spread}"


def _dice_text(dice: Mapping[Region, float]) -> str:
    return "  ".join(f"{region.upper()} {dice[region]:.2f}" for region in REGIONS if region in dice)


def _findings_text(findings: Findings) -> str:
    """Return the findings as short lines."""
    lines = [f"{region.upper()} volume {findings.volume_ml[region]:15.1f} ml" for region in REGIONS if region in findings.volume_ml]
    lines += [
        "",
        *(f"{f'P({POSITIVE[task]})':<19} {_with_spread(findings, task)}" for task in MARKERS if task in findings.probability),
    ]
    if findings.abstained:
        lines.append("left open: " + ", ".join(MARKER_NAMES[task] for task in findings.abstained))
    if findings.untrained:
        lines.append("never trained: " + ", ".join(HEAD_NAMES[head] for head in findings.untrained))
    lines += ["", *(f"{subtype:<19} {findings.subtype[subtype]:.2f}" for subtype in SUBTYPES if subtype in findings.subtype)]
    if findings.uncertainty is not None:
        spreads = findings.uncertainty.region_std.items()
        lines += ["", *(f"spread in {region.upper()}        {spread:.2f}" for region, spread in spreads)]
    lines += ["", *findings.notice.replace(". ", ".\n").splitlines()]
    return "\n".join(lines)
