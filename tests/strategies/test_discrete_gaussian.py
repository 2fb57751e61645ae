import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from strategies import discrete_gaussian
from strategies.discrete_gaussian import LARGEST_VARIANCE, draw
from strategies.noise import NoiseSource

KEY = bytes(range(32))


def probabilities(variance, reach):
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * variance))
    return weights / weights.sum()


def fit(values, variance):
    """Return the p-value of chi-square against the definition; the tails are put together."""
    reach = math.ceil(3.5 * math.sqrt(variance)) + 1
    expected = probabilities(variance, 10 * reach)
    middle = slice(9 * reach, 11 * reach + 1)
    counts = np.bincount(np.clip(values, -reach, reach) + reach, minlength=2 * reach + 1)
    chances = expected[middle].copy()
    chances[0], chances[-1] = expected[: middle.start + 1].sum(), expected[middle.stop - 1 :].sum()
    return stats.chisquare(counts, chances / chances.sum() * values.size).pvalue


@pytest.mark.parametrize("variance", [1, 2, 9, 300])
def test_every_integer_has_its_probability(variance):
    assert fit(draw(NoiseSource(KEY), 60_000, variance=variance), variance) > 1e-3


@pytest.mark.parametrize("variance", [2**20, 2**60, LARGEST_VARIANCE])
def test_far_from_the_grid_it_is_the_gaussian(variance):
    values = draw(NoiseSource(KEY), 60_000, variance=variance)
    assert values.dtype == np.int64
    assert stats.kstest(values / math.sqrt(variance), "norm").pvalue > 1e-3


def test_what_doubles_cannot_decide_is_decided_exactly(monkeypatch):
    """Every trial is in doubt here."""
    monkeypatch.setattr(discrete_gaussian, "DOUBT", 2.0)
    assert fit(draw(NoiseSource(KEY), 600, variance=2), 2) > 1e-3


@pytest.mark.parametrize("exponent", [Fraction(0), Fraction(1, 3), Fraction(1), Fraction(40), Fraction(2**200 + 1, 2**200)], ids=str)
def test_a_trial_is_decided_at_the_very_limit(exponent):
    limit = math.exp(-exponent) * 2**64
    below, above = math.floor(limit * (1 - 2**-50)) - 1, math.ceil(limit * (1 + 2**-50)) + 1
    source = NoiseSource(KEY)
    assert below < 0 or discrete_gaussian._decide(source, below, exponent)
    assert above >= 2**64 or not discrete_gaussian._decide(source, above, exponent)


def test_the_bound_on_the_error_of_doubles_is_not_reached():
    """Against 80 digits, at the largest variance."""
    variance = LARGEST_VARIANCE
    scale = math.isqrt(variance) + 1
    laplace_N = np.array([0, 1, scale, scale + 1, 3 * scale - 7, 8 * scale + 5, 30 * scale], np.int64)
    doubles_N = np.exp(-((np.abs(laplace_N) - variance / scale) ** 2) / float(2 * variance))
    for value, found in zip(laplace_N.tolist(), doubles_N.tolist(), strict=True):
        x = Fraction((value * scale - variance) ** 2, 2 * variance * scale**2)
        true = discrete_gaussian._DIGITS.exp(-discrete_gaussian._DIGITS.divide(x.numerator, x.denominator))
        assert abs(found - float(true)) < discrete_gaussian.DOUBT / 1000


def test_blocks_and_few_numbers_are_independent_draws(monkeypatch):
    monkeypatch.setattr(discrete_gaussian, "BLOCK", 64)
    values = draw(NoiseSource(KEY), 20_000, variance=9)
    assert values.size == 20_000
    assert fit(values, 9) > 1e-3
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.03
    assert draw(NoiseSource(KEY), 1, variance=9).shape == (1,)
    assert draw(NoiseSource(KEY), 0, variance=9).shape == (0,)


def test_nobody_can_draw_the_same_noise_again():
    assert not np.array_equal(draw(NoiseSource(), 50, variance=2**40), draw(NoiseSource(), 50, variance=2**40))
