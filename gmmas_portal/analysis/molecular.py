"""What the network says of molecular markers and subtype, and how far it spreads, as facts.

The told class of a marker is that with a probability above 1/2; its confidence is max(p, 1 - p), and stands only where the head is
calibrated. Subtypes follow from the markers (WHO CNS5; Louis et al., Neuro-Oncology 2021), so they cannot contradict them. A marker that
the model was never trained on is ABSENT, and the subtype with IDH or 1p/19q.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from gmmas_portal.analysis import fact_ids as ids
from gmmas_portal.analysis.context import CaseContext
from gmmas_portal.evidence import diagnosis
from gmmas_schema.calibration import Calibration
from gmmas_schema.case_record import AbstainCode, Fact, FactStatus
from gmmas_schema.findings import Findings
from gmmas_schema.vocabulary import MARKERS, REGIONS, SUBTYPES, Subtype, Task

CLASSES: Final[Mapping[Task, tuple[str, str]]] = MappingProxyType(
    {
        Task.IDH: ("mutant", "wildtype"),
        Task.CODELETION: ("codeleted", "intact"),
        Task.GRADE: ("high", "low"),
        Task.MGMT: ("methylated", "unmethylated"),
    }
)
"""Words of each marker's two classes, the positive one first (gmmas_schema.vocabulary.Task)."""

_NAMES: Final = MappingProxyType(
    {
        Task.IDH: "IDH status",
        Task.CODELETION: "1p/19q status",
        Task.GRADE: "WHO grade, low (2) or high (3 or 4),",
        Task.MGMT: "MGMT promoter status",
    }
)
_POSITIVE: Final = MappingProxyType(
    {
        Task.IDH: "an IDH mutation",
        Task.CODELETION: "a 1p/19q codeletion",
        Task.GRADE: "a high grade (3 or 4)",
        Task.MGMT: "a methylated MGMT promoter",
    }
)
_REGION_NAMES = dict(zip(REGIONS, ("whole tumour", "tumour core", "enhancing tumour"), strict=True))


def predicted_facts(findings: Findings, calibration: Calibration | None) -> tuple[Fact, ...]:
    """Return the facts of source `network`: markers, subtype, spread.

    Args:
        findings: of one case.
        calibration: of the model, for whether a confidence may be told.
    """
    facts = []
    for task in MARKERS:
        if task in findings.probability:
            facts += _marker(task, findings.probability[task], sure=is_calibrated(calibration, task))
        elif task in findings.untrained:
            facts.append(_untrained(ids.MARKER_FACTS[task], f"{_NAMES[task]} by imaging", "the model was never trained on such labels"))
    return (*facts, *_subtype(findings, calibration), *_spreads(findings))


def _subtype(findings: Findings, calibration: Calibration | None) -> list[Fact]:
    """Return the subtype and the probability of each."""
    label = "subtype that the imaging pattern is most consistent with"
    if not findings.subtype:
        return [_untrained(ids.SUBTYPE, label, "it rests on IDH and 1p/19q, and the model was not trained on labels of both")]
    told = told_subtype(findings)
    sure = all(is_calibrated(calibration, task) for task in (Task.IDH, Task.CODELETION))
    confidence = min(max(findings.subtype[told], 0.0), 1.0) if sure else None
    return [
        Fact(id=ids.SUBTYPE, label=label, value=str(told), confidence=confidence, source="network"),
        *(
            _probability(ids.SUBTYPE_PROBABILITIES[subtype], f"probability of {_with_article(subtype)}", findings.subtype[subtype])
            for subtype in SUBTYPES
        ),
    ]


def told_subtype(findings: Findings) -> Subtype:
    """Return the most probable subtype; of equal ones the first in the order of SUBTYPES."""
    return max(SUBTYPES, key=lambda subtype: findings.subtype[subtype])


def is_calibrated(calibration: Calibration | None, task: Task) -> bool:
    """Whether a marker's confidence was fitted to labelled patients."""
    return calibration is not None and task in calibration.heads and calibration.heads[task].fitted


