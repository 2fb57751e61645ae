"""A trained model on patients of hospitals that never trained, under every subset of the sequences.

A model that reads none of the shown sequences says nothing: no tumour voxel, and a half for every marker. Dice is taken on the network's
grid, with the BraTS convention for empty regions.

Shapes: R region, X Y Z voxels.
"""

from collections.abc import Collection, Sequence

import numpy as np

from benchmarks.learning.cohorts import zero_fill
from gmmas_data.samples import Sample
from gmmas_model.metrics import dice
from gmmas_model.network import GmmasNetwork
from gmmas_schema.base import FrozenModel
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Modality, Region, Task
from gmmas_workflows.evaluation import CaseScore, score_samples, subsets

MOLECULAR = (Task.IDH, Task.CODELETION)

ALL = "+".join(MODALITIES)
"""Name of the subset of all sequences."""


class CaseRow(FrozenModel):
    """One patient under one subset.

    Attributes:
        dice: per region; empty without a segmentation.
        probability: per marker.
        truth: the markers that are known.
    """

    case: str
    dice: dict[Region, float]
    probability: dict[Task, float]
    truth: dict[Task, bool]


def score_every_subset(network: GmmasNetwork, samples: Sequence[Sample], *, zero_filled: bool) -> dict[str, tuple[CaseRow, ...]]:
    """Return rows of all samples, in their order, by the name of the subset shown (`t1+flair`)."""
    return {"+".join(shown): score_shown(network, samples, shown, zero_filled=zero_filled) for shown in subsets(MODALITIES)}


def score_shown(network: GmmasNetwork, samples: Sequence[Sample], shown: Collection[Modality], *, zero_filled: bool) -> tuple[CaseRow, ...]:
    """Return rows of all samples, of which the network sees no other sequences than these."""
    if zero_filled:
        scores = score_samples(network, [zero_fill(sample, shown) for sample in samples])
    else:
        scores = score_samples(network, samples, modalities=shown)
    found = {score.case_id: _row(score) for score in scores}
    return tuple(found.get(sample.case_id) or _say_nothing(sample) for sample in samples)


def _row(score: CaseScore) -> CaseRow:
    return CaseRow(
        case=score.case_id,
        dice={region: round(value, 5) for region, value in score.dice.items()},
        probability={task: round(score.probability[task], 6) for task in MOLECULAR},
        truth={task: score.truth[task] for task in MOLECULAR if task in score.truth},
    )


def _say_nothing(sample: Sample) -> CaseRow:
    """Return the row of a model that has no encoder for what is shown."""
    masks = () if sample.regions_RXYZ is None else sample.regions_RXYZ.astype(bool)
    truth = {Task.IDH: sample.idh, Task.CODELETION: sample.codeletion}
    return CaseRow(
        case=sample.case_id,
        dice={region: dice(np.zeros_like(mask), mask) for region, mask in zip(REGIONS, masks, strict=False)},
        probability=dict.fromkeys(truth, 0.5),
        truth={task: bool(value) for task, value in truth.items() if not np.isnan(value)},
    )
