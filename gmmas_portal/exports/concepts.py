"""Coded concepts of facts, segments, units and reasons.

Where DICOM or SNOMED CT has a code that means exactly this, it stands; everything else is coded in a private scheme whose code value is
the fact's identifier (gmmas_portal.analysis.fact_ids) and whose meaning is the fact's label, so a reader needs no table.
"""

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from gmmas_data.regions import regions_of
from gmmas_portal.analysis import fact_ids as ids
from gmmas_schema.case_record import AbstainCode, Fact, FactStatus
from gmmas_schema.vocabulary import NECROSIS, OEDEMA, Side

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept

SCHEME: Final = "99GMMAS"
SCHEME_NAME: Final = "Facts of GMMAS case records"

_LONGEST_MEANING = 64

Triple = tuple[str, str, str]
"""Code value, scheme, meaning."""

BRAIN: Final[Triple] = ("12738006", "SCT", "Brain")
ABNORMAL: Final[Triple] = ("49755003", "SCT", "Morphologically Abnormal Structure")
IMAGING: Final[Triple] = ("363679005", "SCT", "Imaging procedure")


@dataclass(frozen=True)
class SegmentKind:
    """A segment that may be in a segmentation.

    Attributes:
        key: last part of its volume's identifier.
        label: as shown.
        code: segmented property type.
        colour: CIELab lightness, a, b for display.
    """

    key: str
    label: str
    code: Triple
    colour: tuple[float, float, float]


SEGMENTS: Final = (
    SegmentKind("wt", "Whole tumour", ("52988006", "SCT", "Lesion"), (75.0, 5.0, 60.0)),
    SegmentKind("tc", "Tumour core", ("108369006", "SCT", "Neoplasm"), (60.0, 45.0, 45.0)),
    SegmentKind("et", "Enhancing tumour", ("C113842", "NCIt", "Enhancing Lesion"), (92.0, -15.0, 75.0)),
    SegmentKind("oedema", "Oedema and infiltrated tissue", ("79654002", "SCT", "Edema"), (70.0, -12.0, -32.0)),
    SegmentKind("necrosis", "Necrosis and core without enhancement", ("6574001", "SCT", "Necrosis"), (53.0, 48.0, 60.0)),
)
"""Whole tumour, core and enhancing tumour lie within each other; oedema and necrosis are what is left between them."""

_FACTS_OF_SEGMENT: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "wt": (
            *(ids.VOLUME_WT, ids.SHARE_WT, ids.DIAMETER_WT, ids.FOCI_WT, ids.SIDE, ids.SHARE_LEFT, ids.MIDLINE_CROSSING),
            *(*ids.LOBES, *ids.LOBE_SHARES, *ids.CENTROID, "spread.wt"),
        ),
        "tc": (ids.VOLUME_TC, "spread.tc"),
        "et": (ids.VOLUME_ET, ids.DIAMETER_ET, ids.DIAMETER_ET_AXIAL, ids.DIAMETER_ET_PERPENDICULAR, ids.FOCI_ET, "spread.et"),
        "oedema": (ids.VOLUME_OEDEMA,),
        "necrosis": (ids.VOLUME_NECROSIS,),
    }
)

_NAMES: Final[Mapping[str, Triple]] = MappingProxyType(
    {
        **dict.fromkeys(
            (ids.VOLUME_WT, ids.VOLUME_TC, ids.VOLUME_ET, ids.VOLUME_OEDEMA, ids.VOLUME_NECROSIS), ("118565006", "SCT", "Volume")
        ),
        ids.DIAMETER_ET_AXIAL: ("103339001", "SCT", "Long Axis"),
        ids.DIAMETER_ET_PERPENDICULAR: ("103340004", "SCT", "Short Axis"),
        ids.FOCI_WT: ("246206008", "SCT", "Number of lesions"),
        ids.FOCI_ET: ("246206008", "SCT", "Number of lesions"),
        ids.SIDE: ("272741003", "SCT", "Laterality"),
    }
)
_VALUES: Final[Mapping[tuple[str, str], Triple]] = MappingProxyType(
    {
        (ids.SIDE, Side.LEFT): ("7771000", "SCT", "Left"),
        (ids.SIDE, Side.RIGHT): ("24028007", "SCT", "Right"),
        (ids.SIDE, Side.BILATERAL): ("51440002", "SCT", "Bilateral"),
        (ids.SIDE, Side.MIDLINE): ("261129000", "SCT", "Midline"),
    }
)
_YES, _NO = ("373066001", "SCT", "Yes"), ("373067005", "SCT", "No")
_UNITS: Final[Mapping[str, str]] = MappingProxyType({"ml": "milliliter", "mm": "millimeter", "%": "percent", "1": "no units", "a": "year"})

