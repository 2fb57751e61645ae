"""A case: the files of one imaging time point of one patient, with what is known of the tumour's molecular markers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gmmas_schema.vocabulary import Layout, Modality, Task

_TIME_POINT = (
    re.compile(r"^(?P<patient>BraTS-[A-Za-z]+-\d{5})-\d{3}$"),
    re.compile(r"^(?P<patient>UCSF-PDGM-\d+)_FU\d+d$"),
    re.compile(r"^(?P<patient>UPENN-GBM-\d{5})_\d{2}$"),
)
"""Case identifiers that name a patient and a time point: BraTS 2023 and later, UCSF-PDGM follow-ups, UPENN-GBM."""


def patient_of(case_id: str) -> str:
    """Return the patient a case belongs to: the case identifier without its time point.

    >>> patient_of("BraTS-GLI-00005-100"), patient_of("UCSF-PDGM-0004_FU003d"), patient_of("UPENN-GBM-00001_11")
    ('BraTS-GLI-00005', 'UCSF-PDGM-0004', 'UPENN-GBM-00001')

    An identifier that follows none of these conventions, such as BraTS2021_00006, names a patient by itself.
    """
    for pattern in _TIME_POINT:
        if match := pattern.match(case_id):
            return match["patient"]
    return case_id


@dataclass(frozen=True)
class Case:
    """One imaging time point.

    Attributes:
        case_id: the common beginning of its file names.
        patient_id: the patient; the unit of every split and of the labels table.
        images: one NIfTI file per sequence held, in the order of MODALITIES.
        segmentation: label map in the values of `layout`, if there is one.
        layout: convention of the file names and label values.
        idh: True for IDH-mutant, False for wildtype, None for unknown.
        codeletion: True for 1p/19q-codeleted, False for intact, None for unknown.
        grade: True for high-grade (WHO grade 3 or 4), False for low-grade, None for unknown.
        mgmt: True for MGMT promoter methylated, False for unmethylated, None for unknown.
    """

    case_id: str
    patient_id: str
    images: Mapping[Modality, Path]
    segmentation: Path | None
    layout: Layout
    idh: bool | None = None
    codeletion: bool | None = None
    grade: bool | None = None
    mgmt: bool | None = None

    def marker(self, task: Task) -> bool | None:
        """Return the label of one of MARKERS; None is unknown."""
        return {Task.IDH: self.idh, Task.CODELETION: self.codeletion, Task.GRADE: self.grade, Task.MGMT: self.mgmt}[task]

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Sequences this case has, in the order of MODALITIES."""
        return tuple(self.images)
