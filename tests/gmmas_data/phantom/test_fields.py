"""Grids, B-splines and random fields."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_data.phantom.fields import Grid, apply_separable, random_field, resample, smoothstep, spline_matrix

positions = st.lists(st.floats(-20, 40, allow_nan=False), min_size=1, max_size=20)


@given(positions, st.integers(4, 20))
def test_spline_weights_are_a_partition_of_one(at: list[float], count: int) -> None:
    matrix = spline_matrix(np.array(at), count)
    assert matrix.shape == (len(at), count)
    assert (matrix >= 0).all()
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-5)


@given(st.floats(2, 16), st.floats(-3, 3), st.floats(-10, 10))
def test_splines_reproduce_straight_lines(at: float, slope: float, level: float) -> None:
    line = (slope * np.arange(20) + level).astype(np.float32)
    value = float((spline_matrix(np.array([at]), 20) @ line)[0])
    assert value == pytest.approx(slope * at + level, abs=1e-3)


def test_apply_separable_is_one_product_per_axis() -> None:
    rng = np.random.default_rng(0)
    volume = rng.standard_normal((4, 5, 6)).astype(np.float32)
    a, b, c = (rng.standard_normal((n + 2, n)).astype(np.float32) for n in volume.shape)
    np.testing.assert_allclose(apply_separable(volume, (a, b, c)), np.einsum("ai,bj,ck,ijk->abc", a, b, c, volume), rtol=2e-4, atol=1e-4)


def test_grid_covers_its_box() -> None:
    grid = Grid.covering((-3, -4, -5), (3, 4, 6), 2.0)
    assert grid.shape == (3, 4, 6)
    assert grid.axes_mm[0].ravel().tolist() == [-2, 0, 2]
    assert grid.to_voxel(grid.axes_mm[1], axis=1).ravel().tolist() == [0, 1, 2, 3]
    assert grid.voxel_ml == pytest.approx(0.008)


def test_resampling_keeps_a_smooth_volume_in_place() -> None:
    coarse, fine = Grid.covering((-40, -40, -40), (40, 40, 40), 4.0), Grid.covering((-40, -40, -40), (40, 40, 40), 2.0)

    def blob(grid: Grid) -> np.ndarray:
        x, y, z = grid.axes_mm
        return np.exp(-((x - 5) ** 2 + y**2 + (z + 3) ** 2) / 400).astype(np.float32)

    assert np.abs(resample(blob(coarse), source=coarse, target=fine) - blob(fine)).max() < 0.05


def test_random_field_has_unit_variance_and_the_asked_smoothness() -> None:
    grid = Grid.covering((0, 0, 0), (120, 120, 120), 2.0)
    fine, rough = (random_field(np.random.default_rng(1), grid, length_mm=mm, octaves=1) for mm in (10, 4))
    for field in (fine, rough):
        assert field.dtype == np.float32
        assert field.std() == pytest.approx(1, abs=0.15)
    assert np.diff(fine, axis=0).std() < 0.6 * np.diff(rough, axis=0).std()


def test_random_field_repeats_with_its_seed() -> None:
    grid = Grid.covering((0, 0, 0), (20, 30, 40), 2.0)
    one, same, other = (random_field(np.random.default_rng(s), grid, length_mm=6, octaves=2) for s in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


@given(st.floats(-5, 5), st.floats(-2, 0), st.floats(0.1, 2))
def test_smoothstep_stays_between_0_and_1(x: float, low: float, high: float) -> None:
    value = float(smoothstep(np.array([x], np.float32), low, high)[0])
    assert 0 <= value <= 1
    assert value == (0 if x <= low else 1 if x >= high else pytest.approx(value))
