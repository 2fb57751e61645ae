"""What each sequence contributes to a model's accuracy: Shapley values over all subsets of the sequences.

    phi_m = sum over S without m of  |S|! (n - |S| - 1)! / n!  (v(S + m) - v(S))

is the mean gain of adding sequence m to the others, over all orders of adding them (Shapley, Contributions to the Theory of Games II, 1953;
for models Lundberg and Lee, NeurIPS 2017). Here v(S) is the accuracy on a cohort of which the network is shown the sequences S only, which
is what a hospital without the others would get, not an imputation. Shapley values are the only ones that sum to v(all) - v(nothing), treat
equal sequences equally, give a useless one 0, and are linear in v.

v(nothing) is that of a predictor that is shown nothing: no tumour voxel, and one probability for everybody. Hence a Dice of 0 where there
is a tumour region and 1 where there is none (BraTS convention), and an AUC of 1/2.

Intervals are percentiles over resampled patients; every resample is the same for all subsets, so what patients share cancels.

Shapes: K cases, S resamples (the cohort itself first).
"""

from collections.abc import Callable, Mapping, Sequence
from math import factorial
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gmmas_model.metrics import auc_by_resample, mean_by_resample, mean_interval, percentile_interval, resample_patients
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import DataError
from gmmas_schema.messages import Interval
from gmmas_schema.vocabulary import MARKERS, MODALITIES, REGIONS, Modality
from gmmas_workflows.evaluation import CaseScore

Subset = tuple[Modality, ...]
"""Sequences shown, in the order of MODALITIES."""

NOTHING: Final = "nothing"
"""Name of the empty subset; the others are called as in `gmmas evaluate`, for instance t2+flair."""


class Attribution(FrozenModel):
    """One figure of accuracy, divided among the sequences.

    Attributes:
        value: the figure by the name of the sequences shown, `nothing` among them.
        shapley: what each sequence contributes; the values sum to that of all sequences less that of `nothing`.
    """

    value: dict[str, Interval]
    shapley: dict[Modality, Interval]


class CaseGates(FrozenModel):
    """Mean weight that the fusion of one level gives each sequence of one case; sums to 1 over the sequences.

    Attributes:
        tumour: over the voxels of the reference whole tumour; empty where there is none.
        brain: over the voxels of the brain.
    """

    tumour: dict[Modality, float]
    brain: dict[Modality, float]


class GateWeights(FrozenModel):
    """Mean of CaseGates over the cases, with intervals over patients.

    Attributes:
        spacing_mm: voxel size of the level.
        tumour: over the cases with a reference segmentation.
        brain: over all cases.
    """

    spacing_mm: float
    tumour: dict[Modality, Interval]
    brain: dict[Modality, Interval]


class Significance(FrozenModel):
    """Contents of significance.json: aggregates only, nothing per patient.

    Attributes:
        modalities: sequences the model reads.
        cases: cases with all of them, which alone count.
        left_out: cases that lack one of them.
        bad: cases that fail the quality gate.
        seed: of the bootstrap.
        figures: by name: dice_wt, dice_tc, dice_et, auc_idh and so on, as far as there are labels.
        gates: per level, finest first.
    """

    software: str
    model_digest: str
    weights_sha256: str
    modalities: tuple[Modality, ...]
    cases: int
    left_out: int
    bad: int
    seed: int
    figures: dict[str, Attribution]
    gates: tuple[GateWeights, ...]


def subset_name(subset: Sequence[Modality]) -> str:
    """Return the name of a subset in tables and files."""
    return "+".join(subset) or NOTHING


def shapley_values(value: Mapping[Subset, ArrayLike]) -> dict[Modality, NDArray[np.float64]]:
    """Return the Shapley value of each sequence.

    Args:
        value: by subset, for every subset of some sequences, the empty one too; numbers, or arrays of one shape such as resamples.

    Raises:
        DataError: a subset is missing.
    """
    table = {frozenset(subset): np.asarray(v, dtype=np.float64) for subset, v in value.items()}
    everyone = frozenset[Modality]().union(*table)
    n = len(everyone)
    if len(table) != 2**n:
        raise DataError(
            "a table of values by subset is not complete",
            got=f"{len(table)} subsets of {subset_name([m for m in MODALITIES if m in everyone])}",
            expected=f"all {2**n}, the empty one included",
            remedy="measure the missing ones",
        )
    weight = [factorial(size) * factorial(n - size - 1) / factorial(n) for size in range(n)]
    return {
        m: np.asarray(sum(weight[len(others)] * (table[others | {m}] - v) for others, v in table.items() if m not in others))
        for m in MODALITIES
        if m in everyone
    }


