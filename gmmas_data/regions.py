"""Between label maps (one value per voxel) and nested regions (one binary volume per region)."""

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.vocabulary import ENHANCING, NECROSIS, OEDEMA, REGION_MEMBERS, REGIONS, SEGMENTATION_VALUES, Layout


def regions_of(labels_XYZ: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return the regions (R, X, Y, Z) of a label map in our own values."""
    return np.stack([np.isin(labels_XYZ, sorted(REGION_MEMBERS[region])) for region in REGIONS])


def labels_of(regions_RXYZ: NDArray[np.bool_], *, layout: Layout) -> NDArray[np.uint8]:
    """Return the label map of binary regions in the file values of a layout; a region outside its parent is dropped."""
    value = {ours: theirs for theirs, ours in SEGMENTATION_VALUES[layout].items()}
    whole, core, enhancing = np.logical_and.accumulate(regions_RXYZ.astype(np.bool_), axis=0)
    labels = np.where(whole, np.uint8(value[OEDEMA]), np.uint8(0))
    labels[core] = value[NECROSIS]
    labels[enhancing] = value[ENHANCING]
    return labels
