"""The findings of a record as a page shows them: rows in groups, by the ids of gmmas_portal.analysis.fact_ids; templates do no sums.

A row of a question that is left open shows its reason and no value.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gmmas_portal.analysis import fact_ids as ids
from gmmas_schema.case_record import CaseRecord, Fact, FactStatus
from gmmas_schema.model_card import Figure, SubsetAccuracy
from gmmas_schema.vocabulary import MARKER_NAMES, REGIONS, Modality, Region, Task

SEQUENCE_NAMES: Final[Mapping[Modality, str]] = {Modality.T1: "T1", Modality.T1CE: "T1ce", Modality.T2: "T2", Modality.FLAIR: "FLAIR"}
REGION_NAMES: Final[Mapping[Region, str]] = {Region.WT: "Whole tumour", Region.TC: "Tumour core", Region.ET: "Enhancing tumour"}

_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "Size": ("volume.", "share.wt", "diameter.", "foci."),
    "Position": ("location.", "share.left", "midline."),
    "Imaging pattern": ("marker.", "subtype."),
    "Entered": ("context.", "tissue.", "reading."),
    "Checks": ("ood.", "quality.", "spread."),
}
_IN_DETAIL: Final = (*ids.CENTROID, *ids.LOBE_SHARES, *ids.MARKER_PROBABILITIES.values(), *ids.SUBTYPE_PROBABILITIES.values())
"""Facts that are shown only where somebody asks for everything."""
_ALSO_IN_DETAIL: Final = (
    ids.VOLUME_NECROSIS,
    ids.VOLUME_BRAIN,
    ids.DIAMETER_ET_PERPENDICULAR,
    ids.DIAMETER_ET_AXIAL,
    ids.FOCI_ET,
    ids.SHARE_LEFT,
)
_DETAIL_PREFIXES: Final = ("spread.",)


@dataclass(frozen=True)
class FindingRow:
    """One fact.

    Attributes:
        value: with its unit; empty where it is not told.
        reason: why it is not told.
        confidence: `88 %`; empty where there is none.
        is_detail: shown only on request.
    """

    id: str
    label: str
    value: str
    status: FactStatus
    reason: str
    confidence: str
    source: str
    is_detail: bool


@dataclass(frozen=True)
class FindingGroup:
    """Facts of one kind."""

    title: str
    rows: tuple[FindingRow, ...]

    @property
    def shown(self) -> tuple[FindingRow, ...]:
        """Rows that everybody sees."""
        return tuple(row for row in self.rows if not row.is_detail)

    @property
    def details(self) -> tuple[FindingRow, ...]:
        """Rows for whoever wants all of them."""
        return tuple(row for row in self.rows if row.is_detail)


@dataclass(frozen=True)
class AccuracyRow:
    """One figure that was measured for this pattern of sequences."""

    name: str
    measure: str
    value: str
    interval: str
    patients: str


def group_findings(record: CaseRecord) -> tuple[FindingGroup, ...]:
    """Return the facts of a record in groups; a fact of none is in the last."""
    taken: set[str] = set()
    groups = []
    for title, prefixes in _GROUPS.items():
        rows = [fact for fact in record.facts if fact.id.startswith(prefixes) and fact.id not in taken]
        taken |= {fact.id for fact in rows}
        groups.append(FindingGroup(title, tuple(map(_row, rows))))
    if rest := [fact for fact in record.facts if fact.id not in taken]:
        groups.append(FindingGroup("Further", tuple(map(_row, rest))))
    return tuple(group for group in groups if group.rows)


def headline(record: CaseRecord) -> tuple[FindingRow, ...]:
    """Return the facts that stand at the top of a case's page."""
    wanted = (ids.VOLUME_WT, ids.VOLUME_ET, ids.SIDE, ids.SUBTYPE)
    return tuple(_row(fact) for fact in map(record.fact, wanted) if fact is not None)


def accuracy_rows(accuracy: SubsetAccuracy | None) -> tuple[AccuracyRow, ...]:
    """Return what was measured for patients of whom exactly these sequences were shown."""
    if accuracy is None:
        return ()
    dice = [(REGION_NAMES[region], "Dice", accuracy.accuracy.dice[region]) for region in REGIONS if region in accuracy.accuracy.dice]
    auc = [(MARKER_NAMES[task], "AUC", figure) for task, figure in accuracy.accuracy.auc.items() if task is not Task.SEGMENTATION]
    return tuple(_accuracy(*row) for row in (*dice, *auc))


def sequence_names(modalities: Iterable[Modality]) -> str:
    """Return sequences as words; `none` for none of them."""
    return ", ".join(SEQUENCE_NAMES[modality] for modality in modalities) or "none"


def _row(fact: Fact) -> FindingRow:
    found = fact.status is FactStatus.FOUND
    return FindingRow(
        id=fact.id,
        label=fact.label[0].upper() + fact.label[1:],
        value=_tell(fact) if found else "",
        status=fact.status,
        reason="" if found else fact.reason or ", ".join(fact.codes),
        confidence=f"{fact.confidence:.0%}".replace("%", " %") if found and fact.confidence is not None else "",
        source=fact.source,
        is_detail=fact.id in (*_IN_DETAIL, *_ALSO_IN_DETAIL) or fact.id.startswith(_DETAIL_PREFIXES),
    )


def _tell(fact: Fact) -> str:
    """Return a value with its unit, the UCUM code of years as a word."""
    return fact.value_text().removesuffix(" a") + " years" if fact.unit == "a" else fact.value_text()


def _accuracy(name: str, measure: str, figure: Figure) -> AccuracyRow:
    interval = "" if figure.low is None or figure.high is None else f"{figure.low:.2f} – {figure.high:.2f}"
    return AccuracyRow(name, measure, f"{figure.value:.2f}", interval, "withheld" if figure.patients is None else str(figure.patients))
