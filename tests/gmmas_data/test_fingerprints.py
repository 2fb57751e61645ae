import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from gmmas_data.fingerprints import BANDS, fingerprint_of, is_same_patient, keyed_bands, similarity
from gmmas_data.normalisation import foreground
from gmmas_data.volumes import read_image
from gmmas_schema.errors import TrustError
from gmmas_schema.vocabulary import Modality
from tests.gmmas_data.real_case import NAMED

SALT = bytes(range(32))
FLAIR = read_image(NAMED[Modality.FLAIR])
MASK = ndimage.binary_fill_holes(foreground(FLAIR.values_XYZ))
ORIGINAL = fingerprint_of(FLAIR.values_XYZ, MASK, FLAIR.affine)


def bands(coefficients: np.ndarray, salt: bytes = SALT, modality: Modality = Modality.FLAIR) -> tuple[str, ...]:
    return keyed_bands(tuple(map(float, coefficients)), modality=modality, salt=salt)


def same(coefficients: np.ndarray) -> bool:
    return is_same_patient(bands(coefficients), bands(ORIGINAL))


def cosine(coefficients: np.ndarray) -> float:
    return similarity({Modality.FLAIR: tuple(map(float, coefficients))}, {Modality.FLAIR: tuple(map(float, ORIGINAL))})


@settings(max_examples=8)
@given(axes=st.permutations([0, 1, 2]), flips=st.tuples(st.booleans(), st.booleans(), st.booleans()), scale=st.floats(0.01, 100))
def test_storage_and_scale_change_nothing(axes: list[int], flips: tuple[bool, ...], scale: float) -> None:
    values, mask, affine = FLAIR.values_XYZ * np.float32(scale), MASK, FLAIR.affine.copy()
    for axis, flip in enumerate(flips):
        if flip:
            turn = np.eye(4)
            turn[axis, axis], turn[axis, 3] = -1, values.shape[axis] - 1
            values, mask, affine = np.flip(values, axis), np.flip(mask, axis), affine @ turn
    affine[:, :3] = affine[:, axes]
    found = fingerprint_of(np.transpose(values, axes), np.transpose(mask, axes), affine)
    assert cosine(found) > 0.99


def test_another_mask_and_another_spacing_are_found_again() -> None:
    smaller = ndimage.binary_erosion(MASK)
    assert same(fingerprint_of(np.where(smaller, FLAIR.values_XYZ, 0), smaller, FLAIR.affine))
    coarse, mask = ndimage.zoom(FLAIR.values_XYZ, 0.6, order=1), ndimage.zoom(MASK.astype(np.float32), 0.6, order=1) > 0.5
    assert same(fingerprint_of(coarse, mask, FLAIR.affine @ np.diag([1 / 0.6] * 3 + [1])))


def test_a_mirrored_brain_is_its_own_opposite() -> None:
    assert cosine(fingerprint_of(FLAIR.values_XYZ[::-1], MASK[::-1], FLAIR.affine)) < -0.95


def test_the_other_side_tumour_or_another_brain_is_another() -> None:
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=MASK.shape), 4).astype(np.float32)
    assert not same(fingerprint_of(noise, MASK, FLAIR.affine))


def test_another_salt_or_sequence_shares_nothing() -> None:
    assert len(set(bands(ORIGINAL))) == BANDS
    assert not set(bands(ORIGINAL)) & set(bands(ORIGINAL, salt=SALT[::-1]))
    assert not set(bands(ORIGINAL)) & set(bands(ORIGINAL, modality=Modality.T2))


def test_a_short_salt_is_refused() -> None:
    with pytest.raises(TrustError, match="too short"):
        bands(ORIGINAL, salt=b"secret")


@given(st.lists(st.floats(-1, 1), min_size=96, max_size=96))
def test_hashes_depend_on_signs_alone(coefficients: list[float]) -> None:
    assert bands(np.array(coefficients)) == bands(np.sign(coefficients) * 0.5)
