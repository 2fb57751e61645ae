import pickle
from pathlib import Path

import pytest

from gmmas_data.cases import names_one_patient, patient_of
from gmmas_schema.vocabulary import Modality
from tests.gmmas_data.scans import case_in


@pytest.mark.parametrize(
    ("case_id", "patient_id"),
    [
        ("BraTS2021_00006", "BraTS2021_00006"),
        ("Brats18_TCIA01_131_1", "Brats18_TCIA01_131_1"),
        ("BraTS-GLI-00005-100", "BraTS-GLI-00005"),
        ("BraTS-GLI-00005-101", "BraTS-GLI-00005"),
        ("BraTS-MET-00123-000", "BraTS-MET-00123"),
        ("BraTS-GLI-00005", "BraTS-GLI-00005"),
        ("UCSF-PDGM-0004", "UCSF-PDGM-0004"),
        ("UCSF-PDGM-0431_FU001d", "UCSF-PDGM-0431"),
        ("UPENN-GBM-00001_11", "UPENN-GBM-00001"),
        ("UPENN-GBM-00001_21", "UPENN-GBM-00001"),
        ("site-123", "site-123"),
    ],
)
def test_time_point_is_no_part_of_the_patient(case_id: str, patient_id: str) -> None:
    assert patient_of(case_id) == patient_id


@pytest.mark.parametrize(
    ("patient_id", "one"),
    [
        ("BraTS2021_00006", True),
        ("Brats18_TCIA01_131_1", True),
        ("BraTS-GLI-00005", True),
        ("UCSF-PDGM-0004", True),
        ("UPENN-GBM-00001", True),
        ("TCGA-02-0006", True),
        ("EGD-0001", True),
        ("GMMAS-0123456789ab", True),
        ("sub-01", False),
        ("P1", False),
        ("PH-NORTH-0001", False),
        ("site-123", False),
    ],
)
def test_patients_of_public_collections_are_the_same_everywhere(patient_id: str, one: bool) -> None:
    assert names_one_patient(patient_id) is one


def test_case_travels_to_a_worker_process(tmp_path: Path) -> None:
    case = case_in(tmp_path, modalities=[Modality.FLAIR, Modality.T1])
    assert pickle.loads(pickle.dumps(case)) == case
    assert case.modalities == (Modality.T1, Modality.FLAIR)
