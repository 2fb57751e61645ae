"""When questions are left open, and which: the rules, and their effect on facts.

A rule yields a code, a sentence and the facts it touches. A touched fact keeps its value and gets status ABSTAINED with all its codes,
so that whoever checks can see it and whoever reads is not told it. Facts that are read from files or entered by people are touched only
where the images themselves are in doubt.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gmmas_portal.analysis import fact_ids as ids
from gmmas_portal.analysis.context import CaseContext, TissueResults
from gmmas_portal.analysis.molecular import CLASSES, entered_facts, is_calibrated, told_classes
from gmmas_portal.evidence.diagnosis import judge_tissue
from gmmas_schema.calibration import Calibration
from gmmas_schema.case_record import AbstainCode, Abstention, Fact, FactStatus
from gmmas_schema.findings import Findings
from gmmas_schema.vocabulary import MARKER_NAMES, Modality, Region, Task

ADULT_YEARS: Final = 18

NEEDS_CONTRAST: Final = (
    *(ids.VOLUME_TC, ids.VOLUME_ET, ids.VOLUME_OEDEMA, ids.VOLUME_NECROSIS),
    *(ids.DIAMETER_ET, ids.DIAMETER_ET_AXIAL, ids.DIAMETER_ET_PERPENDICULAR, ids.FOCI_ET),
    *(ids.SPREAD_REGIONS[region] for region in (Region.TC, Region.ET)),
)
"""Facts that only a scan with contrast agent shows, whatever the network answers without one. Oedema is the rest of the tumour beside its
core, so it is as open as the core."""

_OF_REGION: Final[Mapping[Region, tuple[str, ...]]] = {
    Region.TC: (ids.VOLUME_TC, ids.VOLUME_OEDEMA, ids.VOLUME_NECROSIS, ids.SPREAD_REGIONS[Region.TC]),
    Region.ET: (
        *(ids.VOLUME_ET, ids.VOLUME_NECROSIS, ids.FOCI_ET, ids.SPREAD_REGIONS[Region.ET]),
        *(ids.DIAMETER_ET, ids.DIAMETER_ET_AXIAL, ids.DIAMETER_ET_PERPENDICULAR),
    ),
}
"""Facts that rest on the outline of a region within the whole tumour."""

Chooses = Callable[[Fact], bool]


@dataclass(frozen=True)
class Doubt:
    """A reason to leave questions open.

    Attributes:
        code: for programs.
        reason: for readers.
        touches: which facts.
    """

    code: AbstainCode
    reason: str
    touches: Chooses


def by_model(fact: Fact) -> bool:
    """Whether a fact is the network's: predicted, or measured on its mask; its own measure of doubt is not touched by doubt."""
    return fact.source in ("network", "segmentation") and fact.id != ids.OOD_SCORE


def predicted(fact: Fact) -> bool:
    """Whether a fact is a told marker, a subtype, or a probability of one."""
    return fact.id.startswith(("marker.", "subtype."))


def doubts_of(
    findings: Findings,
    facts: Sequence[Fact],
    *,
    calibration: Calibration | None,
    context: CaseContext,
    quality: Sequence[str],
    novelty: str,
    outlined: bool,
) -> tuple[Doubt, ...]:
    """Return every reason to leave something open in a case.

    Args:
        findings: what the network said.
        facts: of the record.
        calibration: of the model.
        context: what was entered.
        quality: what is wrong with the images, in sentences; empty where nothing is.
        novelty: why the case counts as out of distribution; empty where it does not.
        outlined: a tumour was outlined.
    """
    return (
        *_of_patient(context),
        *_of_sequences(findings),
        *_of_training(findings),
        *(Doubt(AbstainCode.QUALITY, text, lambda fact: by_model(fact) or fact.id == ids.VOLUME_BRAIN) for text in quality),
        *([Doubt(AbstainCode.OUT_OF_DISTRIBUTION, novelty, by_model)] if novelty else []),
        *([] if outlined else [Doubt(AbstainCode.NO_TUMOUR, "the network outlined no tumour, so nothing is told of one", predicted)]),
        *_of_confidence(findings, calibration),
        *_of_discord(context.tissue, {fact.id: fact for fact in facts}),
    )


def apply_doubts(facts: Iterable[Fact], doubts: Sequence[Doubt]) -> tuple[tuple[Fact, ...], tuple[Abstention, ...]]:
    """Return the facts with their status, and the abstentions that name them; an abstention that touches nothing is left out.

    Args:
        facts: FOUND or ABSENT.
        doubts: what speaks against telling them.
    """
    judged = tuple(_judge(fact, [doubt for doubt in doubts if doubt.touches(fact)]) for fact in facts)
    abstentions = []
    for doubt in doubts:
        touched = tuple(fact.id for fact in judged if fact.status is FactStatus.ABSTAINED and doubt.touches(fact))
        if touched:
            abstentions.append(Abstention(code=doubt.code, reason=doubt.reason, facts=touched))
    for code, reason in dict.fromkeys((fact.codes[0], fact.reason) for fact in judged if fact.status is FactStatus.ABSENT):
        named = tuple(f.id for f in judged if f.status is FactStatus.ABSENT and (f.codes[0], f.reason) == (code, reason))
        abstentions.append(Abstention(code=code, reason=reason, facts=named))
    return judged, tuple(abstentions)


def discord_of(tissue: TissueResults) -> tuple[str, ...]:
    """Return which results from the laboratory do not go together (WHO CNS5), in words."""
    facts = {fact.id: fact for fact in entered_facts(CaseContext(tissue=tissue))}
    pairs = judge_tissue(facts).contradictions
    return tuple(" and ".join(f"{facts[name].label} ({facts[name].value_text()})" for name in pair) for pair in pairs)


