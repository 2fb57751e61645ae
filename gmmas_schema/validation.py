"""A cross-site validation: which published models are measured at which sites (validation.json), and what came of it (matrix.json)."""

from collections import Counter
from typing import Annotated, Self

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.calibration import Head
from gmmas_schema.errors import ReasonCode
from gmmas_schema.federation import TrackingConfig
from gmmas_schema.manifest import Sha256
from gmmas_schema.messages import Evaluation
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import Split

MOST_MODELS = 20
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,60}$")]


class ValidatedModel(FrozenModel):
    """One model of a validation.

    Attributes:
        label: what it is called in tables, and the name of its folder.
        source: where it was read from, as the user named it.
        weights: SHA-256 of model.safetensors.
        run: that made it, where it is known; `round` likewise.
    """

    label: Label
    source: str
    weights: Sha256
    definition: ModelDefinition
    run: str = ""
    round: int = Field(default=0, ge=0)


def _labels_differ(models: tuple[ValidatedModel, ...]) -> tuple[ValidatedModel, ...]:
    if twice := [label for label, count in Counter(model.label for model in models).items() if count > 1]:
        raise ValueError(f"two models are called {twice[0]}")
    return models


class ValidationConfig(FrozenModel):
    """What is asked. Models of one definition are asked about one after the other; the first model is what the others are compared with.

    Attributes:
        split: of the sites' patients.
        seed: of the bootstrap; it is the same for every model, so resamples are the same.
        sites: that must answer about a model for it to count.
        join_deadline_s: longest wait for `sites`; who is there by then is asked.
        deadline_s: longest wait for the answers about one model.
    """

    models: Annotated[tuple[ValidatedModel, ...], Field(min_length=1, max_length=MOST_MODELS), AfterValidator(_labels_differ)]
    split: Split = Split.TEST
    seed: int = Field(default=0, ge=0)
    sites: PositiveInt = 1
    join_deadline_s: PositiveFloat = 60.0
    deadline_s: PositiveFloat = 3600.0
    tracking: TrackingConfig = TrackingConfig()


class HeadError(FrozenModel):
    """How far one head's probabilities, as the model gives them, are from what was right, over all sites' patients.

    Attributes:
        patients: behind `nll`.
        nll: mean negative log-likelihood in nats.
        ece: expected calibration error.
        reliability_patients: behind `ece`.
    """

    patients: int = Field(ge=0)
    nll: float | None = None
    ece: float | None = None
    reliability_patients: float = Field(default=0, ge=0)


class MatrixRow(FrozenModel):
    """One model at every site.

    Attributes:
        sites: what each site measured; its `paired` compares with the first row.
        refused: sites that gave no figures, with the reason.
        metrics: mean over the sites weighted by patients (gmmas_workflows.scores).
        calibration: over all sites together.
    """

    model: ValidatedModel
    sites: dict[str, Evaluation] = {}
    refused: dict[str, ReasonCode] = {}
    metrics: dict[str, float] = {}
    score: float | None = None
    calibration: dict[Head, HeadError] = {}


class ValidationMatrix(FrozenModel):
    """Contents of matrix.json: every model at every site; the first row is what the others were compared with.

    Attributes:
        validation: identifier of the validation.
        made_at: UTC, ISO 8601.
        seconds: wall seconds it took.
    """

    validation: str
    split: Split
    made_at: str
    seconds: float = Field(ge=0)
    rows: tuple[MatrixRow, ...] = Field(min_length=1)

    @property
    def sites(self) -> tuple[str, ...]:
        """Return every site that measured a model, by name."""
        return tuple(sorted({site for row in self.rows for site in row.sites}))

    def row_of(self, weights: str) -> MatrixRow | None:
        """Return the row of exact weights, or None."""
        return next((row for row in self.rows if row.model.weights == weights), None)

    @model_validator(mode="after")
    def _one_split(self) -> Self:
        if any(own.split is not self.split for row in self.rows for own in row.sites.values()):
            raise ValueError("an evaluation is of another split")
        return self
