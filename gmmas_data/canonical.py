"""A brain on one small common grid: the box around it, cut into the same number of cells for everybody, axes in RAS+.

No registration: the box takes out position and size, the affine takes out orientation. That is coarse (a centimetre), free, and the same
for every sequence, which is what the audit needs: tissue priors (gmmas_data.sequence_identity) and fingerprints (gmmas_data.fingerprints).

Legend: X Y Z file voxels in RAS+ order, U V W cells of the common grid.
"""

from dataclasses import dataclass
from functools import lru_cache

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gmmas_data.phantom.atlas import load_atlas

CELLS = (36, 44, 36)
"""About 4 mm for an adult's brain."""

_MARGIN = 0.002
"""Share of the brain that may lie beyond each side of the box: residual skull and stray voxels must not stretch it."""

_FULL = 0.6
"""A cell counts where the brain fills this much of it."""


@dataclass(frozen=True, eq=False)
class BrainBox:
    """Where the common grid lies in one volume.

    Attributes:
        mask_XYZ: the brain, without holes.
        orientation: nibabel's transform from the file's axes to RAS+.
        matrices: one averaging matrix (cells, voxels) per axis.
        filled_UVW: share of each cell that is brain.
    """

    mask_XYZ: NDArray[np.bool_]
    orientation: NDArray[np.float64]
    matrices: tuple[NDArray[np.float32], ...]
    filled_UVW: NDArray[np.float32]

    @property
    def inside_UVW(self) -> NDArray[np.bool_]:  # noqa: N802
        """Cells that are brain."""
        full: NDArray[np.bool_] = self.filled_UVW > _FULL
        return full

    def average(self, volume: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean over the brain in each cell of a volume in the file's own axes; 0 where the cell is no brain."""
        turned = nib.orientations.apply_orientation(volume, self.orientation)
        sums = _apply(self.matrices, np.where(self.mask_XYZ, turned, 0).astype(np.float32))
        mean: NDArray[np.float32] = np.where(self.inside_UVW, sums / np.maximum(self.filled_UVW, 1e-6), 0).astype(np.float32)
        return mean


@dataclass(frozen=True, eq=False)
class TissuePriors:
    """Share of each tissue in the cells of an average brain (ICBM152)."""

    csf_UVW: NDArray[np.float32]
    grey_UVW: NDArray[np.float32]
    white_UVW: NDArray[np.float32]
    inside_UVW: NDArray[np.bool_]


def place_box(mask: NDArray[np.bool_], affine: NDArray[np.float64], *, cells: tuple[int, int, int] = CELLS) -> BrainBox:
    """Return the common grid around a brain.

    Args:
        mask: the brain in the file's own axes; not empty.
        affine: 4x4, voxel to millimetres in RAS+.
        cells: of the grid.
    """
    orientation = nib.orientations.io_orientation(affine)
    mask_XYZ = ndimage.binary_fill_holes(nib.orientations.apply_orientation(mask, orientation))
    matrices = []
    for axis, count in enumerate(cells):
        inside = mask_XYZ.sum(axis=tuple(other for other in range(3) if other != axis))
        share = np.cumsum(inside) / inside.sum()
        before = share - inside / inside.sum()
        kept = np.flatnonzero((share > _MARGIN) & (before < 1 - _MARGIN))
        low, high = (int(kept[0]), int(kept[-1]) + 1) if kept.size else (0, mask_XYZ.shape[axis])
        matrices.append(_averaging(low, high, mask_XYZ.shape[axis], count))
    return BrainBox(mask_XYZ, orientation, tuple(matrices), _apply(tuple(matrices), mask_XYZ.astype(np.float32)))


@lru_cache(maxsize=1)
def tissue_priors() -> TissuePriors:
    """Return the tissue shares of the average brain on the common grid. Takes seconds, once."""
    atlas = load_atlas(2)
    inside = atlas.depth_mm_XYZ > 0
    box = place_box(inside, np.diag([2.0, 2.0, 2.0, 1.0]))
    csf = np.clip(1 - atlas.grey_XYZ - atlas.white_XYZ, 0, 1)
    return TissuePriors(box.average(csf), box.average(atlas.grey_XYZ), box.average(atlas.white_XYZ), box.inside_UVW)


def _averaging(low: int, high: int, voxels: int, cells: int) -> NDArray[np.float32]:
    """Return the matrix that averages voxels [low, high) over equal cells."""
    edges = np.linspace(low, high, cells + 1)
    places = np.arange(voxels)
    overlap = np.minimum(edges[1:, None], places + 1) - np.maximum(edges[:-1, None], places)
    matrix: NDArray[np.float32] = (np.clip(overlap, 0, None) / ((high - low) / cells)).astype(np.float32)
    return matrix


def _apply(matrices: tuple[NDArray[np.float32], ...], volume: NDArray[np.float32]) -> NDArray[np.float32]:
    for axis, matrix in enumerate(matrices):
        volume = np.moveaxis(np.tensordot(matrix, volume, axes=(1, axis)), 0, axis)
    return volume
