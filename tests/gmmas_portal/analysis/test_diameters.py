import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gmmas_portal.analysis.diameters import largest_slice_diameters, longest_diameter
from tests.gmmas_portal.analysis.bodies import MNI_AFFINE, ball

ISOTROPIC = np.eye(4)
MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, min_side=2, max_side=5)).filter(np.any)


def _faces(mask: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return the face centres of all voxels, by the definition."""
    steps = [sign * np.eye(len(axes))[n] / 2 for n in range(len(axes)) for sign in (-1, 1)]
    return np.array([voxel + step for voxel in np.argwhere(mask) for step in steps])


@pytest.mark.parametrize("length", [1, 2, 7])
def test_a_row_of_voxels_is_as_long_as_they_are(length: int) -> None:
    mask = np.zeros((9, 3, 3), dtype=bool)
    mask[1 : 1 + length, 1, 1] = True
    assert longest_diameter(mask, np.diag([3.0, 1, 1, 1])) == pytest.approx(3 * length)


def test_a_ball_has_its_diameter() -> None:
    assert longest_diameter(ball((4.0, -20, 14), 25.0), MNI_AFFINE) == pytest.approx(50, abs=2.0)


@settings(max_examples=20)
@given(MASKS, st.floats(0.5, 3), st.floats(0.5, 3), st.floats(0.5, 3))
def test_the_longest_diameter_is_that_of_all_pairs(mask: np.ndarray, x: float, y: float, z: float) -> None:
    affine = np.diag([x, y, z, 1.0])
    points = _faces(mask, (0, 1, 2)) * [x, y, z]
    expected = np.linalg.norm(points[:, None] - points[None], axis=-1).max()
    assert longest_diameter(mask, affine) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=10)
@given(MASKS, st.integers(0, 2**32 - 1))
def test_turning_the_patient_changes_no_diameter(mask: np.ndarray, seed: int) -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    turned = np.eye(4)
    turned[:3, :3], turned[:3, 3] = rotation * 1.5, (10, -20, 30)
    straight = np.diag([1.5, 1.5, 1.5, 1.0])
    assert longest_diameter(mask, turned) == pytest.approx(longest_diameter(mask, straight), rel=1e-9)
    ours, theirs = (largest_slice_diameters(mask, affine, axis=2) for affine in (turned, straight))
    assert (ours.longest_mm, ours.place) == (pytest.approx(theirs.longest_mm, rel=1e-9), theirs.place)


def test_the_slice_with_the_longest_diameter_is_taken_and_the_other_is_at_right_angles() -> None:
    mask = np.zeros((30, 30, 5), dtype=bool)
    mask[5:9, 5:9, 1] = True
    mask[5:25, 10:16, 3] = True
    found = largest_slice_diameters(mask, np.diag([1.0, 1, 4, 1]), axis=2)
    # The farthest face centres of a bar of 20 by 6: two end faces in opposite corners, 20 along and 5 across.
    assert found.place == 3
    assert found.longest_mm == pytest.approx(np.hypot(20, 5))
    assert 5.5 < found.perpendicular_mm < 6.6


def test_a_ring_is_measured_across_its_hole() -> None:
    y, x = np.mgrid[:41, :41] - 20
    ring = (np.hypot(x, y) <= 15) & (np.hypot(x, y) >= 11)
    found = largest_slice_diameters(ring[:, :, None], ISOTROPIC, axis=2)
    assert found.longest_mm == pytest.approx(31, abs=0.6)
    assert found.perpendicular_mm == pytest.approx(31, abs=0.6)


def test_diameters_lie_in_the_slices_of_the_named_axis() -> None:
    mask = np.zeros((4, 30, 4), dtype=bool)
    mask[1, 2:28, 1] = True
    assert largest_slice_diameters(mask, ISOTROPIC, axis=2).longest_mm == pytest.approx(26)
    assert largest_slice_diameters(mask, ISOTROPIC, axis=1).longest_mm == pytest.approx(1)


@settings(max_examples=8)
@given(hnp.arrays(np.bool_, (6, 6, 1)).filter(np.any))
def test_the_chord_at_right_angles_is_that_of_a_dense_scan(mask: np.ndarray) -> None:
    """Held against cutting the hull at many places, with another way of cutting (half-planes of the hull)."""
    from scipy.spatial import ConvexHull

    found = largest_slice_diameters(mask, ISOTROPIC, axis=2)
    points = _faces(mask[:, :, 0], (0, 1))
    hull = ConvexHull(points)
    candidates = []
    for a, b in itertools.combinations(points, 2):
        if np.linalg.norm(a - b) < found.longest_mm - 1e-9:
            continue
        along = (b - a) / np.linalg.norm(b - a)
        across = np.array([-along[1], along[0]])
        best = 0.0
        for u in np.linspace((points @ along).min(), (points @ along).max(), 1500):
            normal, offset = hull.equations[:, :2] @ across, hull.equations[:, :2] @ (u * along) + hull.equations[:, 2]
            with np.errstate(divide="ignore", invalid="ignore"):
                cut = -offset / normal
            best = max(best, float(np.min(cut[normal > 1e-12]) - np.max(cut[normal < -1e-12])))
        candidates.append(best)
    assert found.perpendicular_mm == pytest.approx(max(candidates), abs=0.05)
