import numpy as np
import pytest

from gmmas_portal.analysis.foci import count_foci, largest_focus


def _mask(*boxes: tuple[int, int]) -> np.ndarray:
    mask = np.zeros((40, 10, 10), dtype=bool)
    for start, length in boxes:
        mask[start : start + length, 2:7, 2:7] = True
    return mask


def test_voxels_that_touch_by_a_corner_are_one_focus() -> None:
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    assert count_foci(mask, voxel_ml=0.1) == 1


@pytest.mark.parametrize(("voxels", "foci"), [(100, 1), (99, 0)])
def test_a_focus_counts_from_a_tenth_of_a_millilitre(voxels: int, foci: int) -> None:
    mask = np.zeros(1000, dtype=bool)
    mask[:voxels] = True
    assert count_foci(mask.reshape(10, 10, 10), voxel_ml=0.001) == foci


def test_the_largest_focus_is_found_among_several() -> None:
    mask = _mask((0, 3), (10, 8), (30, 5))
    assert count_foci(mask, voxel_ml=0.01) == 3
    assert np.array_equal(largest_focus(mask), _mask((10, 8)))


def test_nothing_has_no_focus() -> None:
    assert count_foci(_mask(), voxel_ml=1.0) == 0
    assert not largest_focus(_mask()).any()
