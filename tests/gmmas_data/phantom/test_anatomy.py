"""The subject's head: an invertible map, and tissue that is whole."""

import numpy as np
import pytest

from gmmas_data.phantom.anatomy import COARSE, coarse_tissue, draw_head, draw_sulci, fine_tissue, sample
from gmmas_data.phantom.atlas import Atlas


@pytest.mark.parametrize("seed", range(4))
def test_placing_points_inverts_the_pull_back(seed: int) -> None:
    head = draw_head(np.random.default_rng(seed))
    atlas_points = np.random.default_rng(9).uniform((-50, -80, -40), (50, 50, 60), (50, 3)).astype(np.float32)
    subject_points = head.place(atlas_points)
    back = np.stack([sample(c, COARSE, subject_points) for c in head.sources_mm(COARSE)], axis=1)
    assert np.abs(back - atlas_points).max() < 0.6


@pytest.mark.parametrize("seed", range(4))
def test_the_map_never_folds(seed: int) -> None:
    x, y, z = draw_head(np.random.default_rng(seed)).sources_mm(COARSE)
    jacobian = np.stack([np.stack(np.gradient(c, COARSE.spacing_mm)) for c in (x, y, z)])
    determinant = np.abs(np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1))))
    assert determinant.min() > 0.2
    assert determinant.max() < 3


def test_a_push_moves_tissue_along_it() -> None:
    head = draw_head(np.random.default_rng(0))
    nothing = np.zeros(COARSE.shape, np.float32)
    pushed = head.pushed_by((nothing, nothing, nothing + 5))
    point = np.array([[20.0, -10.0, 30.0]], np.float32)
    assert (pushed.place(point) - head.place(point))[0] == pytest.approx([0, 0, 5], abs=0.8)


def test_tissue_is_whole_inside_and_absent_outside(atlas: Atlas) -> None:
    rng = np.random.default_rng(0)
    coarse, depth_mm, ventricle = coarse_tissue(atlas, draw_head(rng))
    tissue = fine_tissue(coarse.grey_XYZ, coarse.white_XYZ, depth_mm, draw_sulci(rng, COARSE), age_years=50)
    total = tissue.csf_XYZ + tissue.grey_XYZ + tissue.white_XYZ
    np.testing.assert_allclose(total, depth_mm > 0, atol=1e-4)
    assert 0 <= ventricle.min() <= ventricle.max() <= 1


def test_age_shrinks_the_brain(atlas: Atlas) -> None:
    coarse, depth_mm, _ = coarse_tissue(atlas, draw_head(np.random.default_rng(0)))
    csf = [
        fine_tissue(coarse.grey_XYZ, coarse.white_XYZ, depth_mm, draw_sulci(np.random.default_rng(1), COARSE), age_years=age).csf_XYZ.sum()
        for age in (25, 50, 80)
    ]
    assert csf[0] < csf[1] < csf[2]
