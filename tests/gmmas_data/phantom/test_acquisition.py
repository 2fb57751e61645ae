"""The scanner's faults."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_data.phantom.acquisition import _shift_matrix, _slice_matrix, acquire, quantise
from gmmas_data.phantom.fields import Grid
from gmmas_schema.phantom import ScannerConfig
from gmmas_schema.vocabulary import Modality

GRID = Grid.covering((0, 0, 0), (60, 60, 60), 2.0)


@given(st.integers(12, 60), st.floats(0.3, 4), st.floats(0, 0.999))
def test_slices_keep_the_mean(n: int, thickness: float, offset: float) -> None:
    matrix = _slice_matrix(n, thickness, offset)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)
    assert (matrix >= 0).all()


@given(st.integers(2, 40), st.floats(-1.5, 1.5))
def test_shifting_keeps_the_mean_and_moves_a_line(n: int, shift: float) -> None:
    matrix = _shift_matrix(n, shift)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(matrix @ np.arange(n), np.clip(np.arange(n) + shift, 0, n - 1), atol=1e-4)


def test_thick_slices_blur_across_but_not_within() -> None:
    rng = np.random.default_rng(0)
    image = rng.random(GRID.shape, dtype=np.float32)
    scanner = ScannerConfig(noise=0, bias=0, ghosting=0, thickness_mm=8, axis=2)
    seen = acquire(np.random.default_rng(0), image, Modality.T2, scanner, GRID)
    seen = seen / seen.mean()
    assert np.diff(seen, axis=2).std() < 0.4 * np.diff(seen, axis=0).std()


def test_noise_is_rician_in_air() -> None:
    scanner = ScannerConfig(noise=0.05, bias=0, ghosting=0)
    seen = acquire(np.random.default_rng(0), np.zeros(GRID.shape, np.float32), Modality.T1, scanner, GRID)
    assert seen.min() >= 0
    # Rayleigh: mean over standard deviation is sqrt(pi / (4 - pi)) = 1.913, moved a little by gamma.
    assert seen.mean() / seen.std() == pytest.approx(1.913, rel=0.12)


def test_whole_numbers_tell_the_brain_from_air() -> None:
    inside = np.zeros((2, 2, 2), bool)
    inside[0] = True
    values = quantise(np.array([[[0.1, 5.4], [1e9, 2]], [[7, 7], [7, 7]]], np.float32), inside)
    assert values.dtype == np.int16
    assert values[0].ravel().tolist() == [1, 5, 32000, 2]
    assert (values[1] == 0).all()
