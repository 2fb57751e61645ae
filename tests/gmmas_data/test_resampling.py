"""The geometry of resampling, checked on functions of the place in millimetres, whose right answer is known everywhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_data.resampling import place_grid, restore
from gmmas_schema.model import GridConfig
from tests.gmmas_data.scans import ellipsoid

SHAPE = (24, 30, 18)

orientations = st.tuples(st.permutations(range(3)), st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
spacings = st.tuples(*[st.sampled_from([0.5, 0.9375, 1.0, 1.3, 2.0, 3.0])] * 3)
origins = st.tuples(*[st.floats(-200, 200)] * 3)


def affine_of(
    orientation: tuple[list[int], tuple[float, ...]], spacing: tuple[float, ...], origin: tuple[float, ...], tilt: float = 0
) -> np.ndarray:
    """Return an affine with reordered, flipped, scaled and slightly tilted axes."""
    order, signs = orientation
    affine = np.diag([0.0, 0, 0, 1])
    for column, row in enumerate(order):
        affine[row, column] = signs[column] * spacing[column]
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    affine = turn @ affine
    affine[:3, 3] = origin
    return affine


def ramp(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a linear function of the place in millimetres at every voxel."""
    index = np.stack([*np.indices(shape), np.ones(shape)])
    x, y, z, _ = np.tensordot(affine, index, axes=1)
    return (0.3 * x - 0.7 * y + 0.2 * z + 5).astype(np.float32)


def interior(mask: np.ndarray, margin: int) -> np.ndarray:
    """Return the mask without its outermost voxels."""
    inner = np.zeros_like(mask)
    cut = tuple(slice(margin, n - margin) for n in mask.shape)
    inner[cut] = mask[cut]
    return inner


geometries = st.builds(affine_of, orientations, spacings, origins, st.floats(-0.3, 0.3))


@settings(max_examples=60)
@given(affine=geometries, spacing_mm=st.sampled_from([0.7, 1.0, 2.0, 3.1, 4.0]))
def test_forward_reproduces_a_ramp(affine: np.ndarray, spacing_mm: float) -> None:
    """Linear interpolation and a symmetric filter keep linear functions: any error of place would show."""
    grid = GridConfig(spacing_mm=spacing_mm, shape=(9, 10, 11))
    placement = place_grid(np.ones(SHAPE, bool), affine, grid)
    found = placement.resample(ramp(affine, SHAPE), placement.smooth())
    whole = placement.resample(np.ones(SHAPE, np.float32), placement.smooth()) > 1 - 1e-5
    expected = ramp(placement.affine, grid.shape)
    np.testing.assert_allclose(found[whole], expected[whole], atol=2e-3)
    assert np.linalg.det(placement.affine[:3, :3]) > 0, "the grid is right-handed"
    assert (np.diag(placement.affine)[:3] > 0.9 * spacing_mm).all(), "the grid points right, anterior, superior"


@settings(max_examples=60)
@given(affine=geometries, spacing_mm=st.sampled_from([0.7, 1.0, 2.0, 3.1]))
def test_restore_reproduces_a_ramp(affine: np.ndarray, spacing_mm: float) -> None:
    grid = GridConfig(spacing_mm=spacing_mm, shape=(12, 10, 14))
    placement = place_grid(np.ones(SHAPE, bool), affine, grid)
    volumes = np.stack([ramp(placement.affine, grid.shape), np.ones(grid.shape, np.float32)])
    found, inside = restore(volumes, affine=placement.affine, native_affine=affine, native_shape=SHAPE, order=1)
    assert found.shape == SHAPE
    edge = np.zeros(grid.shape, np.float32)
    edge[1:-1, 1:-1, 1:-1] = 1
    within = restore(edge[None], affine=placement.affine, native_affine=affine, native_shape=SHAPE, order=1)[0] > 1 - 1e-5
    np.testing.assert_allclose(found[within], ramp(affine, SHAPE)[within], atol=2e-3)
    index = np.stack([*np.indices(SHAPE), np.ones(SHAPE)])
    place = np.tensordot(np.linalg.inv(placement.affine) @ affine, index, axes=1)[:3]
    reach = np.reshape(grid.shape, (3, 1, 1, 1)) - 0.5
    np.testing.assert_allclose(inside[((place > -0.49) & (place < reach - 0.01)).all(axis=0)], 1, atol=1e-5)
    assert not inside[((place < -0.51) | (place > reach + 0.01)).any(axis=0)].any(), "beyond the grid there is nothing"


