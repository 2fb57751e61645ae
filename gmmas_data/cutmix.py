"""Tumor-CutMix: a box of one case is exchanged with the same box of another, in image, labels and what the labels count.

    x_a' = x_a (1 - box) + x_b box        x_b' = x_b (1 - box) + x_a box

With a labelled and a pseudo-labelled case this is bidirectional copy-paste (Bai et al., CVPR 2023): each of the two learns in the other's
surroundings. The box lies around the tumour of the first case (GMMAS, arXiv 2501.17758) or anywhere. Only sequences that both cases
have stay, or a paste would carry a sequence's absence. Molecular labels stay with a case only if both have the same, for a box of tumour
from another subtype makes them false.

Shapes: M modalities, R regions, X Y Z voxels.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from gmmas_data.samples import Sample
from gmmas_schema.vocabulary import MARKERS, Task

MARGIN = 2
"""Voxels around the tumour that go along."""

RANDOM_SIDE = (0.25, 0.5)
"""Sides of a random box, as shares of the volume's."""

Box = tuple[slice, slice, slice]


def exchange(first: Sample, second: Sample, box: Box) -> tuple[Sample, Sample] | None:
    """Return both cases with the box exchanged; None where they share no sequence or one has no regions at all."""
    shared_M = first.present_M & second.present_M
    if not shared_M.any() or first.regions_RXYZ is None or second.regions_RXYZ is None:
        return None
    return _paste(first, second, box, shared_M), _paste(second, first, box, shared_M)


def draw_box(sample: Sample, kind: Literal["tumour", "random"], rng: np.random.Generator) -> Box:
    """Return a box around the case's tumour with a margin, or a random one; random too where no tumour is known."""
    shape = sample.image_MXYZ.shape[1:]
    if kind == "tumour" and sample.regions_RXYZ is not None and sample.regions_RXYZ.any():
        where = np.nonzero(sample.regions_RXYZ.any(0))
        bounds = [(max(int(w.min()) - MARGIN, 0), min(int(w.max()) + 1 + MARGIN, n)) for w, n in zip(where, shape, strict=True)]
    else:
        sides = [max(1, round(n * rng.uniform(*RANDOM_SIDE))) for n in shape]
        starts = [int(rng.integers(n - side + 1)) for n, side in zip(shape, sides, strict=True)]
        bounds = [(start, start + side) for start, side in zip(starts, sides, strict=True)]
    x, y, z = (slice(low, high) for low, high in bounds)
    return x, y, z


def _paste(onto: Sample, from_: Sample, box: Box, shared_M: np.ndarray) -> Sample:
    """Return `onto` with the box of `from_`."""
    image_MXYZ = np.where(shared_M[:, None, None, None], onto.image_MXYZ, np.float32(0))
    image_MXYZ[(shared_M, *box)] = from_.image_MXYZ[(shared_M, *box)]
    assert onto.regions_RXYZ is not None
    assert from_.regions_RXYZ is not None
    regions_RXYZ = onto.regions_RXYZ.copy()
    regions_RXYZ[(slice(None), *box)] = from_.regions_RXYZ[(slice(None), *box)]
    weight_RXYZ = _weights(onto)
    weight_RXYZ[(slice(None), *box)] = _weights(from_)[(slice(None), *box)]
    labels = {task: _agreed(onto.marker(task), from_.marker(task)) for task in MARKERS}
    weights: Mapping[Task, float] = {t: min(onto.marker_weight.get(t, 1.0), from_.marker_weight.get(t, 1.0)) for t in MARKERS}
    return replace(
        onto,
        image_MXYZ=image_MXYZ,
        present_M=shared_M,
        regions_RXYZ=regions_RXYZ,
        weight_RXYZ=weight_RXYZ,
        idh=labels[Task.IDH],
        codeletion=labels[Task.CODELETION],
        grade=labels[Task.GRADE],
        mgmt=labels[Task.MGMT],
        marker_weight=weights,
    )


def _weights(sample: Sample) -> np.ndarray:
    """Return a copy of what the voxels of a case count."""
    assert sample.regions_RXYZ is not None
    return np.ones(sample.regions_RXYZ.shape, np.float32) if sample.weight_RXYZ is None else sample.weight_RXYZ.copy()


def _agreed(first: float, second: float) -> float:
    """Return the label that both have, else nan."""
    return first if first == second else math.nan
