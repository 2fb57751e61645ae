"""Slices of a case with its outline as PNG, made at the server: for the PDF, and for browsers without WebGL2.

Radiological convention: the patient's right is on the left of axial and coronal slices, which are marked R and L; in sagittal slices
anterior is on the left, marked A and P. Two rows, without and with the outline, so that it never hides what it rests on. Slices are those
with most tumour, or the middle of the brain where there is none.

Shapes: I J K voxels of the case's files, X Y Z the same turned to the nearest of right, anterior and superior.
"""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from gmmas_data.volumes import spacing_of
from gmmas_schema.case_record import NOTICE
from gmmas_schema.vocabulary import Modality
from gmmas_workflows.figures import LABEL_COLOURS, LABEL_NAMES, MODALITY_NAMES, background_of, brain_box, largest_slice

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Plane = Literal["axial", "coronal", "sagittal"]

AXES: Final[Mapping[Plane, int]] = {"axial": 2, "coronal": 1, "sagittal": 0}
"""Axis in RAS+ along which each plane's slices are stacked."""

_MARKS: Final[Mapping[Plane, tuple[str, str, str, str]]] = {
    "axial": ("R", "L", "A", "P"),
    "coronal": ("R", "L", "S", "I"),
    "sagittal": ("A", "P", "S", "I"),
}
"""Left, right, upper and lower edge."""

_BACKGROUND, _TEXT, _DPI, _OPACITY, _ROOM_MM = "#101014", "#E8E8E8", 110, 0.5, 9.0


def draw_montage(
    images: Mapping[Modality, NDArray[np.float32]],
    labels_IJK: NDArray[np.uint8],
    affine: NDArray[np.float64],
    *,
    modality: Modality | None = None,
) -> bytes:
    """Return a PNG of the three planes, without and with the outline.

    Args:
        images: scans (I, J, K) of one grid, at least one.
        labels_IJK: label map in our own values.
        affine: 4x4, voxel to millimetres in RAS+.
        modality: scan to show; by default the one on which tumours show best.
    """
    chosen = modality or background_of(images)
    image, labels, spacing_mm = _framed(images[chosen], labels_IJK, affine)
    figure = _figure(width=9.0, height=6.9)
    for column, plane in enumerate(AXES):
        place = largest_slice(labels, axis=AXES[plane])
        for row, overlay in enumerate((None, labels)):
            axes = figure.add_subplot(2, 3, 3 * row + column + 1)
            _draw(axes, image, overlay, plane=plane, place=place, spacing_mm=spacing_mm)
            if row == 0:
                axes.set_title(f"{plane}, {MODALITY_NAMES[chosen]}", color=_TEXT, fontsize=10, pad=5)
    _legend(figure)
    return _png(figure)


def draw_slice(
    images: Mapping[Modality, NDArray[np.float32]],
    labels_IJK: NDArray[np.uint8],
    affine: NDArray[np.float64],
    *,
    plane: Plane,
    place: float,
    modality: Modality | None = None,
    outline: bool = True,
) -> bytes:
    """Return a PNG of one slice, for leafing through a case without WebGL2.

    Args:
        images: as in draw_montage.
        labels_IJK: as in draw_montage.
        affine: as in draw_montage.
        plane: which way it lies.
        place: in [0, 1] through the brain: from left to right, back to front, below to above.
        modality: as in draw_montage.
        outline: draw the labels.
    """
    chosen = modality or background_of(images)
    image, labels, spacing_mm = _framed(images[chosen], labels_IJK, affine)
    figure = _figure(width=5.0, height=5.2)
    count = image.shape[AXES[plane]]
    axes = figure.add_subplot(1, 1, 1)
    index = min(max(int(place * count), 0), count - 1)
    _draw(axes, image, labels if outline else None, plane=plane, place=index, spacing_mm=spacing_mm)
    axes.set_title(f"{plane}, {MODALITY_NAMES[chosen]}, slice {index + 1} of {count}", color=_TEXT, fontsize=9, pad=5)
    return _png(figure)


def _framed(
    image_IJK: NDArray[np.float32], labels_IJK: NDArray[np.uint8], affine: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.uint8], tuple[float, float, float]]:
    """Return scan and labels with their axes in RAS+ order, cut to the brain with room for marks, and the voxel spacing along the axes."""
    orientation = nib.orientations.io_orientation(affine)
    image, labels = (nib.orientations.apply_orientation(volume, orientation) for volume in (image_IJK, labels_IJK))
    x, y, z = spacing_of(affine)[np.argsort(orientation[:, 0])].tolist()
    box = brain_box({Modality.FLAIR: image})
    room = [(round(_ROOM_MM / mm), round(_ROOM_MM / mm)) for mm in (x, y, z)]
    return np.pad(image[box], room), np.pad(labels[box], room), (x, y, z)


def _figure(*, width: float, height: float) -> "Figure":
    # Figure without pyplot: no global state, no display, safe in threads.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor=_BACKGROUND)


def _draw(
    axes: "Axes",
    image: NDArray[np.float32],
    labels: NDArray[np.uint8] | None,
    *,
    plane: Plane,
    place: int,
    spacing_mm: tuple[float, float, float],
) -> None:
    """Draw one slice, with the labels over it if there are any."""
    from matplotlib.colors import to_rgba

    axis = AXES[plane]
    across, up = [a for a in range(3) if a != axis]
    # All planes are turned: right, and anterior in sagittal slices, to the left of the picture.
    shown = np.take(image, place, axis=axis).T[:, ::-1]
    inside = image[image != 0]
    low, high = (float(v) for v in np.percentile(inside, (1, 99.5))) if inside.size else (0.0, 1.0)
    style: dict[str, Any] = {"origin": "lower", "interpolation": "nearest", "aspect": spacing_mm[up] / spacing_mm[across]}
    axes.imshow(np.where(shown == 0, low, shown), cmap="gray", vmin=low, vmax=max(high, low + 1e-6), **style)
    if labels is not None:
        flat = np.take(labels, place, axis=axis).T[:, ::-1]
        colours = np.zeros((*flat.shape, 4))
        for value, colour in LABEL_COLOURS.items():
            colours[flat == value] = to_rgba(colour, _OPACITY)
        axes.imshow(colours, **style)
    axes.set(xticks=[], yticks=[], facecolor="black")
    for spine in axes.spines.values():
        spine.set_visible(False)
    spots = ((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center"), (0.5, 0.98, "center", "top"), (0.5, 0.02, "center", "bottom"))
    for mark, (x, y, sideways, upwards) in zip(_MARKS[plane], spots, strict=True):
        axes.text(x, y, mark, color=_TEXT, fontsize=9, fontweight="bold", ha=sideways, va=upwards, transform=axes.transAxes)


def _legend(figure: "Figure") -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=LABEL_COLOURS[value], label=LABEL_NAMES[value]) for value in LABEL_COLOURS]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, labelcolor=_TEXT, fontsize=9, title=NOTICE)
    figure.legends[0].get_title().set(color=_TEXT, fontsize=7)


def _png(figure: "Figure") -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor=_BACKGROUND)
    return stream.getvalue()