@settings(max_examples=40)
@given(orientation=orientations, order=st.sampled_from([0, 1]), origin=origins)
def test_equal_spacing_restores_exactly(orientation: tuple[list[int], tuple[float, ...]], order: int, origin: tuple[float, ...]) -> None:
    affine = affine_of(orientation, (1.2, 1.2, 1.2), origin)
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    placement = place_grid(np.ones(SHAPE, bool), affine, GridConfig(spacing_mm=1.2, shape=(32, 32, 32)))
    on_grid = placement.resample(values, placement.smooth())
    back = restore(on_grid[None], affine=placement.affine, native_affine=affine, native_shape=SHAPE, order=order)[0]
    np.testing.assert_array_equal(back, values)


@settings(max_examples=60)
@given(affine=geometries, spacing_mm=st.sampled_from([0.7, 1.0, 2.0, 4.0]), radius=st.floats(0.1, 0.4))
def test_area_keeps_the_volume(affine: np.ndarray, spacing_mm: float, radius: float) -> None:
    mask = ellipsoid(SHAPE, centre=(0.5, 0.45, 0.55), radii=(radius,) * 3)
    grid = GridConfig(spacing_mm=spacing_mm, shape=(140, 140, 140) if spacing_mm < 1 else (100, 100, 100))
    placement = place_grid(mask, affine, grid)
    found = placement.resample(mask, placement.area())
    native_mm3 = abs(np.linalg.det(affine[:3, :3]))
    assert found.sum(dtype=np.float64) * spacing_mm**3 == pytest.approx(mask.sum() * native_mm3, rel=1e-4)
    assert -1e-6 <= found.min() <= found.max() <= 1 + 1e-5


def test_the_grid_is_centred_on_the_mask() -> None:
    mask = np.zeros((40, 40, 40), bool)
    mask[4:14, 20:31, 38:40] = True
    placement = place_grid(mask, np.eye(4), GridConfig(spacing_mm=2, shape=(8, 8, 8)))
    middle = placement.affine @ [3.5, 3.5, 3.5, 1]
    np.testing.assert_allclose(middle[:3], [8.5, 25, 38.5], atol=0.51)


def test_detail_finer_than_the_grid_does_not_alias() -> None:
    """A checkerboard holds nothing a grid of four times its spacing could show; plain interpolation would show full amplitude."""
    board = (np.indices((48, 48, 48)).sum(axis=0) % 2 * 2 - 1).astype(np.float32)
    placement = place_grid(np.ones(board.shape, bool), np.eye(4), GridConfig(spacing_mm=4, shape=(8, 8, 8)))
    assert np.abs(placement.resample(board, placement.smooth())).max() < 0.01


def test_the_filter_widens_a_point_to_the_grids_own_spread() -> None:
    """A blurred point has the variance (ratio^2 - 1) / (8 ln 2) of the filter, and the linear interpolation's own few hundredths."""
    grid = GridConfig(spacing_mm=4, shape=(12, 12, 12))
    placement = place_grid(np.ones((48, 48, 48), bool), np.eye(4), grid)
    spread = np.stack(placement.smooth()[0]).astype(np.float64)
    index = np.arange(48)
    for row in spread[3:9]:
        centre = (row * index).sum() / row.sum()
        assert (row * (index - centre) ** 2).sum() / row.sum() == pytest.approx(15 / (8 * np.log(2)), abs=0.3)


def test_the_same_patient_stored_otherwise_is_the_same_sample() -> None:
    """Storing a volume along other axes moves no grid voxel, to the last bit."""
    rng = np.random.default_rng(0)
    values, mask = rng.normal(size=SHAPE).astype(np.float32), ellipsoid(SHAPE, centre=(0.4, 0.6, 0.5), radii=(0.3, 0.21, 0.35))
    grid = GridConfig(spacing_mm=2.5, shape=(9, 9, 9))
    plain = place_grid(mask, np.eye(4), grid)
    for order, flips in (((0, 1, 2), (0,)), ((0, 1, 2), (0, 1)), ((2, 0, 1), ()), ((1, 2, 0), (0, 2)), ((2, 1, 0), (1,))):
        to_plain = np.zeros((4, 4))
        to_plain[3, 3] = 1
        for new, old in enumerate(order):
            to_plain[old, new] = -1 if new in flips else 1
            to_plain[old, 3] = SHAPE[old] - 1 if new in flips else 0
        stored, stored_mask = (np.flip(v.transpose(order), flips) for v in (values, mask))
        other = place_grid(stored_mask, to_plain, grid)
        np.testing.assert_allclose(other.affine, plain.affine, atol=1e-9)
        np.testing.assert_array_equal(other.resample(stored, other.smooth()), plain.resample(values, plain.smooth()))