def told_classes(facts: Mapping[str, Fact]) -> dict[Task, bool]:
    """Return the told class of each predicted marker among facts by id: True for the positive one."""
    told = {task: facts[name].value for task, name in ids.MARKER_FACTS.items() if name in facts}
    return {task: value == CLASSES[task][0] for task, value in told.items() if value is not None}


def entered_facts(context: CaseContext) -> tuple[Fact, ...]:
    """Return the facts of source `clinician`: what was entered, and nothing for what was not."""
    facts = []
    if context.age_years is not None:
        facts.append(Fact(id=ids.AGE, label="age", value=context.age_years, unit="a", source="clinician"))
    if context.post_operative is not None:
        facts.append(Fact(id=ids.POST_OPERATIVE, label="scan after surgery", value=context.post_operative, source="clinician"))
    for task in MARKERS:
        known = context.tissue.marker(task)
        if known is None:
            continue
        value: int | str | None = context.tissue.grade if task is Task.GRADE else CLASSES[task][0 if known else 1]
        label = "WHO grade on tissue" if task is Task.GRADE else f"{_NAMES[task]} on tissue"
        facts.append(Fact(id=ids.TISSUE_FACTS[task], label=label, value=value, source="clinician"))
    if context.tissue.diagnosis is not None:
        facts.append(Fact(id=ids.TISSUE_DIAGNOSIS, label="diagnosis on tissue", value=str(context.tissue.diagnosis), source="clinician"))
    further = {
        diagnosis.NECROSIS: context.tissue.necrosis,
        diagnosis.MOLECULAR: context.tissue.molecular,
        diagnosis.CDKN2A: context.tissue.cdkn2a,
        diagnosis.H3: context.tissue.h3,
        diagnosis.MISMATCH: context.t2_flair_mismatch,
    }
    facts += [
        Fact(id=name, label=diagnosis.FURTHER_LABELS[name], value=value, source="clinician")
        for name, value in further.items()
        if value is not None
    ]
    return tuple(facts)


def _marker(task: Task, probability: float, *, sure: bool) -> list[Fact]:
    """Return told class and probability of a marker."""
    positive = probability > 0.5
    told = Fact(
        id=ids.MARKER_FACTS[task],
        label=f"{_NAMES[task]} by imaging",
        value=CLASSES[task][0 if positive else 1],
        confidence=max(probability, 1 - probability) if sure else None,
        source="network",
    )
    return [told, _probability(ids.MARKER_PROBABILITIES[task], f"probability of {_POSITIVE[task]}", probability)]


def _untrained(name: str, label: str, reason: str) -> Fact:
    return Fact(id=name, label=label, status=FactStatus.ABSENT, codes=(AbstainCode.NOT_TRAINED,), reason=reason, source="network")


def _probability(name: str, label: str, value: float) -> Fact:
    return Fact(id=name, label=label, value=min(max(value, 0.0), 1.0), unit="1", decimals=2, source="network")


def _spreads(findings: Findings) -> list[Fact]:
    """Return the spread over Monte-Carlo passes; nothing where none were made."""
    if findings.uncertainty is None:
        return []
    values = [
        (ids.SPREAD_REGIONS[region], f"spread of the outline of the {_REGION_NAMES[region]}", findings.uncertainty.region_std[region])
        for region in REGIONS
        if region in findings.uncertainty.region_std
    ]
    values += [
        (ids.SPREAD_MARKERS[task], f"spread of the probability of {_POSITIVE[task]}", findings.uncertainty.probability_std[task])
        for task in MARKERS
        if task in findings.uncertainty.probability_std
    ]
    return [Fact(id=name, label=label, value=value, unit="1", decimals=3, source="network") for name, label, value in values]


def _with_article(subtype: Subtype) -> str:
    return f"{'an' if subtype[0] in 'aeio' else 'a'} {subtype}"
