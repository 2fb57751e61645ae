"""One whole patient."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from gmmas_data.phantom.atlas import Atlas
from gmmas_data.phantom.case import PhantomCase, draw_patient, make_case
from gmmas_schema.phantom import SCANNERS
from gmmas_schema.vocabulary import ENHANCING, MODALITIES, NECROSIS, OEDEMA, Modality, Subtype
from tests.gmmas_data.phantom.conftest import SEED

ARGUMENTS: Mapping[str, Any] = {"scanner": SCANNERS["research-3t"], "spacing_mm": 3.0}


def test_images_share_one_brain_and_air_is_zero(glioblastoma: PhantomCase) -> None:
    brains = [image > 0 for image in glioblastoma.images.values()]
    assert tuple(glioblastoma.images) == MODALITIES
    assert all((brain == brains[0]).all() for brain in brains)
    assert 1000 < brains[0].sum() * glioblastoma.grid.voxel_ml < 2300
    assert (glioblastoma.labels_XYZ[~brains[0]] == 0).all()


def test_a_tumour_is_there_and_brighter_on_flair(glioblastoma: PhantomCase) -> None:
    labels, flair = glioblastoma.labels_XYZ, glioblastoma.images[Modality.FLAIR].astype(float)
    assert set(np.unique(labels)) <= {0, NECROSIS, OEDEMA, ENHANCING}
    assert (labels > 0).sum() * glioblastoma.grid.voxel_ml > 8
    assert flair[labels == OEDEMA].mean() > 1.2 * flair[(labels == 0) & (flair > 0)].mean()


def test_enhancing_tumour_shows_with_gadolinium_only(glioblastoma: PhantomCase) -> None:
    assert glioblastoma.signs.ring_mm > 0, "the seed of this fixture was chosen for its ring"
    ring, brain = glioblastoma.labels_XYZ == ENHANCING, glioblastoma.images[Modality.T1] > 0
    contrast = {m: glioblastoma.images[m][ring].mean() / np.median(glioblastoma.images[m][brain]) for m in (Modality.T1, Modality.T1CE)}
    assert contrast[Modality.T1CE] > 1.3 > 1.1 > contrast[Modality.T1]


def test_a_case_repeats_to_the_bit(atlas: Atlas, glioblastoma: PhantomCase) -> None:
    again = make_case(SEED, atlas=atlas, subtype=Subtype.GLIOBLASTOMA, **ARGUMENTS)
    assert all((again.images[m] == glioblastoma.images[m]).all() for m in MODALITIES)
    assert (again.labels_XYZ == glioblastoma.labels_XYZ).all()


def test_leaving_out_a_sequence_changes_no_other(atlas: Atlas, glioblastoma: PhantomCase) -> None:
    short = make_case(SEED, atlas=atlas, subtype=Subtype.GLIOBLASTOMA, modalities=(Modality.FLAIR,), **ARGUMENTS)
    assert tuple(short.images) == (Modality.FLAIR,)
    assert (short.images[Modality.FLAIR] == glioblastoma.images[Modality.FLAIR]).all()


def test_patients_differ(atlas: Atlas, glioblastoma: PhantomCase) -> None:
    other = make_case(np.random.SeedSequence(4), atlas=atlas, subtype=Subtype.GLIOBLASTOMA, modalities=(Modality.T1,), **ARGUMENTS)
    assert (other.images[Modality.T1] != glioblastoma.images[Modality.T1]).any()


def test_the_patient_is_known_without_the_images(glioblastoma: PhantomCase) -> None:
    assert draw_patient(SEED, Subtype.GLIOBLASTOMA) == (glioblastoma.subject, glioblastoma.signs)


@pytest.mark.parametrize("subtype", [Subtype.ASTROCYTOMA, Subtype.OLIGODENDROGLIOMA])
def test_every_subtype_can_be_made(atlas: Atlas, subtype: Subtype) -> None:
    case = make_case(
        np.random.SeedSequence(0), atlas=atlas, subtype=subtype, modalities=(Modality.T2,), scanner=SCANNERS["old-1.5t"], spacing_mm=4.0
    )
    assert (case.labels_XYZ > 0).sum() * case.grid.voxel_ml > 4
