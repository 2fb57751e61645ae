"""What is known about a patient and a model beside the images, and bears on what may be said.

Nothing of it is needed: what is None is unknown, and unknown is neither yes nor no. Marker values have the meaning they have in
gmmas_schema.vocabulary.Task. A person's name stands nowhere here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import Field

from gmmas_model.weights import Weights
from gmmas_runtime.manifest import Standing
from gmmas_schema.base import FrozenModel
from gmmas_schema.case_record import RecordModel
from gmmas_schema.errors import ModelError
from gmmas_schema.manifest import CARD_FILE
from gmmas_schema.model_card import ModelCard, SubsetAccuracy
from gmmas_schema.vocabulary import Modality, Subtype, Task
from gmmas_workflows.model_source import OpenedModel

NAMELESS: Final = "gmmas"
"""What a model without a card is called."""


class TissueResults(FrozenModel):
    """What the laboratory said, as a clinician entered it; None is not determined.

    Attributes:
        idh: True for mutant.
        codeletion: True for 1p/19q-codeleted.
        grade: WHO grade.
        mgmt: True for a methylated promoter.
        diagnosis: by histology and molecular tests, as the report names it.
        necrosis: necrosis or microvascular proliferation.
        molecular: TERT promoter mutation, EGFR amplification, or gain of chromosome 7 with loss of chromosome 10.
        cdkn2a: homozygous deletion of CDKN2A/B.
        h3: an alteration of histone H3.
    """

    idh: bool | None = None
    codeletion: bool | None = None
    grade: int | None = Field(default=None, ge=2, le=4)
    mgmt: bool | None = None
    diagnosis: Subtype | None = None
    necrosis: bool | None = None
    molecular: bool | None = None
    cdkn2a: bool | None = None
    h3: bool | None = None

    def marker(self, task: Task) -> bool | None:
        """Return a marker in the two classes of the network: of the grade whether it is 3 or 4."""
        high = None if self.grade is None else self.grade >= 3
        return {Task.IDH: self.idh, Task.CODELETION: self.codeletion, Task.GRADE: high, Task.MGMT: self.mgmt}[task]


class CaseContext(FrozenModel):
    """What was entered about a case.

    Attributes:
        pseudonym: by which the record names the case; None for the identifier of the case's files.
        age_years: at the scan.
        post_operative: the scan was taken after surgery.
        t2_flair_mismatch: the sign as a radiologist read it.
        tissue: results from the laboratory.
        ood_threshold: score above which a case counts as out of distribution, where the hospital has measured its own
            (`gmmas portal threshold`); None for the built-in one.
    """

    pseudonym: str | None = Field(default=None, min_length=1, max_length=64)
    age_years: int | None = Field(default=None, ge=0, le=120)
    post_operative: bool | None = None
    t2_flair_mismatch: bool | None = None
    tissue: TissueResults = TissueResults()
    ood_threshold: float | None = Field(default=None, ge=0, le=1)


@dataclass(frozen=True)
class KnownModel:
    """A model with what is known of where it comes from.

    Attributes:
        weights: the model.
        name: as users know it.
        version: registered version, or run and round.
        signed: under the authority that it was held against; anybody can sign under their own.
        card: its model card; None where it has none.
    """

    weights: Weights
    name: str = NAMELESS
    version: str = ""
    signed: bool = False
    card: ModelCard | None = None

    @classmethod
    def of(cls, model: "Weights | OpenedModel | KnownModel", *, name: str = "", version: str = "") -> "KnownModel":
        """Return what a model says about itself.

        Args:
            model: weights alone, or as gmmas_workflows.model_source.open_model gives them.
            name: instead of the card's.
            version: instead of run and round.

        Raises:
            ModelError: the card cannot be read, or is that of other weights.
        """
        if isinstance(model, KnownModel):
            return model
        signed, documents = False, dict[str, bytes]()
        if isinstance(model, Weights):
            weights = model
        else:
            weights, documents, signed = model.weights, dict(model.documents), model.origin.standing is Standing.VOUCHED
        card = _read_card(documents, weights)
        origin = weights.metadata
        named = f"{origin['run']}, round {origin['round']}" if {"run", "round"} <= origin.keys() else origin.get("run", "")
        return cls(weights, name or (card.name if card else NAMELESS), version or named, signed, card)

    def describe(self) -> RecordModel:
        """Return the model as a record names it."""
        return RecordModel(
            name=self.name,
            version=self.version,
            weights_sha256=self.weights.sha256,
            definition_digest=self.weights.definition.digest(),
            signed=self.signed,
            calibrated=self.weights.calibration is not None,
            hospitals=None if self.card is None else self.card.data.sites,
        )

    def accuracy_of(self, modalities: tuple[Modality, ...]) -> SubsetAccuracy | None:
        """Return what was measured where exactly these sequences were shown, on test patients or else on validation patients."""
        splits = () if self.card is None else (self.card.test, self.card.validation)
        measured = [
            subset for split in splits if split is not None for subset in split.subsets if set(subset.modalities) == set(modalities)
        ]
        return measured[0] if measured else None


def _read_card(documents: Mapping[str, bytes], weights: Weights) -> ModelCard | None:
    """Return the model card among a model's documents, held against its weights."""
    if CARD_FILE not in documents:
        return None
    try:
        card = ModelCard.model_validate_json(documents[CARD_FILE])
    except ValueError as error:
        raise _bad_card(got=f"{len(documents[CARD_FILE])} bytes that are no model card") from error
    if card.weights != weights.sha256:
        raise _bad_card(got=f"the card of weights {card.weights[:12]}", expected=f"that of weights {weights.sha256[:12]}")
    return card


def _bad_card(*, got: str, expected: str = "the card that was published with the model") -> ModelError:
    return ModelError(
        "the model card cannot be used", where=CARD_FILE, got=got, expected=expected, remedy="copy the model's folder again from its origin"
    )