def attribute_figures(scores: Mapping[Subset, Sequence[CaseScore]], *, seed: int) -> dict[str, Attribution]:
    """Divide every figure that the labels allow among the sequences.

    Args:
        scores: by subset, for every subset of some sequences, the empty one too; the same cases in the same order.
        seed: of the bootstrap.

    Returns:
        By name. A figure without labels is left out, and so is an AUC where one class is missing.

    Raises:
        DataError: a subset is missing, or the cases differ.
    """
    cases = _same_cases(scores)
    figures = {}
    for region in REGIONS:
        if known := [place for place, score in enumerate(cases) if region in score.dice]:
            dice = {subset: np.array([found[place].dice[region] for place in known]) for subset, found in scores.items()}
            figures[f"dice_{region}"] = _attribute(dice, mean_by_resample, [cases[place].patient_id for place in known], seed=seed)
    for task in MARKERS:
        asked = all(task in score.probability for found in scores.values() for score in found)
        known = [place for place, score in enumerate(cases) if asked and task in score.truth]
        truth_K = np.array([cases[place].truth[task] for place in known], dtype=np.bool_)
        if len(set(truth_K.tolist())) == 2:
            probability = {subset: np.array([found[place].probability[task] for place in known]) for subset, found in scores.items()}

            def auc_of(
                score_K: NDArray[np.float64], counts_SK: NDArray[np.float64], truth_K: NDArray[np.bool_] = truth_K
            ) -> NDArray[np.float64]:
                return auc_by_resample(truth_K, score_K, counts_SK)

            figures[f"auc_{task}"] = _attribute(probability, auc_of, [cases[place].patient_id for place in known], seed=seed)
    return figures


def summarise_gates(
    gates: Sequence[Sequence[CaseGates]], patients: Sequence[str], *, grid_spacing_mm: float, seed: int
) -> tuple[GateWeights, ...]:
    """Return the mean gate weights of each level, finest first.

    Args:
        gates: per case, each level.
        patients: whose case each one is.
        grid_spacing_mm: voxel size of the network's grid; every level doubles it.
        seed: of the bootstrap.
    """

    def mean(weights: Sequence[Mapping[Modality, float]]) -> dict[Modality, Interval]:
        known = [place for place, weight in enumerate(weights) if weight]
        whose = [patients[place] for place in known]
        held = weights[known[0]] if known else ()
        return {m: mean_interval(np.array([weights[place][m] for place in known]), seed=seed, patients=whose) for m in held}

    return tuple(
        GateWeights(
            spacing_mm=grid_spacing_mm * 2**level,
            tumour=mean([weights.tumour for weights in of_cases]),
            brain=mean([weights.brain for weights in of_cases]),
        )
        for level, of_cases in enumerate(zip(*gates, strict=True))
    )


def _same_cases(scores: Mapping[Subset, Sequence[CaseScore]]) -> Sequence[CaseScore]:
    """Return the scores of one subset, after all of them were found to be of the same cases."""
    first, *others = scores.values()
    identity = [(score.case_id, score.patient_id) for score in first]
    if any([(score.case_id, score.patient_id) for score in found] != identity for found in others):
        raise DataError(
            "scores by subset are not of the same cases",
            got=f"{len({len(found) for found in scores.values()})} different numbers of cases, or another order",
            expected="the same cases in the same order for every subset",
            remedy="leave out the cases that lack a sequence",
        )
    return first


def _attribute(
    value: Mapping[Subset, NDArray[np.float64]],
    measure: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
    patients: Sequence[str],
    *,
    seed: int,
) -> Attribution:
    """Divide one figure; `measure` takes values per case and how often each case is drawn."""
    counts_SK, n = resample_patients(len(patients), seed=seed, patients=patients)
    counts_SK = np.vstack([np.ones_like(counts_SK[:1]), counts_SK])
    figure = {subset: measure(value_K, counts_SK) for subset, value_K in value.items()}

    def interval(value_S: NDArray[np.float64]) -> Interval:
        return percentile_interval(float(value_S[0]), value_S[1:], n=n)

    return Attribution(
        value={subset_name(subset): interval(value_S) for subset, value_S in figure.items()},
        shapley={m: interval(value_S) for m, value_S in shapley_values(figure).items()},
    )
