"""Figures of an arm, and differences between arms with paired bootstrap intervals.

For seed i with patients P_i, let d_i(w) be the difference of a figure between two arms when patient p of P_i counts w_p times. The
difference is the mean of d_i(1) over the seeds. A resample draws as many seeds as there are, with replacement, and within each drawn seed
its patients with replacement, the same ones for both arms; the interval holds the middle 95 % of the resamples. So it covers both which
patients were met and how training fell out, as far as a few seeds can show it (Efron and Tibshirani, 1993, on resampling in two stages).
That is not far: up to three seeds it reaches from the lowest to the highest of their n differences, which by the luck of training alone
lie on one side of 0 in 2^(1-n) of the cases (BY_LUCK).

Shapes: K patients, S resamples, N modality subsets in the order of `subsets(MODALITIES)`, R regions, I seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.scoring import MOLECULAR, CaseRow
from gmmas_model.metrics import RESAMPLES, auc_by_resample, mean_by_resample, percentile_interval, resample_patients
from gmmas_schema.errors import DataError
from gmmas_schema.messages import Interval
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Modality, Region, Task
from gmmas_workflows.evaluation import subsets

Float = NDArray[np.float64]

SUBSETS: Final = subsets(MODALITIES)
FULL: Final = SUBSETS.index(tuple(MODALITIES))
T1CE_ONLY: Final = SUBSETS.index((Modality.T1CE,))
NESTED_PAIRS: Final = tuple(
    (fewer, more)
    for fewer, less in enumerate(SUBSETS)
    for more, rest in enumerate(SUBSETS)
    if len(rest) == len(less) + 1 and set(less) < set(rest)
)
"""Places of a subset and of the same with one sequence more: 28 pairs."""
CLEAR_MARGIN: Final = 0.01
"""Difference in a patient's Dice from which one subset is called better than another."""
ECE_BINS: Final = 10
FEWEST_SEEDS: Final = 3
"""An interval over fewer says how patients differ, and next to nothing about how training falls out."""
BY_LUCK: Final[Mapping[int, float]] = {1: 1.0, 2: 0.5, 3: 0.25, 4: 0.21, 5: 0.17, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.1, 10: 0.1}
"""How often an interval over this many seeds excludes 0 where the luck of training is all that differs (simulated with normal luck)."""


@dataclass(frozen=True)
class CaseTable:
    """The held-out patients of one hospital under one model.

    Attributes:
        dice_NKR: all patients have a segmentation.
        has_KR: whether a patient has a region, as far as the scores show it (regions_shown).
        hd95_NKR: mm; nan where surfaces were not compared.
        probability: (N, K) per marker.
        truth_K: bool per marker; all known.
        cases: their names, for pairing.
    """

    dice_NKR: Float
    has_KR: NDArray[np.bool_]
    probability: Mapping[Task, Float]
    truth_K: Mapping[Task, NDArray[np.bool_]]
    cases: tuple[str, ...]
    hd95_NKR: Float

    @classmethod
    def of(cls, rows: Mapping[str, Sequence[CaseRow]]) -> "CaseTable":
        """Return the table of rows by subset.

        Raises:
            DataError: a subset is missing, patients differ between subsets, or a label is missing.
        """
        try:
            ordered = [rows["+".join(subset)] for subset in SUBSETS]
            names = {tuple(row.case for row in of_subset) for of_subset in ordered}
            (cases,) = names
            dice_NKR = np.array([[[row.dice[region] for region in REGIONS] for row in of_subset] for of_subset in ordered])
            return cls(
                dice_NKR=dice_NKR,
                has_KR=regions_shown(dice_NKR),
                probability={t: np.array([[row.probability[t] for row in of_subset] for of_subset in ordered]) for t in MOLECULAR},
                truth_K={t: np.array([row.truth[t] for row in ordered[0]], dtype=np.bool_) for t in MOLECULAR},
                cases=cases,
                hd95_NKR=np.array([[[row.hd95_mm.get(r, np.nan) for r in REGIONS] for row in of_subset] for of_subset in ordered]),
            )
        except (KeyError, ValueError) as error:
            raise DataError(
                "scores of a held-out hospital are not whole",
                got=f"{type(error).__name__}: {error}",
                expected=f"{len(SUBSETS)} subsets of the same fully labelled patients",
                remedy="delete the result and run the arm again",
            ) from error


def regions_shown(dice_NKR: Float) -> NDArray[np.bool_]:
    """Return which patients have a region (K, R), told from the Dice of any models and subsets along N.

    Dice is between 0 and 1 only where truth and outline overlap, and 1, but for an outline that is perfect, only where neither has a voxel.
    So a patient without the region is one with a 1 and nothing between; one who has 0 throughout has a region that nobody found.
    """
    between_KR = ((dice_NKR > 0) & (dice_NKR < 1)).any(0)
    shown_KR: NDArray[np.bool_] = between_KR | ~(dice_NKR == 1).any(0)
    return shown_KR


