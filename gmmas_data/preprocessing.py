"""From a case on disk to a sample on the network's grid, and back to the case's own voxels.

1. Read and check (gmmas_data.quality).
2. Z-score every scan inside its own brain (gmmas_data.normalisation).
3. Place the grid: nearest RAS+ axes, centred on the box around the brains of the scans there are (gmmas_data.resampling).
4. Resample the scans with an anti-aliasing filter. Voxels outside the brain have no say: z = W(z m) / W(m) where the smoothed brain
   mask W(m) is at least 1/2, and 0 elsewhere (normalised convolution, Knutsson and Westin, CVPR 1993).
5. Average each nested binary region over the grid voxel and keep it where it fills at least half; nesting survives that.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gmmas_data.cases import Case
from gmmas_data.normalisation import normalise
from gmmas_data.quality import LoadedCase, load_case
from gmmas_data.regions import regions_of, weights_of
from gmmas_data.resampling import Placement, place_grid, restore
from gmmas_data.samples import Sample, marker_value
from gmmas_schema.model import GridConfig
from gmmas_schema.vocabulary import MODALITIES

PREPROCESSING_VERSION = 1
"""Raised with any change that changes a sample; it is part of every cache key."""


def preprocess_case(case: Case, grid: GridConfig) -> Sample:
    """Return a case as a sample.

    Image values are rounded to half precision (relative error below 0.0005), so a sample is the same whether it comes from here or
    from the cache.

    Raises:
        DataError: the case does not pass the quality gate.
    """
    loaded = load_case(case)
    placement = place_grid(np.logical_or.reduce(list(loaded.brains.values())), loaded.affine, grid)
    return Sample(
        case_id=case.case_id,
        patient_id=case.patient_id,
        image_MXYZ=_images_on(placement, loaded, grid),
        present_M=np.array([m in loaded.images for m in MODALITIES], dtype=np.bool_),
        regions_RXYZ=_regions_on(placement, loaded),
        idh=marker_value(case.idh),
        codeletion=marker_value(case.codeletion),
        grade=marker_value(case.grade),
        mgmt=marker_value(case.mgmt),
        affine=placement.affine,
        native_affine=loaded.affine,
        native_shape=loaded.shape,
        weight_RXYZ=None if loaded.segmentation is None else weights_of(case.known_regions, grid.shape),
    )


def restore_to_native(volume_CXYZ: NDArray[Any], sample: Sample, *, order: Literal[0, 1] = 1) -> NDArray[np.float32]:
    """Return channels of the grid on the voxels of the case's own files, float32 of shape (C, *sample.native_shape).

    Args:
        volume_CXYZ: channels on the sample's grid, for example probabilities.
        sample: where the grid lies.
        order: 1 interpolates linearly (probabilities), 0 takes the nearest voxel (labels). Outside the grid: 0.
    """
    return restore(volume_CXYZ, affine=sample.affine, native_affine=sample.native_affine, native_shape=sample.native_shape, order=order)


def _images_on(placement: Placement, loaded: LoadedCase, grid: GridConfig) -> NDArray[np.float32]:
    """Return the normalised scans on the grid, zeros for absent ones."""
    image_MXYZ = np.zeros((len(MODALITIES), *grid.shape), dtype=np.float32)
    matrices = placement.smooth()
    for place, modality in enumerate(MODALITIES):
        if modality not in loaded.images:
            continue
        brain = loaded.brains[modality]
        scores = placement.resample(normalise(loaded.images[modality], brain), matrices)
        weight = placement.resample(brain, matrices)
        inside = weight >= 0.5
        image_MXYZ[place, inside] = (scores[inside] / weight[inside]).astype(np.float16)
    return image_MXYZ


def _regions_on(placement: Placement, loaded: LoadedCase) -> NDArray[np.uint8] | None:
    """Return the nested regions on the grid, or None without a segmentation."""
    if loaded.segmentation is None:
        return None
    matrices = placement.area()
    # A hair below one half, so that exactly half full counts in single precision too.
    filled = [placement.resample(region, matrices) >= 0.5 - 1e-5 for region in regions_of(loaded.segmentation)]
    return np.stack(filled).astype(np.uint8)
