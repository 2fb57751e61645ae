import math
from dataclasses import replace

import numpy as np
import pytest

from gmmas_data.patches import crop, draw_corner, random_patch
from gmmas_data.samples import Sample

SHAPE, PATCH = (20, 16, 12), (8, 8, 8)


@pytest.fixture
def sample() -> Sample:
    """A brain of 12 x 12 x 10 voxels in its box, with a whole tumour of 48, a core of 8 and an enhancing tumour of 1 voxel."""
    rng = np.random.default_rng(0)
    image_MXYZ = np.zeros((4, *SHAPE), dtype=np.float32)
    image_MXYZ[:, 4:16, 2:14, 1:11] = rng.normal(size=(4, 12, 12, 10))
    image_MXYZ[3] = 0
    regions_RXYZ = np.zeros((3, *SHAPE), dtype=np.uint8)
    regions_RXYZ[0, 5:9, 4:8, 4:7] = 1
    regions_RXYZ[1, 5:7, 4:6, 4:6] = 1
    regions_RXYZ[2, 6, 5, 5] = 1
    affine = np.diag([-2.0, 2, 2, 1])
    affine[:3, 3] = 10, -20, 30
    return Sample(
        case_id="a",
        patient_id="a",
        image_MXYZ=image_MXYZ,
        present_M=np.array([True, True, True, False]),
        regions_RXYZ=regions_RXYZ,
        idh=1.0,
        codeletion=math.nan,
        affine=affine,
        native_affine=affine,
        native_shape=SHAPE,
    )


def _centres(sample: Sample, *, draws: int = 300, share: float) -> np.ndarray:
    """Return the voxels on which patches of one voxel lie: the centres themselves."""
    rng = np.random.default_rng(1)
    return np.array([draw_corner(sample, (1, 1, 1), rng, tumour_share=share) for _ in range(draws)])


def test_a_patch_is_the_part_of_the_sample_that_its_affine_says(sample) -> None:
    patch = crop(sample, (3, 5, 2), PATCH)
    np.testing.assert_array_equal(patch.image_MXYZ, sample.image_MXYZ[:, 3:11, 5:13, 2:10])
    np.testing.assert_array_equal(patch.regions_RXYZ, sample.regions_RXYZ[:, 3:11, 5:13, 2:10])
    np.testing.assert_allclose(patch.affine @ [0, 0, 0, 1], sample.affine @ [3, 5, 2, 1])
    np.testing.assert_allclose(patch.affine @ [1, 2, 3, 1], sample.affine @ [4, 7, 5, 1])
    assert (patch.idh, patch.native_shape) == (sample.idh, sample.native_shape)


def test_patches_lie_in_the_box_and_repeat_with_the_generator(sample) -> None:
    corners = [draw_corner(sample, PATCH, np.random.default_rng(seed)) for seed in range(50)]
    assert corners == [draw_corner(sample, PATCH, np.random.default_rng(seed)) for seed in range(50)]
    assert len(set(corners)) > 10
    assert all(0 <= at <= whole - n for corner in corners for at, n, whole in zip(corner, PATCH, SHAPE, strict=True))
    assert random_patch(sample, SHAPE, np.random.default_rng(0)).image_MXYZ.shape == sample.image_MXYZ.shape


def test_the_stated_share_is_centred_on_the_tumour(sample) -> None:
    at = _centres(sample, draws=600, share=0.5)
    on_tumour = sample.regions_RXYZ[0][tuple(at.T)].mean()
    # 48 of the 1440 brain voxels are tumour too.
    assert on_tumour == pytest.approx(0.5 + 0.5 * 48 / 1440, abs=0.06)
    assert sample.image_MXYZ[:, *at.T].any(0).all()


def test_each_region_is_drawn_as_often(sample) -> None:
    at = _centres(sample, draws=900, share=1.0)
    shares = sample.regions_RXYZ[:, *at.T].mean(1)
    assert shares == pytest.approx([1, 2 / 3 + 1 / 3 * 8 / 48, 1 / 3 + 1 / 3 * 1 / 8 + 1 / 3 * 1 / 48], abs=0.06)


@pytest.mark.parametrize("regions", [None, np.zeros((3, *SHAPE), dtype=np.uint8)])
def test_without_a_known_tumour_patches_are_centred_on_the_brain(sample, regions) -> None:
    blind = replace(sample, regions_RXYZ=regions)
    at = _centres(blind, share=1.0)
    assert blind.image_MXYZ[:, *at.T].any(0).all()
    assert np.ptp(at, axis=0).min() >= 8


def test_an_absent_sequence_is_no_brain(sample) -> None:
    blind = replace(sample, regions_RXYZ=None, image_MXYZ=sample.image_MXYZ.copy())
    blind.image_MXYZ[3, :4] = 1
    assert _centres(blind, share=0.0)[:, 0].min() >= 4


def test_a_brain_of_one_voxel_is_found_and_an_empty_box_has_patches(sample) -> None:
    image_MXYZ = np.zeros_like(sample.image_MXYZ)
    empty = replace(sample, regions_RXYZ=None, image_MXYZ=image_MXYZ)
    assert len({tuple(at) for at in _centres(empty, draws=20, share=0.0)}) > 10
    image_MXYZ[0, 11, 3, 7] = -1
    assert {tuple(at) for at in _centres(empty, draws=5, share=0.0)} == {(11, 3, 7)}
