"""Facts about the images, the model, the outline and the open questions of a record, so that sentences about these rest on facts too."""

from typing import Final

from gmmas_portal.reports.wording import join_words
from gmmas_schema.case_record import AbstainCode, CaseRecord, Fact, FactStatus
from gmmas_schema.model_card import Figure
from gmmas_schema.vocabulary import MARKER_NAMES, Modality, Region

MODALITY_NAMES: Final = {Modality.T1: "T1", Modality.T1CE: "T1 with contrast agent (T1ce)", Modality.T2: "T2", Modality.FLAIR: "FLAIR"}
REGION_NAMES: Final = {Region.WT: "whole tumour", Region.TC: "tumour core", Region.ET: "enhancing tumour"}


def describe_origin(record: CaseRecord) -> tuple[Fact, ...]:
    """Return the facts about a record; ids begin with `sequences.`, `accuracy.`, `model.`, `outline.`, `reason.`."""
    return (*_sequences(record), *_accuracy(record), *_model(record), *_outline(record), *_reasons(record))


def reason_of(fact: Fact) -> str:
    """Return why a fact is left open or was not measured, in words; empty for one that is told."""
    return fact.reason.rstrip(".") or ", ".join(code.value.replace("-", " ") for code in fact.codes)


def _sequences(record: CaseRecord) -> tuple[Fact, ...]:
    held = (
        ("sequences.used", "sequences used", record.modalities_used),
        ("sequences.missing", "sequences missing", record.modalities_missing),
    )
    return tuple(
        Fact(id=name, label=label, value=join_words([MODALITY_NAMES[m] for m in modalities]), source="file")
        for name, label, modalities in held
        if modalities
    )


def _accuracy(record: CaseRecord) -> tuple[Fact, ...]:
    """Return what was measured for exactly these sequences; one ABSENT fact where nothing was."""
    accuracy = None if record.accuracy is None else record.accuracy.accuracy
    if accuracy is None or not (accuracy.dice or accuracy.auc):
        return (
            Fact(
                id="accuracy.measured",
                label="accuracy for exactly these sequences",
                status=FactStatus.ABSENT,
                codes=(AbstainCode.NOT_MEASURED,),
                reason="the model's card has no test with them",
                source="network",
            ),
        )
    dice = [(f"accuracy.dice.{region}", f"Dice overlap of the {REGION_NAMES[region]}", figure) for region, figure in accuracy.dice.items()]
    auc = [(f"accuracy.auc.{task}", f"area under the curve of {MARKER_NAMES[task]}", figure) for task, figure in accuracy.auc.items()]
    return tuple(Fact(id=name, label=label, value=_figure(figure), source="network") for name, label, figure in dice + auc)


def _figure(figure: Figure) -> str:
    known = []
    if figure.low is not None and figure.high is not None:
        known.append(f"95 % interval {figure.low:.2f} to {figure.high:.2f}")
    if figure.patients is not None:
        known.append(f"{figure.patients} patients")
    return f"{figure.value:.2f} ({', '.join(known)})" if known else f"{figure.value:.2f}"


def _model(record: CaseRecord) -> tuple[Fact, ...]:
    model = record.model
    facts: list[tuple[str, str, str | bool | int | None]] = [
        ("model.name", "model", model.name),
        ("model.version", "version", model.version or None),
        ("model.weights", "weights", model.weights_sha256[:12]),
        ("model.signed", "signed by the coordinator", model.signed),
        ("model.calibrated", "calibrated", model.calibrated),
        ("model.hospitals", "hospitals that trained it", model.hospitals),
    ]
    return tuple(Fact(id=name, label=label, value=value, source="network") for name, label, value in facts if value is not None)


def _outline(record: CaseRecord) -> tuple[Fact, ...]:
    outline = record.segmentation
    by_model = outline.author == "model"
    return (
        Fact(id="outline.version", label="version of the outline", value=outline.version, source="segmentation"),
        Fact(id="outline.corrected", label="corrected by a person", value=not by_model, source="segmentation" if by_model else "clinician"),
    )


def _reasons(record: CaseRecord) -> tuple[Fact, ...]:
    """Return the reasons of open questions and missing measures, each once, then those of abstentions that no fact has told yet."""
    reasons = list(dict.fromkeys(reason for fact in record.facts if (reason := reason_of(fact))))
    for abstention in record.abstentions:
        reason = abstention.reason.rstrip(".") or abstention.code.value.replace("-", " ")
        if not any(reason in told for told in reasons):
            reasons.append(reason)
    return tuple(Fact(id=f"reason.r{n}", label="reason", value=reason, source="network") for n, reason in enumerate(reasons, start=1))
