"""Intensity normalisation: z-score inside the brain, per modality, from that modality alone.

    z = (v - mean_B v) / std_B v   for v in B, clipped to +-CLIP;   z = 0 outside B

B is the foreground of the one image: scans are skull-stripped, so it is what differs from the background. Nothing of another sequence
enters, so a site's images mean the same whichever sequences it holds. One z-score an image is what nnU-Net does to MRI (Isensee et al.,
Nature Methods 2021).
"""

import numpy as np
from numpy.typing import NDArray

from gmmas_data.volumes import Volume
from gmmas_schema.errors import DataError, ReasonCode

CLIP = 5.0
"""Largest absolute z-score kept; what exceeds it is vessel, artefact or residual skull."""

MINIMUM_FOREGROUND_VOXELS = 64
"""An image with fewer voxels above the background holds no brain."""

_RESIDUE = 1e-3
"""Share of the 99th percentile below which a voxel is interpolation residue of the background, not tissue."""


def foreground(values_XYZ: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return where an image shows anything but background.

    Background is 0, or the value of all eight corners where they agree (shifted intensities); differences of less than a thousandth
    of the brightest tissue belong to it, because interpolation leaves such residue around the brain.
    """
    corners = values_XYZ[np.ix_((0, -1), (0, -1), (0, -1))]
    background = corners.flat[0] if (corners == corners.flat[0]).all() else np.float32(0)
    distance = np.abs(values_XYZ - background)
    apart = distance[distance > 0]
    if not apart.size:
        return np.zeros(values_XYZ.shape, dtype=np.bool_)
    rank = int(0.99 * (apart.size - 1))
    mask: NDArray[np.bool_] = distance > _RESIDUE * np.partition(apart, rank)[rank]
    return mask


def brain_of(volume: Volume) -> NDArray[np.bool_]:
    """Return the foreground of a scan.

    Raises:
        DataError: the scan is constant, empty or holds next to nothing.
    """
    mask = foreground(volume.values_XYZ)
    inside = volume.values_XYZ[mask]
    if inside.size < MINIMUM_FOREGROUND_VOXELS or inside.min() == inside.max():
        raise DataError(
            "a scan shows nothing",
            where=volume.path,
            got=f"{inside.size} voxels above the background" + (f", all {inside.flat[0]:g}" if inside.size else ""),
            expected=f"at least {MINIMUM_FOREGROUND_VOXELS} voxels of differing intensity",
            remedy="export the sequence again, or remove the file: a missing sequence is allowed",
            code=ReasonCode.DATA_EMPTY,
        )
    return mask


def normalise(values_XYZ: NDArray[np.float32], mask_XYZ: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return z-scores inside the mask, clipped to +-CLIP, and 0 outside."""
    inside = values_XYZ[mask_XYZ].astype(np.float64)
    inside -= inside.mean()
    inside /= inside.std()
    scores = np.zeros(values_XYZ.shape, dtype=np.float32)
    scores[mask_XYZ] = np.clip(inside, -CLIP, CLIP)
    return scores
