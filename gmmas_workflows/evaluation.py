"""Accuracy of a network on a cohort: Dice per region, AUC per molecular marker, loss per task, with bootstrap intervals over patients.

Dice follows the BraTS convention: a region that is empty in truth and prediction counts 1, empty in one of them 0. A case counts for
what it is labelled with, as far as the network has a head for it. The AUCs of 1p/19q and grade are those of P(codeleted) and P(high-grade)
over all cases with that label, so they include the IDH decision.

Scores are taken on the network's grid during training (fast) or on the scan's own voxels (what a reader of the segmentation gets).

Shapes: B batch, R region (WT, TC, ET), X Y Z voxels.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from gmmas_data.cases import Case
from gmmas_data.preprocessing import restore_to_native
from gmmas_data.regions import regions_of
from gmmas_data.samples import Sample
from gmmas_data.volumes import read_labels
from gmmas_model.batch import Batch
from gmmas_model.calibration import calibrate_prediction
from gmmas_model.inference import predict_volume
from gmmas_model.losses import multi_task_loss
from gmmas_model.metrics import (
    auc,
    auc_by_resample,
    auc_interval,
    dice,
    mean_interval,
    percentile_interval,
    resample_patients,
)
from gmmas_model.network import GmmasNetwork
from gmmas_model.prediction import Prediction
from gmmas_schema.calibration import Temperatures
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.vocabulary import MARKERS, MODALITIES, REGIONS, SHOWN_BY_T1CE, TASKS, Modality, Region, Split, Task
from gmmas_workflows.batches import restrict

Precision = Literal["auto", "bf16", "fp32"]
Progress = Callable[[int, int], None]
Patch = tuple[int, int, int]
Observe = Callable[[Sample, Prediction], None]
"""Called with each case and its uncalibrated prediction."""

THRESHOLD = 0.5
"""A voxel belongs to a region where it belongs to the parent region and its probability given the parent exceeds this (threshold)."""


@dataclass(frozen=True)
class CaseScore:
    """One case's figures; they stay where the case is.

    Attributes:
        modalities: sequences the network was shown.
        probability: of each marker the network has a head for, as in POSITIVE.
        truth: the markers that are known, whether or not the network has a head for them.
        dice: per region, where the case has a segmentation.
        visible: the regions of `dice` that the case has and the sequences show (SHOWN_BY_T1CE).
        loss: per task the case is labelled for; empty for scores on the scan's own voxels.
    """

    case_id: str
    patient_id: str
    modalities: tuple[Modality, ...]
    probability: Mapping[Task, float]
    truth: Mapping[Task, bool]
    dice: Mapping[Region, float] = field(default_factory=dict)
    visible: frozenset[Region] = frozenset()
    loss: Mapping[Task, float] = field(default_factory=dict)

    def without(self, heads: Collection[Region | Task]) -> "CaseScore":
        """Return the figures without those of some heads, for instance of ones that nobody trained (Weights.untrained)."""
        probability = {task: value for task, value in self.probability.items() if task not in heads}
        dice_of = {region: value for region, value in self.dice.items() if region not in heads}
        return replace(self, probability=probability, dice=dice_of, visible=self.visible - set(heads))

    def row(self) -> dict[str, str | float | bool | None]:
        """Return the figures as one flat row of a table."""
        flat: dict[str, str | float | bool | None] = {"case": self.case_id, "modalities": "+".join(self.modalities)}
        flat |= {f"dice_{region}": self.dice.get(region) for region in REGIONS}
        for task, probability in self.probability.items():
            flat |= {f"p_{task}": probability, task.value: self.truth.get(task)}
        return flat


def score_samples(
    network: GmmasNetwork,
    samples: Sequence[Sample],
    *,
    modalities: Collection[Modality] = MODALITIES,
    patch: Patch | None = None,
    precision: Precision = "auto",
    on_progress: Progress | None = None,
    observe: Observe | None = None,
) -> list[CaseScore]:
    """Return the figures of each case on the network's grid.

    Args:
        network: on the device to compute on.
        samples: cases; those without any sequence that the network reads and may see are left out.
        modalities: sequences the network may see.
        patch: voxels of a window where the network was trained on patches, else None (GridConfig.patch).
        precision: of the forward pass.
        on_progress: called with (done, total) cases.
        observe: takes each prediction, for what else is to be made of it.
    """
    shown = restrict(samples, set(network.modalities) & set(modalities))
    scores = []
    for done, sample in enumerate(shown):
        prediction, batch = _predict(network, sample, patch=patch, precision=precision)
        with torch.no_grad():
            terms = multi_task_loss(network, prediction, batch)
        predicted_RXYZ = threshold(prediction.region_probability()[0].cpu().numpy())
        scores.append(
            replace(
                _score(sample, prediction, predicted_RXYZ, sample.regions_RXYZ),
                loss={task: float(loss) for task, loss in terms.per_task.items()},
            )
        )
        if observe is not None:
            observe(sample, prediction)
        if on_progress is not None:
            on_progress(done + 1, len(shown))
    return scores


def score_cases(
    network: GmmasNetwork,
    cases: Sequence[Case],
    sample_of: Callable[[Case], Sample],
    *,
    modalities: Collection[Modality] = MODALITIES,
    patch: Patch | None = None,
    precision: Precision = "fp32",
    temperatures: Temperatures = MappingProxyType({}),
    on_progress: Progress | None = None,
    observe: Observe | None = None,
) -> list[CaseScore]:
    """Return the figures of each case on its own voxels.

    Args:
        network: on the device to compute on.
        cases: where the segmentations are read from.
        sample_of: gives a case on the network's grid: SampleCache.get or preprocess_case.
        modalities: sequences the network may see; a case that has none of them is left out.
        patch: as in score_samples.
        precision: of the forward pass.
        temperatures: of a calibrated model.
        on_progress: called with (done, total) cases.
        observe: takes each prediction before calibration.

    Raises:
        DataError: a case does not pass the quality gate.
    """
    scores = []
    for done, case in enumerate(cases):
        for sample in restrict([sample_of(case)], set(network.modalities) & set(modalities)):
            raw, _ = _predict(network, sample, patch=patch, precision=precision)
            if observe is not None:
                observe(sample, raw)
            prediction = calibrate_prediction(raw, temperatures) if temperatures else raw
            restored_RXYZ = restore_to_native(prediction.region_probability()[0].cpu().numpy(), sample, order=1)
            predicted_RXYZ = threshold(restored_RXYZ)
            scores.append(_score(sample, prediction, predicted_RXYZ, native_regions(case)))
        if on_progress is not None:
            on_progress(done + 1, len(cases))
    return scores


def summarise(scores: Sequence[CaseScore], *, split: Split, seed: int, fewest: int = 1) -> Evaluation:
    """Return means with their 95 % bootstrap intervals; a figure that no case has is left out or has the value None.

    Args:
        scores: of each case.
        split: which part of a cohort this is.
        seed: of the bootstrap.
        fewest: patients behind each figure, and behind what two of them tell together; one of fewer is left out. With partial labels they
            are fewer than the cohort has.
    """
    dice_of, visible_of, auc_of = {}, {}, {}
    for region in REGIONS:
        known = [score for score in scores if region in score.dice]
        visible = [score for score in known if region in score.visible]
        if len(_patients(known)) >= fewest:
            dice_of[region] = _mean_dice(known, region, seed=seed)
            # The two together also tell the mean over the other patients.
            others = len(_patients(score for score in known if region not in score.visible))
            if len(_patients(visible)) >= fewest and not 0 < others < fewest:
                visible_of[region] = _mean_dice(visible, region, seed=seed)
    for task in MARKERS:
        known = [score for score in scores if task in score.truth and task in score.probability]
        if len(_patients(known)) >= fewest:
            truth, probability = np.array([(score.truth[task], score.probability[task]) for score in known]).T
            auc_of[task] = auc_interval(truth.astype(bool), probability, seed=seed, patients=[score.patient_id for score in known])
    measured = {task: [score for score in scores if task in score.loss] for task in TASKS}
    losses = {task: [score.loss[task] for score in known] for task, known in measured.items() if len(_patients(known)) >= fewest}
    return Evaluation(
        split=split,
        cases=len(scores),
        dice=dice_of,
        visible_dice=visible_of,
        auc=auc_of,
        loss={task: math.fsum(values) / len(values) for task, values in losses.items() if values},
    )


def _mean_dice(scores: Sequence[CaseScore], region: Region, *, seed: int) -> Interval:
    values = np.array([score.dice[region] for score in scores])
    return mean_interval(values, seed=seed, patients=[score.patient_id for score in scores])


def _patients(scores: Iterable[CaseScore]) -> set[str]:
    return {score.patient_id for score in scores}


def compare_scores(scores: Sequence[CaseScore], others: Sequence[CaseScore], *, seed: int) -> dict[str, Interval]:
    """Return how much better one model is than another on the same cases, by metric, with the interval of the difference.

    Differences are taken case by case (Dice) or in the same resample of patients (AUC), so what makes a case hard for both cancels out
    (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993).

    Args:
        scores: of the model in question.
        others: of the one it is compared with; cases that either lacks do not count.
        seed: of the bootstrap.
    """
    known = {other.case_id: other for other in others}
    pairs = [(own, known[own.case_id]) for own in scores if own.case_id in known]
    found: dict[str, Interval] = {}
    for region in REGIONS:
        if both := [(own, other) for own, other in pairs if region in own.dice and region in other.dice]:
            differences = np.array([own.dice[region] - other.dice[region] for own, other in both])
            found[f"dice_{region}"] = mean_interval(differences, seed=seed, patients=[own.patient_id for own, _ in both])
    for task in MARKERS:
        told = [(own, other) for own, other in pairs if task in own.truth and task in own.probability and task in other.probability]
        truth = np.array([own.truth[task] for own, _ in told], dtype=bool)
        if truth.any() and not truth.all():
            sides = [np.array([each[side].probability[task] for each in told]) for side in (0, 1)]
            counts_SK, n = resample_patients(len(told), seed=seed, patients=[own.patient_id for own, _ in told])
            first, second = (auc_by_resample(truth, side, counts_SK) for side in sides)
            difference = (auc(truth, sides[0]) or 0.0) - (auc(truth, sides[1]) or 0.0)
            found[f"auc_{task}"] = percentile_interval(difference, first - second, n=n)
    return found


def threshold(probability_RXYZ: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return binary regions, decided by the probability given the parent: p_WT, p_TC / p_WT and p_ET / p_TC above 1/2.

    No temperature changes the side of 1/2 a conditional probability is on. The probability itself falls below 1/2 where a head is worth
    little, and its region would vanish from the segmentation (docs/decisions/0006). A voxel outside a region's parent is left out of it.

    Args:
        probability_RXYZ: nested.
    """
    parent_RXYZ = np.concatenate([np.ones_like(probability_RXYZ[:1]), probability_RXYZ[:-1]])
    regions_RXYZ: NDArray[np.bool_] = np.logical_and.accumulate(probability_RXYZ > THRESHOLD * parent_RXYZ, axis=0)
    return regions_RXYZ


