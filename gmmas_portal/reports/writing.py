"""From a record to a report: collect facts, judge tissue, choose evidence, write.

Whether a patient may see the patient's version is not decided here: it exists for them only after a clinician has released it.
"""

from collections.abc import Iterable
from datetime import date
from types import MappingProxyType
from typing import Final, Literal

from gmmas_portal.evidence.diagnosis import NAMED, judge_tissue
from gmmas_portal.evidence.library import EvidenceLibrary, read_library
from gmmas_portal.evidence.rules import choose_evidence
from gmmas_portal.reports.clinician import write_for_clinician
from gmmas_portal.reports.material import Material
from gmmas_portal.reports.patient import write_for_patient
from gmmas_portal.reports.provenance import describe_origin
from gmmas_portal.reports.report import Audience, Citation, Report, Section, Sentence
from gmmas_schema.case_record import AbstainCode, CaseRecord, Fact

Survival = Literal["hidden", "shown"]

DERIVED_LABEL: Final = "tumour type by WHO CNS5 from the entered results"


def write_report(
    record: CaseRecord,
    *,
    audience: Audience,
    on: date,
    survival: Survival | None = None,
    library: EvidenceLibrary | None = None,
) -> Report:
    """Write a report from templates.

    Args:
        record: of the case.
        audience: whom it is for.
        on: day of writing; evidence that has expired by then is not cited.
        survival: whether figures on survival are told; by default to clinicians only.
        library: of evidence; by default the one that comes with the package.

    Raises:
        ConfigError: a rule names evidence that the library does not have.
    """
    library, shown = library or read_library(), survival or ("hidden" if audience is Audience.PATIENT else "shown")
    material = collect(record, on=on, survival=shown, library=library)
    written = write_for_clinician(material) if audience is Audience.CLINICIAN else write_for_patient(material)
    sentences = tuple(sorted(written, key=lambda sentence: tuple(Section).index(sentence.section)))
    rests_on = dict.fromkeys(name for sentence in sentences for name in sentence.facts)
    return Report(
        case=record.case,
        made_at=record.made_at,
        audience=audience,
        sentences=sentences,
        facts=tuple(material.facts[name] for name in rests_on),
        citations=_cite(sentences, library),
        abstentions=record.abstentions,
        modalities_used=record.modalities_used,
        modalities_missing=record.modalities_missing,
        model=record.model,
        segmentation=record.segmentation,
        survival=shown,
        record_sha256=record.digest(),
        evidence_sha256=library.digest(),
        notice=record.notice,
    )


def collect(record: CaseRecord, *, on: date, survival: Survival, library: EvidenceLibrary) -> Material:
    """Return what a report of this record may be written from."""
    facts: dict[str, Fact] = {fact.id: fact for fact in (*describe_origin(record), *record.facts)}
    is_minor = any(abstention.code is AbstainCode.MINOR for abstention in record.abstentions)
    tissue = judge_tissue(facts, is_minor=is_minor)
    if tissue.diagnosis is not None and NAMED not in facts:
        facts[NAMED] = Fact(id=NAMED, label=DERIVED_LABEL, value=tissue.diagnosis.value, source="clinician")
    chosen = choose_evidence(facts, tissue, library=library, on=on, is_minor=is_minor)
    entries = library.by_id()
    kept = tuple(entry for entry in chosen if survival == "shown" or not entries[entry.evidence].survival)
    return Material(record, MappingProxyType(facts), tissue, kept, entries)


def _cite(sentences: Iterable[Sentence], library: EvidenceLibrary) -> tuple[Citation, ...]:
    """Return the sources that sentences rest on, numbered in the order in which they first do."""
    cited = dict.fromkeys(name for sentence in sentences for name in sentence.evidence)
    entries = [library.entry(name) for name in cited]
    return tuple(
        Citation(
            number=number,
            evidence=entry.id,
            source=entry.source.text(),
            population=entry.population,
            read="" if entry.verification is None else entry.verification.read,
        )
        for number, entry in enumerate(entries, start=1)
    )
