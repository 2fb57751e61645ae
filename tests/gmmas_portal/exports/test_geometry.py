import itertools

import numpy as np
import pytest

from gmmas_portal.exports.geometry import place_volume
from gmmas_schema.errors import DataError

AFFINES = {
    "ras": np.diag([1.0, 2, 3, 1]),
    "lps": np.array([[-1.0, 0, 0, 90], [0, -2, 0, 100], [0, 0, 3, -50], [0, 0, 0, 1]]),
    "las": np.array([[-1.0, 0, 0, 90], [0, 2, 0, -100], [0, 0, 3, -50], [0, 0, 0, 1]]),
    "sagittal": np.array([[0.0, 0, 3, -40], [-1, 0, 0, 30], [0, -2, 0, 70], [0, 0, 0, 1]]),
}


def _oblique() -> np.ndarray:
    rotation, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * [1.0, 1.5, 4.0], (5, -6, 7)
    return affine


@pytest.mark.parametrize("affine", [*AFFINES.values(), _oblique(), _oblique() @ np.diag([-1.0, 1, 1, 1])])
def test_every_voxel_stays_where_it_is(affine: np.ndarray) -> None:
    values = np.random.default_rng(0).integers(1, 1000, (4, 5, 6)).astype(np.uint16)
    volume = place_volume(values, affine, frame_uid="2.25.1")
    found = {}
    for index in np.ndindex(volume.array.shape):
        x, y, z = (volume.affine @ [*index, 1])[:3]
        found[tuple(np.round([-x, -y, z], 6) + 0.0)] = volume.array[index]
    for index in np.ndindex(values.shape):
        place = tuple(np.round((affine @ [*index, 1])[:3], 6) + 0.0)
        assert found[place] == values[index]


@pytest.mark.parametrize("affine", [*AFFINES.values(), _oblique(), _oblique() @ np.diag([-1.0, 1, 1, 1])])
def test_slices_ascend_along_the_normal_of_their_plane(affine: np.ndarray) -> None:
    volume = place_volume(np.ones((4, 5, 6), dtype=np.uint16), affine, frame_uid="2.25.1")
    along = np.array(volume.get_plane_orientation()[0].ImageOrientationPatient, dtype=float)
    normal = np.cross(along[:3], along[3:])
    heights = [normal @ np.array(p[0].ImagePositionPatient, dtype=float) for p in volume.get_plane_positions()]
    assert all(b > a for a, b in itertools.pairwise(heights))


def test_dust_in_a_header_is_rounded_off_and_shear_is_refused() -> None:
    dusty = AFFINES["ras"].copy()
    dusty[0, 1] = 1e-6
    assert place_volume(np.ones((4, 5, 6), dtype=np.uint8), dusty, frame_uid="2.25.1").spacing == pytest.approx((3, 2, 1))
    sheared = AFFINES["ras"].copy()
    sheared[0, 1] = 0.1
    with pytest.raises(DataError, match="DICOM"):
        place_volume(np.ones((4, 5, 6), dtype=np.uint8), sheared, frame_uid="2.25.1")
