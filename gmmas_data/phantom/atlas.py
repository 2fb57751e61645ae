"""The healthy brain all phantoms are bent from: ICBM152 template and tissue maps as packaged with nilearn, so no network is needed.

Fonov et al., "Unbiased average age-appropriate atlases for pediatric studies", NeuroImage 2011. Coordinates are MNI millimetres, RAS+.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import ndimage

from gmmas_data.phantom.fields import Grid, Volume

MNI_NOTICE = (
    "Anatomy derived from the ICBM 2009a nonlinear symmetric template. Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging "
    "Centre, Montreal Neurological Institute, McGill University. Permission to use, copy, modify, and distribute this software and its "
    "documentation for any purpose and without fee is hereby granted, provided that the above copyright notice appear in all copies. "
    "The authors and McGill University make no representations about the suitability of this software for any purpose. It is provided "
    '"as is" without express or implied warranty. The authors are not responsible for any data loss, equipment damage, property loss, '
    "or injury to subjects or patients resulting from the use or misuse of this software package."
)
BOX_LOW_MM, BOX_HIGH_MM = (-82.0, -118.0, -82.0), (82.0, 84.0, 92.0)
"""Field of view of every phantom: the template's brain with room for larger heads."""

SHARPENING = 1.8
"""Exponent on the tissue maps: they average 152 brains, so their cortex is blurred."""


@dataclass(frozen=True)
class Atlas:
    """Template fields on one grid.

    Attributes:
        grid: grid of all volumes below.
        grey_XYZ: share of grey matter, sharpened.
        white_XYZ: share of white matter, sharpened; what remains to 1 inside the brain is CSF.
        residual_XYZ: template T1 (white matter 1) less its three-tissue model: deep nuclei, brain stem.
        depth_mm_XYZ: distance from the brain's surface, positive inside.
        ventricle_XYZ: lateral and third ventricles with a soft edge that reaches a few millimetres into white matter.
    """

    grid: Grid
    grey_XYZ: Volume
    white_XYZ: Volume
    residual_XYZ: Volume
    depth_mm_XYZ: Volume
    ventricle_XYZ: Volume


@lru_cache(maxsize=1)
def load_atlas(resolution_mm: int) -> Atlas:
    """Return the atlas at 1 or 2 mm. Takes seconds, so it is kept, and workers get it from their parent."""
    from nilearn import datasets

    images = [
        load(resolution=resolution_mm)
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_brain_mask,
        )
    ]
    template, grey, white, mask = (np.asarray(image.dataobj, dtype=np.float32) for image in images)
    affine = images[0].affine
    brain = ndimage.binary_fill_holes(mask > 0)
    grid = Grid(brain.shape, float(affine[0, 0]), (float(affine[0, 3]), float(affine[1, 3]), float(affine[2, 3])))

    grey, white = grey / grey.max(), white / white.max()
    shares = np.stack([np.clip(1 - grey - white, 0, 1), grey, white]) ** SHARPENING * brain
    csf, grey, white = (shares / (shares.sum(0) + 1e-6)).astype(np.float32)
    model = 0.25 * csf + 0.68 * grey + white
    scale = float((template * model)[brain].sum() / (template[brain] ** 2).sum())
    residual = np.clip(ndimage.gaussian_filter(template * scale - model, 1 / resolution_mm), -0.25, 0.25) * brain
    inside = ndimage.distance_transform_edt(brain) - ndimage.distance_transform_edt(~brain)
    depth_mm = (inside * resolution_mm).astype(np.float32)
    x, y, _ = grid.axes_mm
    cistern = (np.abs(x) < 10) & (y < -26)  # of the quadrigeminal plate: CSF as deep as the ventricles
    ventricle = ndimage.binary_opening((csf > 0.6) & (depth_mm > 22) & ~cistern)
    soft_ventricle = ndimage.gaussian_filter(ventricle.astype(np.float32), 2.5 / resolution_mm)
    return Atlas(grid, grey, white, residual.astype(np.float32), depth_mm, soft_ventricle)
