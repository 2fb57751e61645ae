"""Simple bodies on simple grids, whose measures are known."""

import numpy as np
from numpy.typing import NDArray

from gmmas_portal.analysis.frame import MeasurementFrame
from gmmas_schema.vocabulary import ENHANCING, NECROSIS, OEDEMA

SHAPE = (70, 84, 60)
SPACING_MM = 2.0
MNI_AFFINE = np.array([[2.0, 0, 0, -70], [0, 2.0, 0, -104], [0, 0, 2.0, -46], [0, 0, 0, 1]])
"""A grid whose millimetres are those of MNI space."""


def ball(centre_mm: tuple[float, float, float], radius_mm: float, affine: NDArray[np.float64] = MNI_AFFINE) -> NDArray[np.bool_]:
    """Return the voxels whose centres lie in a ball."""
    points = np.moveaxis(np.indices(SHAPE), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    return np.asarray(np.linalg.norm(points - np.array(centre_mm), axis=-1) <= radius_mm)


def tumour(centre_mm: tuple[float, float, float], affine: NDArray[np.float64] = MNI_AFFINE) -> NDArray[np.uint8]:
    """Return a label map: oedema to 20 mm, enhancing tumour to 12 mm, necrosis to 6 mm."""
    labels = np.zeros(SHAPE, dtype=np.uint8)
    for value, radius_mm in ((OEDEMA, 20.0), (ENHANCING, 12.0), (NECROSIS, 6.0)):
        labels[ball(centre_mm, radius_mm, affine)] = value
    return labels


def frame_of(affine: NDArray[np.float64] = MNI_AFFINE, *, brain_ml: float = 1400.0, in_mni: bool = True) -> MeasurementFrame:
    """Return a frame whose midplane is x = 0; where `in_mni`, its millimetres are MNI millimetres."""
    return MeasurementFrame(
        shape=SHAPE,
        affine=tuple(tuple(row) for row in affine.tolist()),
        brain_ml=brain_ml,
        to_mni=tuple(tuple(row) for row in np.eye(4).tolist()) if in_mni else None,
        midplane=(1.0, 0.0, 0.0, 0.0),
    )
