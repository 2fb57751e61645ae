"""The record of one analysed case, fact by fact: whatever a viewer, a report or an export says about a case is a fact of this record.

A fact has a label, a value, a unit and a status. A value that must not be relied on stays in the record, for whoever checks it, with status
ABSTAINED and the codes of its reasons; text about it says that the question is open. What could not be measured is ABSENT and has no value.
Nothing is zero because it is unknown.

Units are UCUM codes (ml, mm, %, 1), as in the DICOM structured report made from the same facts. Sides are the patient's.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field, model_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.manifest import Sha256
from gmmas_schema.model_card import SubsetAccuracy
from gmmas_schema.vocabulary import Modality

FACT_ID: Final = r"^[a-z][a-z0-9]*(\.[a-z0-9_]+)+$"
"""`volume.wt`, `marker.idh`, `location.lobe_1`: what is measured, then of what."""

FactId = Annotated[str, Field(pattern=FACT_ID)]

NOTICE: Final = "Research use only, not a medical device. Imaging suggests, tissue decides."


class FactStatus(StrEnum):
    """Whether a fact may be told."""

    FOUND = "found"
    ABSTAINED = "abstained"
    ABSENT = "absent"


class AbstainCode(StrEnum):
    """Why a question is left open."""

    LOW_CONFIDENCE = "low-confidence"
    NOT_CALIBRATED = "not-calibrated"
    NOT_TRAINED = "not-trained"
    OUT_OF_DISTRIBUTION = "out-of-distribution"
    SEQUENCES = "neither-t1ce-nor-flair"
    NEEDS_SEQUENCE = "needs-a-missing-sequence"
    QUALITY = "quality-gate"
    DISCORDANT = "discordant-markers"
    MINOR = "under-18"
    POST_OPERATIVE = "post-operative"
    NO_TUMOUR = "no-tumour-outlined"
    NOT_MEASURED = "not-measured"


class Fact(FrozenModel):
    """One thing that is said about a case.

    Attributes:
        id: by which sentences, exports and tests name it.
        label: what it is, in words that can stand before the value: `volume of the whole tumour`.
        value: None only where the status is ABSENT.
        unit: UCUM; empty for words and yes or no.
        decimals: that the value is told with.
        confidence: calibrated probability of a told class, in [0, 1]; None for measures.
        codes: reasons of a status other than FOUND; never empty then.
        reason: the same in a sentence for readers.
        source: `segmentation` is measured on the mask of the record's version, `network` predicted, `file` read from the images,
            `clinician` entered by a person.
    """

    id: FactId
    label: str = Field(min_length=1)
    value: bool | int | float | str | None = None
    unit: str = ""
    decimals: int = Field(default=1, ge=0, le=4)
    status: FactStatus = FactStatus.FOUND
    confidence: float | None = Field(default=None, ge=0, le=1)
    codes: tuple[AbstainCode, ...] = ()
    reason: str = ""
    source: Literal["segmentation", "network", "file", "clinician"]

    @model_validator(mode="after")
    def _status_fits(self) -> "Fact":
        if (self.value is None) != (self.status is FactStatus.ABSENT):
            raise ValueError(f"{self.id}: a value is missing exactly where the status is absent")
        if bool(self.codes) != (self.status is not FactStatus.FOUND):
            raise ValueError(f"{self.id}: reasons stand exactly where the status is not found")
        return self

    def value_text(self) -> str:
        """Return the value with its unit as it is told: `31.4 ml`, `yes`, `left`; empty where there is none."""
        if self.value is None:
            return ""
        if isinstance(self.value, bool):
            return "yes" if self.value else "no"
        number = f"{self.value:.{self.decimals}f}" if isinstance(self.value, float) else str(self.value)
        return number if self.unit in ("", "1") else f"{number} {self.unit}"


class Abstention(FrozenModel):
    """A reason to leave questions open, and which."""

    code: AbstainCode
    reason: str
    facts: tuple[FactId, ...]


class RecordModel(FrozenModel):
    """The model behind a record.

    Attributes:
        version: registered version or run it came from; empty for a model without one.
        signed: its manifest was verified under the coordinator's authority.
        hospitals: that trained it; None where it has no card.
    """

    name: str
    version: str = ""
    weights_sha256: Sha256
    definition_digest: str
    signed: bool = False
    calibrated: bool = False
    hospitals: int | None = None


class RecordSegmentation(FrozenModel):
    """The mask that was measured.

    Attributes:
        version: 1 is the model's; each correction has the next number.
        author: `model`, or the name of the person who corrected.
        based_on: version that was corrected.
    """

    version: int = Field(ge=1)
    author: str
    sha256: Sha256
    based_on: int | None = None


class CaseRecord(FrozenModel):
    """All that is known and said about one case; the one source of viewer, report and exports.

    Attributes:
        case: pseudonym, never an identifier of the patient.
        made_at: ISO 8601, UTC.
        accuracy: what was measured for patients of whom exactly these sequences were shown; None says that nothing was.
        inputs: content of the images used.
    """

    case: str
    made_at: str
    facts: tuple[Fact, ...]
    abstentions: tuple[Abstention, ...] = ()
    modalities_used: tuple[Modality, ...]
    modalities_missing: tuple[Modality, ...]
    accuracy: SubsetAccuracy | None = None
    model: RecordModel
    segmentation: RecordSegmentation
    inputs: dict[Modality, Sha256]
    software: str
    seconds: float = Field(ge=0)
    notice: str = NOTICE

    @model_validator(mode="after")
    def _ids_are_whole(self) -> "CaseRecord":
        ids = [fact.id for fact in self.facts]
        if twice := sorted({name for name in ids if ids.count(name) > 1}):
            raise ValueError(f"two facts have the same id: {', '.join(twice)}")
        if unknown := sorted({name for abstention in self.abstentions for name in abstention.facts} - set(ids)):
            raise ValueError(f"abstentions name facts that are not there: {', '.join(unknown)}")
        return self

    def fact(self, name: str) -> Fact | None:
        """Return a fact by its id; None where the record has none of it."""
        return next((fact for fact in self.facts if fact.id == name), None)
