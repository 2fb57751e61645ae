import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_data.augmentation import Augmentation, apply, augment, draw
from gmmas_data.normalisation import CLIP
from gmmas_data.preprocessing import preprocess_case, restore_to_native
from gmmas_data.samples import Sample
from gmmas_schema.model import GridConfig
from gmmas_schema.vocabulary import Modality
from tests.gmmas_data.scans import case_in


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder: Path = tmp_path_factory.mktemp("case")
    return preprocess_case(case_in(folder, modalities=[Modality.T1, Modality.FLAIR]), GridConfig(spacing_mm=2, shape=(18, 20, 16)))


def test_nothing_drawn_changes_nothing(sample: Sample) -> None:
    same = apply(sample, Augmentation())
    np.testing.assert_array_equal(same.image_MXYZ, sample.image_MXYZ)
    np.testing.assert_array_equal(same.regions_RXYZ, sample.regions_RXYZ)
    assert same.image_MXYZ is not sample.image_MXYZ


@given(seed=st.integers(0, 2**63 - 1))
def test_a_draw_can_be_replayed_and_keeps_the_rules(sample: Sample, seed: int) -> None:
    before = sample.image_MXYZ.copy()
    once = augment(sample, np.random.default_rng(seed))
    again = apply(sample, draw(np.random.default_rng(seed), modalities=4))
    np.testing.assert_array_equal(once.image_MXYZ, again.image_MXYZ)
    np.testing.assert_array_equal(sample.image_MXYZ, before)
    assert once.image_MXYZ.dtype == np.float32
    assert np.isfinite(once.image_MXYZ).all()
    assert not once.image_MXYZ[~sample.present_M].any(), "an absent scan stays absent"
    assert (once.image_MXYZ != 0).sum() == pytest.approx((before != 0).sum(), rel=1e-3), "the brain keeps its extent"
    assert once.regions_RXYZ.sum() == sample.regions_RXYZ.sum()
    assert np.abs(once.image_MXYZ).max() < CLIP * 1.1 + 0.7


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flip_moves_image_regions_and_affine_together(sample: Sample, axis: int) -> None:
    flipped = apply(sample, Augmentation(flip=tuple(a == axis for a in range(3))))
    np.testing.assert_array_equal(flipped.image_MXYZ, np.flip(sample.image_MXYZ, 1 + axis))
    np.testing.assert_array_equal(flipped.regions_RXYZ, np.flip(sample.regions_RXYZ, 1 + axis))
    assert flipped.image_MXYZ.flags.c_contiguous
    np.testing.assert_allclose(restore_to_native(flipped.image_MXYZ, flipped), restore_to_native(sample.image_MXYZ, sample), atol=1e-5)


def test_intensity_parameters_do_what_they_say(sample: Sample) -> None:
    inside = sample.image_MXYZ[0] != 0
    values = sample.image_MXYZ[0][inside]
    linear = apply(sample, Augmentation(scale=(1.1, 1, 1, 1), shift=(0.2, 0, 0, 0)))
    np.testing.assert_allclose(linear.image_MXYZ[0][inside], values * 1.1 + 0.2, rtol=1e-5)
    np.testing.assert_array_equal(linear.image_MXYZ[3], sample.image_MXYZ[3])
    bent = apply(sample, Augmentation(gamma=(2, 1, 1, 1)))
    np.testing.assert_allclose(bent.image_MXYZ[0][inside], 2 * CLIP * ((values + CLIP) / (2 * CLIP)) ** 2 - CLIP, atol=1e-5)
    noisy = apply(sample, Augmentation(noise=(0.5, 0, 0, 0), noise_seed=3))
    assert (noisy.image_MXYZ[0][inside] - values).std() == pytest.approx(0.5, rel=0.1)
    assert not noisy.image_MXYZ[0][~inside].any()


def test_left_right_is_flipped_half_of_the_time() -> None:
    rng = np.random.default_rng(0)
    flips = np.array([draw(rng, modalities=4).flip for _ in range(2000)])
    np.testing.assert_allclose(flips.mean(axis=0), [0.5, 0.1, 0.1], atol=0.04)


def test_it_is_fast(tmp_path: Path) -> None:
    """5 ms is the promise; the bound leaves room for a loaded machine."""
    image = np.random.default_rng(0).normal(size=(4, 48, 48, 48)).astype(np.float32)
    image[:, :, :, :30] = 0
    whole = Sample("x", "x", image, np.ones(4, bool), None, 0.0, 0.0, np.eye(4), np.eye(4), (48, 48, 48))
    rng, begin = np.random.default_rng(0), time.process_time()
    for _ in range(20):
        augment(whole, rng)
    assert (time.process_time() - begin) / 20 < 0.025