def agree_on_regions(tables: Mapping[str, CaseTable], *, seed: int) -> dict[str, CaseTable]:
    """Return the tables of one seed's arms, by arm, each knowing of its patients what all arms together show.

    Raises:
        DataError: the patients differ.
    """
    for table in tables.values():
        _refuse_other_patients(table, next(iter(tables.values())), seed=seed)
    has_KR = regions_shown(np.concatenate([table.dice_NKR for table in tables.values()]))
    return {arm: replace(table, has_KR=has_KR) for arm, table in tables.items()}


def outlining_nothing(table: CaseTable) -> CaseTable:
    """Return the patients under a model that outlines nothing: Dice 1 in every region that a patient lacks."""
    return replace(table, dice_NKR=np.broadcast_to(~table.has_KR, table.dice_NKR.shape).astype(float))


@dataclass(frozen=True)
class Figure:
    """One figure of merit.

    Attributes:
        title: for tables and plots.
        better: +1 where more is better, -1 where less is.
        measure: from a table and how often each patient counts (S, K) to the figure (S).
    """

    title: str
    better: Literal[1, -1]
    measure: Callable[[CaseTable, Float], Float]


def _dice(places: Sequence[int] = range(len(SUBSETS)), regions: Sequence[Region] = REGIONS) -> Callable[[CaseTable, Float], Float]:
    """Return the mean Dice over patients, some subsets and some regions."""
    chosen = [REGIONS.index(region) for region in regions]

    def measure(table: CaseTable, counts_SK: Float) -> Float:
        return mean_by_resample(table.dice_NKR[list(places)][:, :, chosen].mean((0, 2)), counts_SK)

    return measure


def _visible_dice(places: Sequence[int], region: Region) -> Callable[[CaseTable, Float], Float]:
    """Return the mean Dice of a region over some subsets and the patients who have it; nan where a resample has none of them."""
    return lambda table, counts_SK: _mean_among(
        table.dice_NKR[list(places), :, REGIONS.index(region)].mean(0), table.has_KR[:, REGIONS.index(region)], counts_SK
    )


def _false_outlines(places: Sequence[int], region: Region) -> Callable[[CaseTable, Float], Float]:
    """Return the share of (patient without a region, subset) in which some of it is outlined; nan where a resample has no such patient."""
    return lambda table, counts_SK: _mean_among(
        (table.dice_NKR[list(places), :, REGIONS.index(region)] < 1).mean(0), ~table.has_KR[:, REGIONS.index(region)], counts_SK
    )


def _mean_among(value_K: Float, among_K: NDArray[np.bool_], counts_SK: Float) -> Float:
    with np.errstate(invalid="ignore"):
        return mean_by_resample(value_K[among_K], counts_SK[:, among_K])


def _hd95(places: Sequence[int]) -> Callable[[CaseTable, Float], Float]:
    """Return the mean HD95 over patients, regions and some subsets, mm; nan where surfaces were not compared."""
    return lambda table, counts_SK: mean_by_resample(table.hd95_NKR[list(places)].mean((0, 2)), counts_SK)


def _auc(task: Task, places: Sequence[int]) -> Callable[[CaseTable, Float], Float]:
    """Return the mean over some subsets of the AUC; nan where a resample lacks a class."""

    def measure(table: CaseTable, counts_SK: Float) -> Float:
        values: Float = np.mean([auc_by_resample(table.truth_K[task], table.probability[task][n], counts_SK) for n in places], axis=0)
        return values

    return measure


def _ece(table: CaseTable, counts_SK: Float) -> Float:
    """Return the expected calibration error, mean of both markers, over patients and subsets in equal bins (Guo et al., ICML 2017).

    sum_b n_b / n |mean p - mean y| = sum_b |sum (p - y)| / n
    """
    errors = []
    for task, probability_NK in table.probability.items():
        excess_NK = probability_NK - table.truth_K[task]
        bin_NK = np.minimum((probability_NK * ECE_BINS).astype(int), ECE_BINS - 1)
        excess_Kb = np.stack([(excess_NK * (bin_NK == b)).sum(0) for b in range(ECE_BINS)], axis=1)
        errors.append(np.abs(counts_SK @ excess_Kb).sum(1) / (counts_SK.sum(1) * len(SUBSETS)))
    mean_S: Float = np.mean(errors, axis=0)
    return mean_S


def _fewer_better(table: CaseTable, counts_SK: Float) -> Float:
    """Return the share of (patient, nested pair of subsets) in which the smaller one is clearly better by mean Dice."""
    dice_NK = table.dice_NKR.mean(2)
    share_K = np.mean([dice_NK[fewer] > dice_NK[more] + CLEAR_MARGIN for fewer, more in NESTED_PAIRS], axis=0)
    return mean_by_resample(share_K, counts_SK)


