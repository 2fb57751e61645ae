import numpy as np
import pytest
from scipy import stats

from strategies.noise import NoiseSource

KEY = bytes(range(32))


def test_it_is_gaussian_in_the_middle_and_in_the_tails():
    values = NoiseSource(KEY).gaussian(200_001, deviation=3.0)
    assert values.shape == (200_001,)
    assert stats.kstest(values / 3, "norm").pvalue > 0.01
    assert values.std() == pytest.approx(3.0, rel=0.01)
    assert abs(values.mean()) < 0.03
    beyond = np.mean(np.abs(values) > 9)
    assert beyond == pytest.approx(2 * stats.norm.sf(3), rel=0.15)


def test_numbers_of_one_stream_are_independent():
    source = NoiseSource(KEY)
    first, second = source.gaussian(50_000, deviation=1), source.gaussian(50_000, deviation=1)
    for one, other in ((first, second), (first[:-1], first[1:]), (first[:25_000], first[25_000:])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.02


def test_nobody_can_draw_the_same_noise_again():
    assert not np.array_equal(NoiseSource().gaussian(8, deviation=1), NoiseSource().gaussian(8, deviation=1))
    np.testing.assert_array_equal(NoiseSource(KEY).gaussian(8, deviation=1), NoiseSource(KEY).gaussian(8, deviation=1))


def test_uniform_numbers_are_never_zero_or_one():
    assert np.isfinite(NoiseSource(KEY).gaussian(100_000, deviation=1)).all()
