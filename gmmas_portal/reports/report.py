"""A report: sentences, each with the facts and the evidence it rests on.

A sentence is kept as its template, in which facts and evidence are placeholders (`{{volume.wt}}`), and as the text made of it. Whoever
words a template anew cannot touch a value.
"""

import re
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from gmmas_portal.evidence.library import EvidenceId
from gmmas_schema.base import FrozenModel
from gmmas_schema.case_record import NOTICE, Abstention, Fact, FactId, RecordModel, RecordSegmentation
from gmmas_schema.manifest import Sha256
from gmmas_schema.vocabulary import Modality

PLACEHOLDER: Final = re.compile(r"\{\{([a-z][a-z0-9]*(?:\.[a-z0-9_]+)+)\}\}")
EVIDENCE_PREFIX: Final = "evidence."


class Audience(StrEnum):
    """Whom a report is for."""

    CLINICIAN = "clinician"
    PATIENT = "patient"


class Section(StrEnum):
    """A part of a report."""

    SIZE = "size"
    PLACE = "place"
    PREDICTED = "predicted"
    OPEN = "open"
    TISSUE = "tissue"
    EVIDENCE = "evidence"
    IMAGES = "images"
    ORIGIN = "origin"


class Wording(StrEnum):
    """Who worded a report."""

    TEMPLATE = "template"
    LANGUAGE_MODEL = "language-model"
    TEMPLATE_AFTER_REFUSAL = "template-after-refusal"
    """A language model was asked; what it wrote was refused, or it did not answer."""


class Sentence(FrozenModel):
    """One sentence.

    Attributes:
        id: by which it is named, as `measures.volumes`.
        template: the sentence with placeholders.
        text: the sentence as it is read.
        facts: that it rests on: those of its placeholders, then others.
        evidence: that it rests on, likewise.
    """

    id: str = Field(min_length=1)
    section: Section
    template: str = Field(min_length=1)
    text: str = Field(min_length=1)
    facts: tuple[FactId, ...] = ()
    evidence: tuple[EvidenceId, ...] = ()

    @model_validator(mode="after")
    def _rests_on_something(self) -> "Sentence":
        if not (self.facts or self.evidence):
            raise ValueError(f"{self.id}: a sentence rests on a fact or on evidence")
        if missing := set(PLACEHOLDER.findall(self.template)) - {*self.facts, *self.evidence}:
            raise ValueError(f"{self.id}: placeholders that are not among its facts and evidence: {', '.join(sorted(missing))}")
        if PLACEHOLDER.search(self.text):
            raise ValueError(f"{self.id}: its text has a placeholder left")
        return self


class Citation(FrozenModel):
    """A source that sentences rest on.

    Attributes:
        number: in the order in which sentences first cite.
        population: whom the figures are of.
        read: how much of the source was read when the entry was made.
    """

    number: int = Field(ge=1)
    evidence: EvidenceId
    source: str
    population: str
    read: str


class Report(FrozenModel):
    """A whole report of one case for one kind of reader.

    Attributes:
        case: pseudonym.
        made_at: of the record, ISO 8601, UTC.
        facts: all that sentences rest on, as they were.
        abstentions: of the record.
        model: behind the record.
        segmentation: the outline that was measured.
        survival: whether figures on survival may stand in it.
        wording: who worded it; `worded_by` names the language model.
        record_sha256: digest of the record; `evidence_sha256` of the library of evidence.
    """

    version: Literal[1] = 1
    case: str
    made_at: str
    audience: Audience
    sentences: tuple[Sentence, ...]
    facts: tuple[Fact, ...]
    citations: tuple[Citation, ...] = ()
    abstentions: tuple[Abstention, ...] = ()
    modalities_used: tuple[Modality, ...]
    modalities_missing: tuple[Modality, ...]
    model: RecordModel
    segmentation: RecordSegmentation
    survival: Literal["hidden", "shown"]
    wording: Wording = Wording.TEMPLATE
    worded_by: str = ""
    record_sha256: Annotated[Sha256, Field()]
    evidence_sha256: Annotated[Sha256, Field()]
    notice: str = NOTICE

    @model_validator(mode="after")
    def _rests_on_what_is_there(self) -> "Report":
        known, cited = {fact.id for fact in self.facts}, {citation.evidence for citation in self.citations}
        for sentence in self.sentences:
            if missing := sorted({*sentence.facts} - known) + sorted({*sentence.evidence} - cited):
                raise ValueError(f"{sentence.id} rests on what is not in the report: {', '.join(missing)}")
        ids = [sentence.id for sentence in self.sentences]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"two sentences have the same id: {', '.join(twice)}")
        return self

    def of_section(self, section: Section) -> tuple[Sentence, ...]:
        """Return the sentences of one part."""
        return tuple(sentence for sentence in self.sentences if sentence.section is section)

    def sections(self) -> tuple[Section, ...]:
        """Return the parts that have sentences, in order."""
        return tuple(dict.fromkeys(sentence.section for sentence in self.sentences))

    def numbers_of(self, sentence: Sentence) -> tuple[int, ...]:
        """Return the numbers of the citations of a sentence."""
        return tuple(citation.number for citation in self.citations if citation.evidence in sentence.evidence)
