"""How unlike a known glioma a case is to the network: mean entropy of its outline, and the threshold above which questions are left open.

    s = mean over the outlined tumour of H(p) / ln 2,   H(p) = -p ln p - (1 - p) ln(1 - p),   p = sigmoid(T logit(p_calibrated))

p is the probability of the whole tumour as the network gives it, before its calibration by the temperature T: a calibration makes all cases
of a model less sure alike, the known gliomas too, and would move them across any threshold.

The mean entropy over the predicted segment ranks segmentations by their quality and cases by their distance to the training data (Mehrtash
et al., IEEE TMI 2020, "Confidence Calibration and Predictive Uncertainty Estimation for Deep Medical Image Segmentation"). It needs the
probabilities of this one case and nothing of the training data, which no hospital has.

Beside it stands one check of plausibility: a glioma is one mass, or few. Where the largest focus holds less than LARGEST_SHARE of what is
outlined, the pattern is that of many lesions (demyelination, metastases, small-vessel disease), which the network was never shown.

What it cannot do: a wrong outline of which the network is sure has a low score, and one large lesion of another kind (metastasis,
lymphoma, abscess, stroke) may look like a glioma to both rules. The score is no diagnosis of anything else.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from gmmas_portal.analysis.foci import largest_focus
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.vocabulary import REGIONS, Region
from gmmas_workflows.evaluation import THRESHOLD

DEFAULT_THRESHOLD: Final = 0.45
"""Score above which a case counts as out of distribution, where the hospital has not measured its own. Chosen with phantoms, a brain
with multiple sclerosis and one real glioma in view, under an earlier model. benchmarks/results/novelty.json has the scores of the first two
under a later one, so its figures are no estimate for another model or scanner, and say nothing of real gliomas: a hospital with known cases
should measure its own threshold."""

LARGEST_SHARE: Final = 0.5
"""Share of the outlined tumour that the largest focus of one glioma holds at least."""

QUANTILE: Final = 0.95
"""Share of known gliomas that a measured threshold lets pass."""

FEWEST_KNOWN: Final = 20
"""Known gliomas from which on a threshold is measured: fewer have no 95th percentile."""


@dataclass(frozen=True)
class Novelty:
    """Outcome of the check.

    Attributes:
        score: in [0, 1]; None where nothing was outlined.
        reason: why the case counts as out of distribution, in a sentence; empty where it does not.
    """

    score: float | None
    reason: str = ""


def judge_novelty(
    probability_RIJK: NDArray[np.float32], whole_IJK: NDArray[np.bool_], *, temperature: float = 1.0, threshold: float | None = None
) -> Novelty:
    """Return the score of a case, and whether it is to be left open.

    Args:
        probability_RIJK: calibrated region probabilities.
        whole_IJK: the outlined whole tumour.
        temperature: by which the whole tumour's probability was calibrated.
        threshold: of the score; None for DEFAULT_THRESHOLD.
    """
    if not whole_IJK.any():
        return Novelty(None)
    score, limit = entropy_score(probability_RIJK, temperature=temperature), DEFAULT_THRESHOLD if threshold is None else threshold
    if score > limit:
        return Novelty(score, f"the network is unsure of its whole outline (score {score:.2f}, known gliomas up to {limit:.2f})")
    share = float(np.count_nonzero(largest_focus(whole_IJK))) / float(np.count_nonzero(whole_IJK))
    if share < LARGEST_SHARE:
        return Novelty(score, f"what is outlined is scattered: its largest part is {share:.0%} of it, unlike one glioma")
    return Novelty(score)


def entropy_score(probability_RIJK: NDArray[np.float32], *, temperature: float = 1.0) -> float:
    """Return the mean entropy of the whole tumour's own probability in bits, over the voxels where it is outlined; 0 where none is."""
    p = probability_RIJK[REGIONS.index(Region.WT)]
    p = expit(temperature * logit(p[p > THRESHOLD].astype(np.float64)))
    if not p.size:
        return 0.0
    q = 1 - p
    entropy = -(p * np.log(p) + np.where(q > 0, q * np.log(np.where(q > 0, q, 1)), 0))
    return min(max(float(entropy.mean()) / math.log(2), 0.0), 1.0)


def choose_threshold(scores: Sequence[float]) -> float:
    """Return the threshold that lets QUANTILE of known gliomas pass: that of a hospital's own cases under its own model.

    Args:
        scores: of cases that are known to be gliomas and that the model was not trained on.

    Raises:
        DataError: fewer than FEWEST_KNOWN.
    """
    if len(scores) < FEWEST_KNOWN:
        raise DataError(
            "too few known cases for a threshold",
            got=f"{len(scores)} scores",
            expected=f"{FEWEST_KNOWN} or more",
            remedy="use the built-in threshold until there are more",
            code=ReasonCode.DATA_EMPTY,
        )
    return float(np.quantile(np.asarray(scores), QUANTILE, method="higher"))
