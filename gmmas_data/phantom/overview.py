"""A picture of made cohorts: a few patients of every hospital, every sequence it holds, and the drawn tumour.

It reads the files, not the generator, so it shows what a reader will see.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gmmas_data.phantom.files import SEPARATOR, SUFFIX
from gmmas_schema.phantom import PhantomSite, PhantomSpec
from gmmas_schema.vocabulary import ENHANCING, MODALITIES, NECROSIS, OEDEMA, SEGMENTATION_VALUES

COLOURS = {NECROSIS: (0.85, 0.20, 0.20, 0.65), OEDEMA: (0.25, 0.75, 0.35, 0.45), ENHANCING: (1.0, 0.85, 0.15, 0.80)}
CELL_INCHES = 1.5


def draw_overview(spec: PhantomSpec, out: Path, path: Path, *, cases_per_site: int = 3) -> None:
    """Write a contact sheet (PNG) of the first cases of every site in `out`: one row a case, one column a sequence, then the truth."""
    rows = [(site, folder) for site in spec.sites for folder in sorted((out / site.name).glob("PH-*"))[:cases_per_site]]
    columns = len(MODALITIES) + 1
    figure = Figure(figsize=(CELL_INCHES * columns, CELL_INCHES * 1.2 * len(rows)), facecolor="black", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for row, (site, folder) in enumerate(rows):
        _draw_case(axes[row], site, folder)
    for column, modality in enumerate(MODALITIES):
        axes[0][column].set_title(modality.upper(), color="white", fontsize=9)
    axes[0][-1].set_title("truth", color="white", fontsize=9)
    figure.savefig(path, dpi=90, facecolor="black", metadata={"Software": None})


def _draw_case(axes: NDArray[np.object_], site: PhantomSite, folder: Path) -> None:
    """Draw one case in the slice where its tumour is largest, or in the middle where nobody drew it."""
    stem = f"{folder.name}{SEPARATOR[site.layout]}"
    labels = _read(folder / f"{stem}seg.nii.gz")
    images = {m: _read(folder / f"{stem}{SUFFIX[site.layout][m]}.nii.gz") for m in site.modalities}
    last = images[site.modalities[-1]]
    assert last is not None, "a made case holds every sequence of its site"
    z = int((labels > 0).sum((0, 1)).argmax()) if labels is not None else last.shape[2] // 2
    for axis, modality in zip(axes, MODALITIES, strict=False):
        _show(axis, images.get(modality), z)
    _show(axes[-1], last, z)
    axes[0].text(0.02, 0.02, folder.name, color="0.8", fontsize=6, transform=axes[0].transAxes)
    if labels is None:
        axes[-1].text(0.5, 0.03, "not labelled", color="0.8", fontsize=7, ha="center", transform=axes[-1].transAxes)
        return
    overlay = np.zeros((*labels.shape[:2], 4))
    for in_file, ours in SEGMENTATION_VALUES[site.layout].items():
        overlay[labels[:, :, z] == in_file] = COLOURS[ours]
    axes[-1].imshow(overlay.transpose(1, 0, 2), origin="lower", interpolation="nearest")


def _read(path: Path) -> NDArray[np.float32] | None:
    """Return a volume in RAS+ order, or None where there is no such file."""
    if not path.is_file():
        return None
    return np.asarray(nib.as_closest_canonical(nib.load(path)).dataobj, dtype=np.float32)


def _show(axis: Axes, volume_XYZ: NDArray[np.float32] | None, z: int) -> None:
    """Show an axial slice, the patient's right on the right side of the picture; an empty cell for a sequence that is not held."""
    axis.set_axis_off()
    if volume_XYZ is None:
        axis.text(0.5, 0.5, "not held", color="0.5", fontsize=7, ha="center", transform=axis.transAxes)
        return
    brightest = float(np.percentile(volume_XYZ[volume_XYZ > 0], 99.5))
    axis.imshow(volume_XYZ[:, :, z].T, cmap="gray", origin="lower", vmin=0, vmax=brightest)
