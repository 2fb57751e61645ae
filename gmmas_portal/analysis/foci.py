"""Separate parts of a mask: foci. Two voxels are of one focus if they touch by a face, an edge or a corner (26 neighbours)."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gmmas_portal.analysis.fact_ids import SMALLEST_ML


def count_foci(mask: NDArray[np.bool_], *, voxel_ml: float) -> int:
    """Return the number of foci of at least SMALLEST_ML."""
    _, sizes = _label(mask)
    return int(np.count_nonzero(sizes * voxel_ml >= SMALLEST_ML - 1e-9))


def largest_focus(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the largest focus; an empty mask where there is none."""
    numbered, sizes = _label(mask)
    if not sizes.size:
        return np.zeros_like(mask)
    largest: NDArray[np.bool_] = numbered == 1 + int(np.argmax(sizes))
    return largest


def _label(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Return the number of each voxel's focus from 1, and the voxels of each focus."""
    numbered, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return numbered, np.bincount(numbered.ravel(), minlength=count + 1)[1:]
