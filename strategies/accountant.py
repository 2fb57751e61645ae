"""What the noisy sums of a run have cost, as (epsilon, delta).

k Gaussian mechanisms with noise z C on a sum of sensitivity C are one with noise z / sqrt(k) (Dong, Roth and Su, "Gaussian Differential
Privacy", JRSS B 2022), whose epsilon at a delta is known exactly (Balle and Wang, "Improving the Gaussian Mechanism", ICML 2018):

    delta = Phi(-epsilon s + 1 / (2 s)) - exp(epsilon) Phi(-epsilon s - 1 / (2 s)),     s = z / sqrt(k)

computed by Google's dp-accounting. Every site takes part in every round, so nothing is gained by sampling and none of it is claimed.
"""

import math
from typing import Final

import numpy as np
from scipy.special import log_ndtr, ndtr

from gmmas_schema.errors import ConfigError

MOST_RELEASES: Final = 1 << 20


def epsilon_of(releases: int, *, noise_multiplier: float, delta: float) -> float:
    """Return epsilon after so many noisy sums; 0 before the first.

    Raises:
        ConfigError: dp-accounting is not installed.
    """
    if releases == 0:
        return 0.0
    try:
        from dp_accounting import get_epsilon_gaussian
    except ImportError as error:
        raise ConfigError(
            "the accountant is not installed",
            where="privacy",
            got="no dp-accounting",
            expected="the extra `privacy`",
            remedy="pip install 'gmmas-fed[privacy]'",
        ) from error
    # A delta that underflows is the logarithm of 0 there, which is what is meant.
    with np.errstate(divide="ignore"):
        return float(get_epsilon_gaussian(noise_multiplier / math.sqrt(releases), delta))


def keeps_within(releases: int, *, noise_multiplier: float, epsilon: float, delta: float) -> bool:
    """Tell whether so many noisy sums cost no more than a budget, by the equation above; needs no accountant, so that hospitals can ask."""
    width = noise_multiplier / math.sqrt(releases)
    least = ndtr(-epsilon * width + 0.5 / width) - math.exp(min(epsilon + log_ndtr(-epsilon * width - 0.5 / width), 0.0))
    return bool(least <= delta)


def affordable_releases(*, noise_multiplier: float, delta: float, epsilon: float) -> int:
    """Return how many noisy sums a budget allows, MOST_RELEASES at most; as keeps_within, without the accountant."""

    def fits(releases: int) -> bool:
        return keeps_within(releases, noise_multiplier=noise_multiplier, epsilon=epsilon, delta=delta)

    low, high = 0, 1
    while high < MOST_RELEASES and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
