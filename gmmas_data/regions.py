"""Between label maps (one value per voxel) and nested regions (one binary volume per region)."""

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.vocabulary import ENHANCING, NECROSIS, OEDEMA, REGION_MEMBERS, REGIONS, SEGMENTATION_VALUES, Layout, Region


def regions_of(labels_XYZ: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the regions (R, X, Y, Z) of a label map in our own values."""
    return np.stack([np.isin(labels_XYZ, sorted(REGION_MEMBERS[region])) for region in REGIONS])


def weights_of(known: Collection[Region], shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Return what the voxels of each region (R, X, Y, Z) count: 0 for a region that a label map does not tell; None if it tells all."""
    if set(known) == set(REGIONS):
        return None
    weight_RXYZ = np.zeros((len(REGIONS), *shape), dtype=np.float32)
    weight_RXYZ[[region in known for region in REGIONS]] = 1
    return weight_RXYZ


def labels_of(regions_RXYZ: NDArray[np.bool_], *, layout: Layout) -> NDArray[np.uint8]:
    """Return the label map of binary regions in the file values of a layout; a region outside its parent is dropped."""
    value = {ours: theirs for theirs, ours in SEGMENTATION_VALUES[layout].items()}
    whole, core, enhancing = np.logical_and.accumulate(regions_RXYZ.astype(np.bool_), axis=0)
    labels = np.where(whole, np.uint8(value[OEDEMA]), np.uint8(0))
    labels[core] = value[NECROSIS]
    labels[enhancing] = value[ENHANCING]
    return labels