def subsets(modalities: Iterable[Modality]) -> list[tuple[Modality, ...]]:
    """Return every non-empty subset, the largest first, in the order of MODALITIES."""
    available = [m for m in MODALITIES if m in set(modalities)]
    found = [tuple(m for place, m in enumerate(available) if code >> place & 1) for code in range(1, 2 ** len(available))]
    return sorted(found, key=len, reverse=True)


def native_regions(case: Case) -> NDArray[np.bool_] | None:
    """Return the reference regions on the case's own voxels; whether they lie on the scans' grid was checked with the sample."""
    if case.segmentation is None:
        return None
    return regions_of(read_labels(case.segmentation, meaning=case.segmentation_values).values_XYZ)


def _predict(network: GmmasNetwork, sample: Sample, *, patch: Patch | None, precision: Precision) -> tuple[Prediction, Batch]:
    """Return the prediction for one sample, and its batch of one."""
    batch = Batch.collate([sample]).to(next(network.parameters()).device)
    return predict_volume(network, batch.image_BMXYZ, batch.present_BM, patch=patch, precision=precision), batch


def _score(
    sample: Sample,
    prediction: Prediction,
    predicted_RXYZ: NDArray[np.bool_],
    truth_RXYZ: NDArray[np.bool_] | NDArray[np.uint8] | None,
) -> CaseScore:
    known_R = [True] * len(REGIONS) if sample.weight_RXYZ is None else [bool(weight_XYZ.any()) for weight_XYZ in sample.weight_RXYZ]
    rows = [] if truth_RXYZ is None else list(zip(REGIONS, known_R, predicted_RXYZ, truth_RXYZ.astype(bool), strict=True))
    enhanced = bool(sample.present_M[MODALITIES.index(Modality.T1CE)])
    return CaseScore(
        case_id=sample.case_id,
        patient_id=sample.patient_id,
        modalities=tuple(m for m, present in zip(MODALITIES, sample.present_M, strict=True) if present),
        probability={task: float(probability_B) for task, probability_B in prediction.marker_probabilities().items()},
        truth={task: bool(value) for task in MARKERS if not math.isnan(value := sample.marker(task))},
        dice={region: float(dice(predicted, truth)) for region, known, predicted, truth in rows if known},
        visible=frozenset(r for r, known, _, truth in rows if known and truth.any() and (enhanced or r not in SHOWN_BY_T1CE)),
    )
