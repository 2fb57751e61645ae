"""A case: the files of one imaging time point of one patient, with what is known of the tumour's molecular markers."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from gmmas_schema.vocabulary import ENHANCING, NECROSIS, OEDEMA, REGIONS, SEGMENTATION_VALUES, Layout, Modality, Region, Side, Task, Tissue

_TIME_POINT = (
    re.compile(r"^(?P<patient>BraTS-[A-Za-z]+-\d{5})-\d{3}$"),
    re.compile(r"^(?P<patient>UCSF-PDGM-\d+)_FU\d+d$"),
    re.compile(r"^(?P<patient>UPENN-GBM-\d{5})_\d{2}$"),
    re.compile(r"^(?P<patient>TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})_\d{4}\.\d{2}\.\d{2}$"),
    re.compile(r"^(?P<patient>sub-[A-Za-z0-9]+)_ses-[A-Za-z0-9]+$"),
    re.compile(r"^(?P<patient>GMMAS-[0-9a-f]{12})-\d{3}$"),
)
"""Case identifiers that name a patient and a time point: BraTS 2023 and later, UCSF-PDGM follow-ups, UPENN-GBM, TCGA, BIDS sessions, and
what `gmmas data import` writes."""

_PUBLIC_PATIENT = re.compile(
    r"^(BraTS-[A-Za-z]+-\d{5}|(?i:brats)\d{2}(\d{2})?_\w+|UCSF-PDGM-\d+|UPENN-GBM-\d{5}|TCGA-[A-Z0-9]{2}-[A-Z0-9]{4}|EGD-\d{4}"
    r"|GMMAS-[0-9a-f]{12})$"
)
"""Patients that one name means everywhere: those of the public collections, and the keyed pseudonyms of `gmmas data import`."""

_READ_VALUES: Mapping[Layout, Mapping[int, int]] = MappingProxyType(
    {
        Layout.BRATS2024: MappingProxyType({**SEGMENTATION_VALUES[Layout.BRATS2024], 4: 0}),
        Layout.EGD: MappingProxyType({1: OEDEMA}),
    }
)
"""Layouts whose masks are not read as predictions are written: a resection cavity is no tumour; EGD outlines the whole tumour only."""

_KNOWN_REGIONS: Mapping[Layout, tuple[Region, ...]] = MappingProxyType({Layout.EGD: (Region.WT,)})


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


def names_one_patient(patient_id: str) -> bool:
    """Tell whether a patient identifier means the same patient in every folder, as those of public collections do.

    >>> names_one_patient("BraTS-GLI-00005"), names_one_patient("BraTS2021_00006"), names_one_patient("sub-01"), names_one_patient("P7")
    (True, True, False, False)

    Hospitals that number their own patients, also by BIDS (`sub-01`), may number alike.
    """
    return _PUBLIC_PATIENT.match(patient_id) is not None


@dataclass(frozen=True)
class Case:
    """One imaging time point.

    Attributes:
        case_id: the common beginning of its file names.
        patient_id: the patient; the unit of every split and of the labels table.
        images: one NIfTI file per sequence held, in the order of MODALITIES.
        segmentation: label map in `segmentation_values`, if there is one.
        layout: convention of the file names and label values.
        idh: True for IDH-mutant, False for wildtype, None for unknown.
        codeletion: True for 1p/19q-codeleted, False for intact, None for unknown.
        grade: True for high-grade (WHO grade 3 or 4), False for low-grade, None for unknown.
        mgmt: True for MGMT promoter methylated, False for unmethylated, None for unknown.
        side: the tumour's side by the report, to hold against the segmentation; None for unknown.
        tissues: what the label map's values mean, where site.yaml says so; None for the layout's own meaning.
        sources: where each label comes from, in a few words without a path, by task.
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
    side: Side | None = None
    tissues: Mapping[int, Tissue] | None = None
    sources: Mapping[Task, str] = field(default_factory=dict)

    def marker(self, task: Task) -> bool | None:
        """Return the label of one of MARKERS; None is unknown."""
        return {Task.IDH: self.idh, Task.CODELETION: self.codeletion, Task.GRADE: self.grade, Task.MGMT: self.mgmt}[task]

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Sequences this case has, in the order of MODALITIES."""
        return tuple(self.images)

    @property
    def segmentation_values(self) -> Mapping[int, int]:
        """How the label map is read: file value to our value."""
        if self.tissues is not None:
            return {value: _OUR_VALUE[tissue] for value, tissue in self.tissues.items()}
        return _READ_VALUES.get(self.layout, SEGMENTATION_VALUES[self.layout])

    @property
    def known_regions(self) -> tuple[Region, ...]:
        """Regions that the label map tells: an outline of the whole tumour says nothing about its core."""
        if self.tissues is None:
            return _KNOWN_REGIONS.get(self.layout, REGIONS)
        if Tissue.TUMOUR in self.tissues.values():
            return (Region.WT,)
        return (Region.WT, Region.TC) if Tissue.CORE in self.tissues.values() else REGIONS


_OUR_VALUE = MappingProxyType(
    {
        Tissue.BACKGROUND: 0,
        Tissue.NECROSIS: NECROSIS,
        Tissue.OEDEMA: OEDEMA,
        Tissue.ENHANCING: ENHANCING,
        Tissue.CORE: NECROSIS,
        Tissue.TUMOUR: OEDEMA,
    }
)
"""The value whose regions are those that hold for every voxel of the tissue; what it leaves open is not among known_regions."""
