"""Modalities, tumour regions, tasks and subtypes, with their fixed order.

Axis order in every array: M modalities, R regions, then X, Y, Z in RAS+ (right, anterior, superior), lengths in millimetres.

Regions are nested, ET within TC within WT (Menze et al., IEEE TMI 2015, "The Multimodal Brain Tumor Image Segmentation Benchmark").
Subtypes follow WHO CNS5 (Louis et al., Neuro-Oncology 2021): glioblastoma is IDH-wildtype, astrocytoma is IDH-mutant without
1p/19q codeletion, oligodendroglioma is IDH-mutant with it. Glioblastoma is always of grade 4, so only IDH-mutant tumours are low-grade.
"""

from collections.abc import Iterable
from enum import StrEnum
from types import MappingProxyType


class Modality(StrEnum):
    """An MRI sequence; the value is the BraTS 2018-2021 file suffix."""

    T1 = "t1"
    T1CE = "t1ce"
    T2 = "t2"
    FLAIR = "flair"


class Region(StrEnum):
    """A nested tumour region: whole tumour, tumour core, enhancing tumour."""

    WT = "wt"
    TC = "tc"
    ET = "et"


class Task(StrEnum):
    """What the network is asked for. Subtype follows from IDH and 1p/19q, see the module docstring.

    Positive is IDH-mutant, 1p/19q-codeleted, high-grade (WHO grade 3 or 4), and MGMT promoter methylated.
    """

    SEGMENTATION = "segmentation"
    IDH = "idh"
    CODELETION = "codeletion"
    GRADE = "grade"
    MGMT = "mgmt"


class Subtype(StrEnum):
    """Histological subtype of an adult-type diffuse glioma, WHO CNS5."""

    GLIOBLASTOMA = "glioblastoma"
    ASTROCYTOMA = "astrocytoma"
    OLIGODENDROGLIOMA = "oligodendroglioma"


class Split(StrEnum):
    """Part of a cohort. Patients, never scans, are split."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    CALIBRATION = "calibration"


class Layout(StrEnum):
    """How a cohort's files are named."""

    BRATS2021 = "brats2021"
    BRATS2023 = "brats2023"
    BRATS2024 = "brats2024"
    UCSF_PDGM = "ucsf-pdgm"
    EGD = "egd"
    UPENN_GBM = "upenn-gbm"
    TCGA = "tcga"
    BIDS = "bids"


class Side(StrEnum):
    """Where a tumour lies, by the radiological report."""

    LEFT = "left"
    RIGHT = "right"
    BILATERAL = "bilateral"
    MIDLINE = "midline"


class Tissue(StrEnum):
    """What a value of a label map means, in the words of site.yaml."""

    BACKGROUND = "background"
    NECROSIS = "necrosis"
    OEDEMA = "oedema"
    ENHANCING = "enhancing"
    CORE = "core"
    TUMOUR = "tumour"


MODALITIES = tuple(Modality)
REGIONS = tuple(Region)
SHOWN_BY_T1CE = (Region.TC, Region.ET)
"""Regions that nothing but T1ce shows well: without it the model's own outlines are not believed, nor is it judged ready by such cases."""

TASKS = tuple(Task)
REQUIRED_TASKS = (Task.SEGMENTATION, Task.IDH, Task.CODELETION)
"""Tasks of every network; the others have a head where NetworkConfig.tasks names them."""

MARKERS = (Task.IDH, Task.CODELETION, Task.GRADE, Task.MGMT)
"""Tasks with one label and one probability per patient."""

MARKER_NAMES = MappingProxyType({Task.IDH: "IDH", Task.CODELETION: "1p/19q", Task.GRADE: "grade", Task.MGMT: "MGMT"})
"""Markers as headings of tables."""

HEAD_NAMES: MappingProxyType[Region | Task, str] = MappingProxyType({r: r.upper() for r in REGIONS} | dict(MARKER_NAMES.items()))
"""Regions and markers as headings of tables."""

POSITIVE = MappingProxyType(
    {Task.IDH: "IDH mutant", Task.CODELETION: "1p/19q codeleted", Task.GRADE: "high grade", Task.MGMT: "MGMT methylated"}
)
"""What a marker's probability is that of, in the words of tables and pictures."""

MUTANT_ONLY = frozenset({Task.CODELETION, Task.GRADE})
"""Markers that are settled in an IDH-wildtype tumour (intact, high-grade), so that their label trains nothing there."""

SUBTYPES = tuple(Subtype)

NECROSIS, OEDEMA, ENHANCING = 1, 2, 3
"""Values of our own label maps; 0 is background. Readers translate every public convention to these."""

_FOURTH_ENHANCES = MappingProxyType({1: NECROSIS, 2: OEDEMA, 4: ENHANCING})
_THIRD_ENHANCES = MappingProxyType({1: NECROSIS, 2: OEDEMA, 3: ENHANCING})

SEGMENTATION_VALUES = MappingProxyType(
    {
        layout: _FOURTH_ENHANCES if layout in (Layout.BRATS2021, Layout.UCSF_PDGM, Layout.UPENN_GBM, Layout.TCGA) else _THIRD_ENHANCES
        for layout in Layout
    }
)
"""File value -> our value in a label map of three tissues, per layout: how predictions are written, and how most cohorts are read
(gmmas_data.cases.Case.segmentation_values names those that differ). A value that is missing is refused: in BraTS 2013 a 3 was core."""

REGION_MEMBERS = MappingProxyType(
    {
        Region.WT: frozenset({NECROSIS, OEDEMA, ENHANCING}),
        Region.TC: frozenset({NECROSIS, ENHANCING}),
        Region.ET: frozenset({ENHANCING}),
    }
)


def join_modalities(modalities: Iterable[Modality]) -> str:
    """Return the name of a subset of the sequences: `t1+flair`."""
    given = set(modalities)
    return "+".join(m for m in MODALITIES if m in given)


def split_modalities(name: str) -> tuple[Modality, ...]:
    """Return the sequences that a subset's name stands for.

    Raises:
        ValueError: it is not such a name.
    """
    subset = tuple(m for m in MODALITIES if m in name.split("+"))
    if not subset or join_modalities(subset) != name:
        raise ValueError(f"{name!r} names no subset of the sequences in their order")
    return subset