_WHY: Final[Mapping[AbstainCode, str]] = MappingProxyType(
    {
        AbstainCode.LOW_CONFIDENCE: "low confidence",
        AbstainCode.NOT_CALIBRATED: "not calibrated",
        AbstainCode.NOT_TRAINED: "never trained",
        AbstainCode.OUT_OF_DISTRIBUTION: "unlike known gliomas",
        AbstainCode.SEQUENCES: "neither T1ce nor FLAIR",
        AbstainCode.NEEDS_SEQUENCE: "needs T1ce, which is missing",
        AbstainCode.QUALITY: "image quality",
        AbstainCode.DISCORDANT: "discordant markers",
        AbstainCode.MINOR: "patient under 18",
        AbstainCode.POST_OPERATIVE: "scan after surgery",
        AbstainCode.NO_TUMOUR: "no tumour outlined",
        AbstainCode.NOT_MEASURED: "not measured",
    }
)


def segment_masks(labels_IJK: NDArray[np.uint8]) -> dict[str, NDArray[np.bool_]]:
    """Return the mask of each segment by its key, of a label map in our own values."""
    whole, core, enhancing = regions_of(labels_IJK)
    return {"wt": whole, "tc": core, "et": enhancing, "oedema": labels_IJK == OEDEMA, "necrosis": labels_IJK == NECROSIS}


def segment_of(fact: Fact) -> str | None:
    """Return the key of the segment that a fact is about; None for the case as a whole."""
    return next((key for key, names in _FACTS_OF_SEGMENT.items() if fact.id in names), None)


def name_of(fact: Fact, *, beside_segment: bool = True) -> "CodedConcept":
    """Return what a fact is of, as a concept.

    Args:
        fact: the fact.
        beside_segment: its group names the segment that it is about. Elsewhere `Volume` alone would not say of what.
    """
    own = (fact.id, SCHEME, fact.label)
    return coded(_NAMES.get(fact.id, own) if beside_segment else own)


def unit_of(fact: Fact) -> "CodedConcept":
    """Return a fact's unit (UCUM)."""
    return coded((fact.unit, "UCUM", _UNITS[fact.unit]))


def value_of(fact: Fact) -> "CodedConcept":
    """Return a fact that is no number, or that must not be told, as a coded value."""
    if fact.status is not FactStatus.FOUND:
        words = "; ".join(_WHY[code] for code in fact.codes)
        lead = "Left open: " if fact.status is FactStatus.ABSTAINED else "Not there: "
        return coded((fact.codes[0], SCHEME, lead + words))
    if isinstance(fact.value, bool):
        return coded(_YES if fact.value else _NO)
    text = str(fact.value)
    return coded(_VALUES.get((fact.id, text), (text.replace(" ", "-"), SCHEME, text)))


def coded(triple: Triple) -> "CodedConcept":
    """Return a concept; a meaning that is too long for DICOM is cut at a word."""
    from highdicom.sr import CodedConcept

    value, scheme, meaning = triple
    short = meaning if len(meaning) <= _LONGEST_MEANING else textwrap.shorten(meaning, _LONGEST_MEANING, placeholder=" ...")
    return CodedConcept(str(value), scheme, short)
