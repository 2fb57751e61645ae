"""The frame in which a mask is measured: where its voxels lie, how large the brain is, where its middle and the average brain lie.

Small and without voxels, so that it is kept beside a record, and a mask that a clinician corrected months later is measured as the first.

    d(p) = n . p + c        distance in mm of a point p (RAS+) to the right of the mid-sagittal plane, |n| = 1

The plane is where x is 0 in the symmetric average brain, once that is laid over the patient's (gmmas_portal.analysis.atlas_registration);
where that failed, the plane at right angles to the axis from left to right through the middle of the brain.
"""

from typing import Self

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gmmas_schema.base import FrozenModel

Matrix = tuple[tuple[float, float, float, float], ...]

_EDGE_PERCENT = 0.5
"""Of the brain's voxels that may lie beyond each side: stray voxels must not move the middle."""


class MeasurementFrame(FrozenModel):
    """Where and against what a mask is measured.

    Attributes:
        shape: voxels of the case's files.
        affine: 4x4, voxel to millimetres in RAS+.
        brain_ml: what is not background, holes filled.
        to_mni: 4x4, millimetres in RAS+ to millimetres in MNI space; None where the brain could not be laid over the atlas.
        midplane: n and c of the module's equation.
    """

    shape: tuple[int, int, int]
    affine: Matrix = Field(min_length=4, max_length=4)
    brain_ml: float = Field(ge=0)
    to_mni: Matrix | None = Field(default=None, min_length=4, max_length=4)
    midplane: tuple[float, float, float, float]

    @classmethod
    def around(cls, brain: NDArray[np.bool_], affine: NDArray[np.float64], *, to_mni: NDArray[np.float64] | None) -> Self:
        """Return the frame of a case.

        Args:
            brain: (I, J, K), not empty.
            affine: 4x4, voxel to millimetres in RAS+.
            to_mni: 4x4 from there to MNI space, or None.
        """
        voxel_ml = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
        i, j, k = brain.shape
        return cls(
            shape=(i, j, k),
            affine=_rows(affine),
            brain_ml=int(np.count_nonzero(brain)) * voxel_ml,
            to_mni=None if to_mni is None else _rows(to_mni),
            midplane=_middle_of_brain(brain, affine) if to_mni is None else _middle_of_atlas(to_mni),
        )

    @property
    def affine_array(self) -> NDArray[np.float64]:
        """Return the affine as an array."""
        return np.array(self.affine, dtype=np.float64)

    @property
    def voxel_ml(self) -> float:
        """Return the volume of a voxel."""
        return abs(float(np.linalg.det(self.affine_array[:3, :3]))) / 1000

    @property
    def superior_axis(self) -> int:
        """Return the axis of the voxel grid that runs nearest to from below to above."""
        return int(np.flatnonzero(nib.orientations.io_orientation(self.affine_array)[:, 0] == 2)[0])

    def points_mm(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the centres (N, 3) of a mask's voxels in RAS+."""
        affine = self.affine_array
        points: NDArray[np.float64] = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
        return points

    def rightward_mm(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how far points (N, 3) lie to the right of the mid-sagittal plane; negative to the left."""
        distance: NDArray[np.float64] = points @ np.array(self.midplane[:3]) + self.midplane[3]
        return distance

    def mni_mm(self, points: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return points (N, 3) in MNI space; None where the atlas does not lie on this brain."""
        if self.to_mni is None:
            return None
        matrix = np.array(self.to_mni, dtype=np.float64)
        placed: NDArray[np.float64] = points @ matrix[:3, :3].T + matrix[:3, 3]
        return placed


def _rows(matrix: NDArray[np.float64]) -> Matrix:
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in matrix)


def _middle_of_atlas(to_mni: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return the plane of the points whose x in MNI space is 0."""
    x, y, z, offset = (to_mni[0] / np.linalg.norm(to_mni[0, :3])).tolist()
    return x, y, z, offset


def _middle_of_brain(brain: NDArray[np.bool_], affine: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """Return the plane midway between the brain's left and right edges."""
    x_mm = (np.argwhere(brain) @ affine[:3, :3].T)[:, 0] + affine[0, 3]
    low, high = np.percentile(x_mm, (_EDGE_PERCENT, 100 - _EDGE_PERCENT))
    return 1.0, 0.0, 0.0, -float(low + high) / 2
