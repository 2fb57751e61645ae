"""One picture of a case for the audit's report: an axial slice of every sequence, with the segmentation's outlines.

Seen from below, as radiologists look: the patient's right is on the left. The slice is that with the largest area of tumour, or the middle
of the brain. Grey values run from the 1st to the 99.5th percentile inside the brain.
"""

import io
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gmmas_data.quality import LoadedCase
from gmmas_data.regions import regions_of
from gmmas_data.sequence_identity import Verdict
from gmmas_schema.audit import CaseAudit
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Region

_COLOURS = {Region.WT: "#f2c14e", Region.TC: "#4ea8de", Region.ET: "#e5383b"}
_VERDICT_COLOURS = {Verdict.AGREES: "#9be39b", Verdict.DISAGREES: "#ff6b6b", Verdict.UNKNOWN: "#ffd27f"}
_PANEL_INCHES, _DPI = 1.9, 80


def draw_case(loaded: LoadedCase, audit: CaseAudit) -> bytes:
    """Return the picture as PNG."""
    orientation = nib.orientations.io_orientation(loaded.affine)

    def turned(volume: NDArray[Any]) -> NDArray[Any]:
        ras: NDArray[Any] = nib.orientations.apply_orientation(volume, orientation)
        return ras

    labels = None if loaded.segmentation is None else turned(loaded.segmentation)
    brain = np.logical_or.reduce([turned(mask) for mask in loaded.brains.values()])
    area = (brain if labels is None else labels > 0).sum(axis=(0, 1))
    level = int(np.argmax(area))
    rows, columns = (np.flatnonzero(brain.any(axis=axes)) for axes in ((1, 2), (0, 2)))
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, level]
    spacing = np.linalg.norm(loaded.affine[:3, :3], axis=0)[np.argsort(orientation[:, 0])]
    figure = Figure(figsize=(_PANEL_INCHES * len(MODALITIES), _PANEL_INCHES * 1.28), dpi=_DPI, facecolor="black")
    FigureCanvasAgg(figure)
    for place, modality in enumerate(MODALITIES):
        axes = figure.add_axes((place / len(MODALITIES), 0, 1 / len(MODALITIES), 0.88))
        axes.set_axis_off()
        if modality not in loaded.images:
            axes.text(0.5, 0.5, "absent", color="#888888", ha="center", va="center", fontsize=9)
            axes.set_title(modality, color="#888888", fontsize=9)
            continue
        volume = turned(loaded.images[modality])
        low, high = np.percentile(volume[turned(loaded.brains[modality])], [1, 99.5])
        # Columns to the right are the patient's left: x runs from left to right, so it is turned round.
        shown = np.flip(volume[window], 0).T
        axes.imshow(shown, cmap="gray", vmin=low, vmax=high, origin="lower", aspect=float(spacing[1] / spacing[0]), interpolation="nearest")
        if labels is not None:
            for region, mask in zip(REGIONS, regions_of(labels), strict=True):
                outline = np.flip(mask[window], 0).T
                if region in loaded.case.known_regions and outline.any():
                    axes.contour(outline, levels=[0.5], colors=[_COLOURS[region]], linewidths=0.9)
        scan = audit.scans[modality]
        axes.set_title(f"{modality}: {scan.verdict}", color=_VERDICT_COLOURS[Verdict(scan.verdict)], fontsize=8)
        axes.text(0.02, 0.98, "R", color="white", fontsize=8, va="top", transform=axes.transAxes)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor="black")
    return stream.getvalue()
