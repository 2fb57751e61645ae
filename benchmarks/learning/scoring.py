"""A trained model on patients of hospitals that never trained, under every subset of the sequences.

A model that reads none of the shown sequences says nothing: no tumour voxel, and a half for every marker. Dice is taken on the network's
grid, with the BraTS convention for empty regions; so is HD95 where it is asked for.

Shapes: R region, X Y Z voxels.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from gmmas_data.samples import Sample
from gmmas_model.metrics import dice, hd95_mm
from gmmas_model.network import GmmasNetwork
from gmmas_model.prediction import Prediction
from gmmas_schema.base import FrozenModel
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Modality, Region, Task
from gmmas_workflows.evaluation import CaseScore, score_samples, subsets, threshold

MOLECULAR = (Task.IDH, Task.CODELETION)

ALL = "+".join(MODALITIES)
"""Name of the subset of all sequences."""


class CaseRow(FrozenModel):
    """One patient under one subset.

    Attributes:
        dice: per region; empty without a segmentation.
        probability: per marker.
        truth: the markers that are known.
        hd95_mm: per region, where surfaces were compared.
    """

    case: str
    dice: dict[Region, float]
    probability: dict[Task, float]
    truth: dict[Task, bool]
    hd95_mm: dict[Region, float] = Field(default_factory=dict)


def score_every_subset(network: GmmasNetwork, samples: Sequence[Sample], *, surfaces: bool = False) -> dict[str, tuple[CaseRow, ...]]:
    """Return rows of all samples, in their order, by the name of the subset shown (`t1+flair`)."""
    return {"+".join(shown): score_shown(network, samples, shown, surfaces=surfaces) for shown in subsets(MODALITIES)}


def score_shown(
    network: GmmasNetwork, samples: Sequence[Sample], shown: Collection[Modality], *, surfaces: bool = False
) -> tuple[CaseRow, ...]:
    """Return rows of all samples, of which the network sees no other sequences than these; `surfaces` compares them by HD95 too."""
    distances: dict[str, dict[Region, float]] = {}

    def compare(sample: Sample, prediction: Prediction) -> None:
        if surfaces:
            distances[sample.case_id] = _distances(threshold(prediction.region_probability()[0].cpu().numpy()), sample)

    scores = score_samples(network, samples, modalities=shown, observe=compare)
    found = {score.case_id: _row(score, distances.get(score.case_id, {})) for score in scores}
    return tuple(found.get(sample.case_id) or _say_nothing(sample, surfaces=surfaces) for sample in samples)


def _distances(predicted_RXYZ: NDArray[np.bool_], sample: Sample) -> dict[Region, float]:
    """Return HD95 per region, nothing without a segmentation."""
    if sample.regions_RXYZ is None:
        return {}
    spacing_mm = float(np.linalg.norm(sample.affine[:3, 0]))
    pairs = zip(REGIONS, predicted_RXYZ, sample.regions_RXYZ.astype(bool), strict=True)
    return {region: round(hd95_mm(predicted, truth, spacing_mm=spacing_mm), 3) for region, predicted, truth in pairs}


def _row(score: CaseScore, distances: Mapping[Region, float]) -> CaseRow:
    return CaseRow(
        case=score.case_id,
        dice={region: round(value, 5) for region, value in score.dice.items()},
        probability={task: round(score.probability[task], 6) for task in MOLECULAR},
        truth={task: score.truth[task] for task in MOLECULAR if task in score.truth},
        hd95_mm={region: value for region, value in distances.items() if region in score.dice},
    )


def _say_nothing(sample: Sample, *, surfaces: bool) -> CaseRow:
    """Return the row of a model that has no encoder for what is shown."""
    masks = () if sample.regions_RXYZ is None else sample.regions_RXYZ.astype(bool)
    truth = {Task.IDH: sample.idh, Task.CODELETION: sample.codeletion}
    nothing_RXYZ = np.zeros(() if sample.regions_RXYZ is None else sample.regions_RXYZ.shape, bool)
    return CaseRow(
        case=sample.case_id,
        dice={region: dice(np.zeros_like(mask), mask) for region, mask in zip(REGIONS, masks, strict=False)},
        probability=dict.fromkeys(truth, 0.5),
        truth={task: bool(value) for task, value in truth.items() if not np.isnan(value)},
        hd95_mm=_distances(nothing_RXYZ, sample) if surfaces else {},
    )
