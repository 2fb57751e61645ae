"""Dice, HD95, AUC and their 95 % bootstrap intervals over patients.

Dice follows the BraTS convention: both masks empty 1, one of them empty 0. HD95 is MONAI's: the larger of the 95th percentiles of the
distances from either surface to the other; both masks empty 0 mm, one of them empty 373.13 mm, the diagonal of a BraTS volume of 240 x
240 x 155 voxels of 1 mm, as the challenge has it since 2020. AUC is the share of (positive, negative) pairs in the right
order, a tie counting a half (Hanley and McNeil, Radiology 1982). Intervals are percentiles over resampled patients (Efron, 1979): all cases
of a patient are drawn together, for they are not independent.

Shape suffixes: K cases, G patients, S resamples, P positive cases, N negative cases.
"""

import warnings
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.messages import Interval

RESAMPLES: Final = 2000
MISSED_MM: Final = 373.13
"""HD95 where one of two masks is empty (BraTS)."""
_QUANTILES: Final = (0.025, 0.975)


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient of two binary masks of one shape, in [0, 1]."""
    size = int(np.count_nonzero(predicted)) + int(np.count_nonzero(truth))
    return 2 * int(np.count_nonzero(predicted & truth)) / size if size else 1.0


def hd95_mm(predicted: NDArray[np.bool_], truth: NDArray[np.bool_], *, spacing_mm: float) -> float:
    """Return the 95th percentile of the surface distances of two binary masks of one shape on isotropic voxels, mm."""
    if not (predicted.any() and truth.any()):
        return 0.0 if predicted.any() == truth.any() else MISSED_MM
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    masks = (mask[None, None].astype(np.float32) for mask in (predicted, truth))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI 1.5 calls a function of its own in a way that it has deprecated
        return float(compute_hausdorff_distance(*masks, include_background=True, percentile=95, spacing=spacing_mm))


def auc(truth_K: NDArray[np.bool_], score_K: NDArray[np.floating[Any]]) -> float | None:
    """Return the area under the ROC curve, or None where one class is missing.

    Args:
        truth_K: True for positive cases.
        score_K: higher means more likely positive.
    """
    ordered_PN = _pair_order(truth_K, score_K)
    return float(ordered_PN.mean()) if ordered_PN.size else None


def auc_interval(
    truth_K: NDArray[np.bool_], score_K: NDArray[np.floating[Any]], *, seed: int, patients: Sequence[str] | None = None
) -> Interval:
    """Return the AUC with its interval; the value is None where one class is missing, and such resamples are left out.

    Args:
        truth_K: True for positive cases.
        score_K: higher means more likely positive.
        seed: of the resampling; the result depends on nothing else.
        patients: whose case each one is; by default every case is a patient.
    """
    counts_SK, n = resample_patients(len(truth_K), seed=seed, patients=patients)
    value = auc(truth_K, score_K)
    return Interval(n=n) if value is None else percentile_interval(value, auc_by_resample(truth_K, score_K, counts_SK), n=n)


def mean_interval(value_K: NDArray[np.floating[Any]], *, seed: int, patients: Sequence[str] | None = None) -> Interval:
    """Return the mean with its interval, or an empty interval for no cases; arguments as in auc_interval."""
    if not len(value_K):
        return Interval()
    counts_SK, n = resample_patients(len(value_K), seed=seed, patients=patients)
    return percentile_interval(float(np.mean(value_K, dtype=np.float64)), mean_by_resample(value_K, counts_SK), n=n)


def resample_patients(cases: int, *, seed: int, patients: Sequence[str] | None = None) -> tuple[NDArray[np.float64], int]:
    """Return how often each case is drawn in each resample (counts_SK), and the number of patients.

    The same patients and seed give the same draws, so figures of the same cases can be compared resample by resample.
    """
    groups_K = np.arange(cases) if patients is None else np.unique(np.asarray(patients), return_inverse=True)[1]
    n = int(groups_K.max()) + 1 if cases else 0
    counts_SG = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) if n else np.zeros((RESAMPLES, 0))
    return counts_SG[:, groups_K].astype(np.float64), n


def auc_by_resample(truth_K: NDArray[np.bool_], score_K: NDArray[np.floating[Any]], counts_SK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the AUC of every resample, nan where one class is missing."""
    counts_SP, counts_SN = counts_SK[:, truth_K], counts_SK[:, ~truth_K]
    pairs_S = counts_SP.sum(1) * counts_SN.sum(1)
    ordered_S = np.einsum("sn,sn->s", counts_SP @ _pair_order(truth_K, score_K), counts_SN)
    auc_S: NDArray[np.float64] = np.divide(ordered_S, pairs_S, out=np.full(len(pairs_S), np.nan), where=pairs_S > 0)
    return auc_S


def mean_by_resample(value_K: NDArray[np.floating[Any]], counts_SK: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of every resample."""
    mean_S: NDArray[np.float64] = counts_SK @ value_K.astype(np.float64) / counts_SK.sum(1)
    return mean_S


def percentile_interval(value: float, value_S: NDArray[np.float64], *, n: int) -> Interval:
    """Return a value with the 95 % percentile interval of its resamples; those without a value (nan) are left out."""
    low, high = np.quantile(value_S[~np.isnan(value_S)], _QUANTILES)
    return Interval(value=value, low=float(low), high=float(high), n=n)


def _pair_order(truth_K: NDArray[np.bool_], score_K: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Return, per pair of a positive and a negative case, 1 where the positive scores higher, 1/2 at a tie, else 0."""
    positive_P1, negative_1N = score_K[truth_K][:, None], score_K[~truth_K][None, :]
    ordered_PN: NDArray[np.float64] = (positive_P1 > negative_1N) + 0.5 * (positive_P1 == negative_1N)
    return ordered_PN