def _judge(fact: Fact, doubts: Sequence[Doubt]) -> Fact:
    """Return a fact with the status that doubts about it leave it."""
    if not doubts or fact.status is FactStatus.ABSENT:
        return fact
    codes = tuple(dict.fromkeys(doubt.code for doubt in doubts))
    reason = "; ".join(dict.fromkeys(doubt.reason for doubt in doubts))
    return fact.model_copy(update={"status": FactStatus.ABSTAINED, "codes": codes, "reason": reason})


def _of_patient(context: CaseContext) -> list[Doubt]:
    doubts = []
    if context.age_years is not None and context.age_years < ADULT_YEARS:
        text = "the patient is under 18, and the model was trained on adults: gliomas of children are other diseases"
        doubts.append(Doubt(AbstainCode.MINOR, text, by_model))
    if context.post_operative:
        text = "the scan was taken after surgery, and the model was trained on scans before it: cavities and scars are unknown to it"
        doubts.append(Doubt(AbstainCode.POST_OPERATIVE, text, by_model))
    return doubts


def _of_sequences(findings: Findings) -> list[Doubt]:
    used, unread = findings.modalities_used, findings.modalities_unread
    doubts = []
    if Modality.T1CE not in used and Modality.FLAIR not in used:
        there = {Modality.T1CE, Modality.FLAIR} & set(unread)
        lacking = "the model was not trained on what is there of T1ce and FLAIR" if there else "neither T1ce nor FLAIR is there"
        doubts.append(Doubt(AbstainCode.SEQUENCES, f"{lacking}, on which a glioma shows", by_model))
    if Modality.T1CE not in used:
        lacking = "the model was never trained on" if Modality.T1CE in unread else "is missing"
        text = f"enhancement and the core it outlines show on T1ce only, which {lacking}"
        doubts.append(Doubt(AbstainCode.NEEDS_SEQUENCE, text, lambda fact: fact.id in NEEDS_CONTRAST))
    return doubts


def _of_training(findings: Findings) -> list[Doubt]:
    """Return doubts about regions that the model was never trained on; a marker of that kind has no value to doubt."""
    if Region.WT in findings.untrained:
        text = "the model was never trained on outlines of a tumour"
        return [Doubt(AbstainCode.NOT_TRAINED, text, by_model)]
    return [
        Doubt(AbstainCode.NOT_TRAINED, f"the model was never trained on outlines of the {name}", _among(_OF_REGION[region], subtype=False))
        for region, name in ((Region.TC, "tumour core"), (Region.ET, "enhancing tumour"))
        if region in findings.untrained
    ]


def _of_confidence(findings: Findings, calibration: Calibration | None) -> list[Doubt]:
    """Return doubts about single markers, and about the subtype where it rests on one of them."""
    if calibration is None:
        return [Doubt(AbstainCode.NOT_CALIBRATED, "the model was never calibrated: what it is worth on markers is not known", predicted)]
    doubts = []
    for task in findings.probability:
        if not is_calibrated(calibration, task):
            note = calibration.heads[task].note if task in calibration.heads else ""
            text = f"{MARKER_NAMES[task]}: its confidence was never held against known patients"
            doubts.append(Doubt(AbstainCode.NOT_CALIBRATED, f"{text} ({note})" if note else text, _resting_on(task, findings)))
        elif task in findings.abstained:
            text = f"{MARKER_NAMES[task]}: {findings.abstained[task]}"
            doubts.append(Doubt(AbstainCode.LOW_CONFIDENCE, text, _resting_on(task, findings)))
    return doubts


def _resting_on(task: Task, findings: Findings) -> Chooses:
    """Return what chooses a marker's facts and what follows from it: 1p/19q decides nothing in a tumour told IDH-wildtype."""
    own = (ids.MARKER_FACTS[task], ids.MARKER_PROBABILITIES[task])
    decides = task is Task.IDH or (task is Task.CODELETION and findings.probability.get(Task.IDH, 1.0) > 0.5)
    return lambda fact: fact.id in own or (decides and fact.id.startswith("subtype."))


def _of_discord(tissue: TissueResults, facts: Mapping[str, Fact]) -> list[Doubt]:
    """Return doubts where laboratory results contradict each other, or the network."""
    doubts = [Doubt(AbstainCode.DISCORDANT, f"results from tissue contradict each other: {text}", predicted) for text in discord_of(tissue)]
    told = told_classes(facts)
    if told.get(Task.CODELETION) and told.get(Task.IDH) is False:
        doubts.append(
            Doubt(AbstainCode.DISCORDANT, "imaging suggests IDH-wildtype and 1p/19q-codeleted, which do not go together", predicted)
        )
    for task, positive in told.items():
        known = tissue.marker(task)
        if known is not None and known is not positive:
            said, seen = CLASSES[task][0 if known else 1], CLASSES[task][0 if positive else 1]
            text = f"{MARKER_NAMES[task]}: tissue says {said}, imaging suggests {seen}; tissue decides"
            touched = (ids.MARKER_FACTS[task], ids.MARKER_PROBABILITIES[task])
            rests = task in (Task.IDH, Task.CODELETION)
            doubts.append(Doubt(AbstainCode.DISCORDANT, text, _among(touched, subtype=rests)))
    return doubts


def _among(names: Sequence[str], *, subtype: bool) -> Chooses:
    return lambda fact: fact.id in names or (subtype and fact.id.startswith("subtype."))