FIGURES: Final[Mapping[str, Figure]] = {
    "dice": Figure("mean Dice, 15 subsets", 1, _dice()),
    **{f"dice_{region}": Figure(f"Dice {region.upper()}, 15 subsets", 1, _dice(regions=[region])) for region in REGIONS},
    "et_t1ce": Figure("Dice ET from T1ce alone", 1, _dice([T1CE_ONLY], [Region.ET])),
    "et_visible": Figure("visible Dice ET, 15 subsets", 1, _visible_dice(range(len(SUBSETS)), Region.ET)),
    "et_visible_t1ce": Figure("visible Dice ET, T1ce alone", 1, _visible_dice([T1CE_ONLY], Region.ET)),
    "et_false": Figure("ET where there is none, 15 subsets", -1, _false_outlines(range(len(SUBSETS)), Region.ET)),
    "et_false_t1ce": Figure("ET where there is none, T1ce alone", -1, _false_outlines([T1CE_ONLY], Region.ET)),
    "dice_full": Figure("mean Dice, all four", 1, _dice([FULL])),
    "dice_et_full": Figure("Dice ET, all four", 1, _dice([FULL], [Region.ET])),
    "auc_idh": Figure("AUC IDH, all four", 1, _auc(Task.IDH, [FULL])),
    "auc_codeletion": Figure("AUC 1p/19q, all four", 1, _auc(Task.CODELETION, [FULL])),
    "auc_idh_15": Figure("AUC IDH, 15 subsets", 1, _auc(Task.IDH, range(len(SUBSETS)))),
    "auc_codeletion_15": Figure("AUC 1p/19q, 15 subsets", 1, _auc(Task.CODELETION, range(len(SUBSETS)))),
    "ece": Figure("ECE of the markers", -1, _ece),
    "hd95": Figure("HD95, 15 subsets, mm", -1, _hd95(range(len(SUBSETS)))),
    "hd95_full": Figure("HD95, all four, mm", -1, _hd95([FULL])),
    "fewer_better": Figure("fewer sequences better", -1, _fewer_better),
}


def value_of(figure: Figure, table: CaseTable) -> float:
    """Return a figure, every patient counted once; nan where it is not defined."""
    return float(figure.measure(table, np.ones((1, len(table.cases))))[0])


def compare(
    figure: Figure, arm: Mapping[int, CaseTable], other: Mapping[int, CaseTable], *, how: Literal["difference", "ratio"] = "difference"
) -> Interval:
    """Return arm - other, or arm / other, over the seeds that both have; n is the number of patients over these seeds.

    Args:
        figure: what is compared.
        arm: tables by seed.
        other: tables by seed, of the same patients.
        how: the ratio is that of the means over seeds.

    Raises:
        DataError: the patients of a seed differ.
    """
    seeds = sorted(arm.keys() & other.keys())
    patients = sum(len(arm[seed].cases) for seed in seeds)
    if not seeds:
        return Interval()
    combine = np.subtract if how == "difference" else np.divide
    first, second = (float(np.mean([value_of(figure, side[seed]) for seed in seeds])) for side in (arm, other))
    value = float(combine(first, second)) if how == "difference" or second else np.nan
    first_IS, second_IS = _resampled(figure, arm, other, seeds)
    rng = np.random.default_rng(len(seeds))
    seed_SI = rng.integers(len(seeds), size=(RESAMPLES, len(seeds)))
    resample_SI = rng.integers(RESAMPLES, size=(RESAMPLES, len(seeds)))
    with np.errstate(invalid="ignore", divide="ignore"):
        value_S = combine(first_IS[seed_SI, resample_SI].mean(1), second_IS[seed_SI, resample_SI].mean(1))
    defined_S = value_S[np.isfinite(value_S)]
    return percentile_interval(value, defined_S, n=patients) if np.isfinite(value) and defined_S.size else Interval(n=patients)


def _resampled(figure: Figure, arm: Mapping[int, CaseTable], other: Mapping[int, CaseTable], seeds: Sequence[int]) -> tuple[Float, Float]:
    """Return the figure of both arms per seed and resample of its patients, (I, S) each; the resamples are the same for both."""
    values: tuple[list[Float], list[Float]] = ([], [])
    for seed in seeds:
        _refuse_other_patients(arm[seed], other[seed], seed=seed)
        counts_SK, _ = resample_patients(len(arm[seed].cases), seed=seed)
        for side, tables in zip(values, (arm, other), strict=True):
            side.append(figure.measure(tables[seed], counts_SK))
    return np.array(values[0]), np.array(values[1])


def _refuse_other_patients(table: CaseTable, other: CaseTable, *, seed: int) -> None:
    if table.cases != other.cases:
        raise DataError(
            "two arms of one seed were scored on different patients",
            where=f"seed {seed}",
            got=f"{len(table.cases)} and {len(other.cases)} patients",
            expected="the same, in the same order",
            remedy="delete the seed's results and run it again",
        )


def told_apart(change: Interval, *, seeds: int) -> bool:
    """Tell whether an interval over this many seeds excludes 0; never with one seed, whose luck any difference may be."""
    return seeds > 1 and change.low is not None and change.high is not None and (change.low > 0 or change.high < 0)
