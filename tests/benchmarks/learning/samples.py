"""Small samples for tests of the benchmark."""

import math

import numpy as np

from gmmas_data.samples import Sample
from gmmas_schema.vocabulary import MODALITIES

SIDE = 8


def make_sample(number: int, modalities=MODALITIES, *, segmentation: bool = True, enhancing: bool = True) -> Sample:
    rng = np.random.default_rng(number)
    regions_RXYZ = np.zeros((3, SIDE, SIDE, SIDE), np.uint8)
    regions_RXYZ[:, 2:6, 2:6, 2:6] = 1
    if not enhancing:
        regions_RXYZ[2] = 0
    present_M = np.array([m in modalities for m in MODALITIES])
    image_MXYZ = (1 + rng.random((4, SIDE, SIDE, SIDE))).astype(np.float32) * present_M[:, None, None, None]
    affine = np.diag([8.0, 8, 8, 1])
    return Sample(
        case_id=f"c{number}",
        patient_id=f"p{number}",
        image_MXYZ=image_MXYZ,
        present_M=present_M,
        regions_RXYZ=regions_RXYZ if segmentation else None,
        idh=float(number % 2),
        codeletion=math.nan,
        affine=affine,
        native_affine=affine,
        native_shape=(SIDE, SIDE, SIDE),
    )
