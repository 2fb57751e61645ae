"""From a NIfTI grid to DICOM planes and back, voxel for voxel.

NIfTI places voxel (i, j, k) in RAS+, DICOM in LPS+: x and y change their sign. Slices are stacked along k, rows along j, columns along i,
so nothing is resampled. Where i, j, k are left-handed the slices are stacked in the other direction, so that their positions ascend along
the normal of the plane, as readers expect. DICOM has no shear: a grid whose axes are not at right angles is refused, and single-precision
dust in a header is rounded off.
"""

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import DataError, ReasonCode

if TYPE_CHECKING:
    from highdicom import Volume

LARGEST_SHEAR: Final = 1e-3
"""Cosine of the angle between two axes, beyond which they are not at right angles."""


def place_volume(volume_IJK: NDArray[Any], affine: NDArray[np.float64], *, frame_uid: str) -> "Volume":
    """Return voxels (I, J, K) or (I, J, K, S segments) as a highdicom volume of slices, rows, columns.

    Args:
        volume_IJK: voxels.
        affine: 4x4, voxel to millimetres in RAS+.
        frame_uid: frame of reference.

    Raises:
        DataError: the axes are not at right angles.
    """
    from highdicom import Volume

    squared = _at_right_angles(affine)
    slices = volume_IJK.transpose(2, 1, 0, *range(3, volume_IJK.ndim))
    stacked = squared[:, [2, 1, 0, 3]]
    if np.linalg.det(squared[:3, :3]) < 0:
        slices = slices[::-1]
        stacked = stacked.copy()
        stacked[:3, 3] += stacked[:3, 0] * (slices.shape[0] - 1)
        stacked[:3, 0] *= -1
    channels: Any = {"SegmentNumber": list(range(1, volume_IJK.shape[3] + 1))} if volume_IJK.ndim == 4 else None
    return Volume(
        np.ascontiguousarray(slices),
        stacked,
        "PATIENT",
        frame_of_reference_uid=frame_uid,
        channels=channels,
        from_reference_convention="RAS",
    )


def _at_right_angles(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine with its axes exactly at right angles, which they nearly were."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / spacing
    shear = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if shear > LARGEST_SHEAR:
        raise DataError(
            "a grid cannot be written as DICOM",
            got=f"axes whose angles have cosines up to {shear:.3f}",
            expected="axes at right angles",
            remedy="resample the case to a grid without shear before it is analysed",
            code=ReasonCode.DATA_GRID,
        )
    left, _, right = np.linalg.svd(axes)
    squared = affine.copy()
    squared[:3, :3] = (left @ right) * spacing
    return squared
