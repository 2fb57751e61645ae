"""A brain that was bent by a known affine is found again. The template is its own patient here, with another contrast and a tumour."""

import os
from pathlib import Path

import nilearn.datasets
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from gmmas_data.cases import Case
from gmmas_data.quality import load_case
from gmmas_portal.analysis import atlas_registration
from gmmas_portal.analysis.atlas_registration import register_to_mni
from gmmas_schema.vocabulary import Layout, Modality

PLACES = np.array([[-40.0, 30, 20], [40, -30, 40], [0, -60, -20], [10, 0, 0], [-50, -20, -20]])


@pytest.fixture(scope="module")
def template() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    image = nilearn.datasets.load_mni152_template(resolution=3)
    return np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=np.float64)


def _bent(
    template: tuple[NDArray[np.float32], NDArray[np.float64]],
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Return a patient whose brain is the template tilted, smaller and shifted, and the matrix from MNI to the patient."""
    values, affine = template
    angle = np.radians(8)
    tilt = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    to_patient = np.eye(4)
    to_patient[:3, :3], to_patient[:3, 3] = tilt @ np.diag([0.95, 0.92, 1.05]), (9.0, 20, -12)
    own = affine @ np.diag([-1.0, 1, 1, 1])
    own[:3, 3] = (110, -120, -90)
    to_voxel = np.linalg.inv(affine) @ np.linalg.inv(to_patient) @ own
    patient = ndimage.affine_transform(values, to_voxel, output_shape=(74, 90, 72), order=1)
    return np.where(patient > 0.05, patient, 0).astype(np.float32), own, to_patient


def _place_errors_mm(found: NDArray[np.float64], to_patient: NDArray[np.float64]) -> NDArray[np.float64]:
    patient = PLACES @ to_patient[:3, :3].T + to_patient[:3, 3]
    return np.asarray(np.linalg.norm(patient @ found[:3, :3].T + found[:3, 3] - PLACES, axis=1))


def test_a_tilted_brain_of_another_contrast_with_a_tumour_is_laid_over_the_atlas(template) -> None:
    values, affine, to_patient = _bent(template)
    brain = values > 0
    flair = np.where(brain, 1.4 - values, 0).astype(np.float32)
    centre = np.linalg.inv(affine) @ to_patient @ [-35, 20, 30, 1]
    tumour = (np.linalg.norm(np.moveaxis(np.indices(brain.shape), 0, -1) - centre[:3], axis=-1) < 8) & brain
    flair[tumour] = 3.0
    found = register_to_mni({Modality.FLAIR: flair}, brain, affine, tumour=tumour)
    assert found is not None
    assert _place_errors_mm(found, to_patient).max() < 4


@pytest.mark.slow
def test_the_same_brain_is_laid_over_the_atlas_in_the_same_way_again(template) -> None:
    values, affine, _ = _bent(template)
    first, second = (register_to_mni({Modality.T1: values}, values > 0, affine) for _ in range(2))
    assert first is not None
    assert np.array_equal(first, second)


def test_a_body_that_is_no_brain_is_not_laid_over_the_atlas(monkeypatch) -> None:
    monkeypatch.setattr(atlas_registration, "_STEPS", 5)
    rod = np.zeros((60, 60, 60), dtype=bool)
    rod[27:33, 27:33, 2:58] = True
    noise = np.where(rod, np.random.default_rng(0).uniform(1, 2, rod.shape), 0).astype(np.float32)
    assert register_to_mni({Modality.T1: noise}, rod, np.diag([3.0, 3, 3, 1])) is None


@pytest.mark.real_data
def test_sequences_of_one_real_brain_are_laid_over_the_atlas_alike() -> None:
    root = Path(os.environ.get("GMMAS_REAL_DATA", "/nowhere")) / "ms-patient19"
    if not root.is_dir():
        pytest.skip("GMMAS_REAL_DATA names no folder with the multiple-sclerosis case")
    images = {m: root / f"patient19_{name}.nii.gz" for m, name in ((Modality.T1, "T1"), (Modality.T2, "T2"), (Modality.FLAIR, "FLAIR"))}
    loaded = load_case(Case("ms-19", "ms-19", images, None, Layout.BRATS2021))
    brain = np.logical_or.reduce(list(loaded.brains.values()))
    placed = []
    for modality, image in loaded.images.items():
        found = register_to_mni({modality: image}, brain, loaded.affine)
        assert found is not None
        placed.append(PLACES @ found[:3, :3].T + found[:3, 3])
    assert np.linalg.norm(np.array(placed) - placed[0], axis=-1).max() < 4
