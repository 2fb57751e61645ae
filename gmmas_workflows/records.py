"""What a finished round and a finished run have in common, federated or not; the base of the records on disk and of what MLflow is given.

Round k trains on model k - 1 and makes model k; model 0 is the seeded start.
"""

from pydantic import Field

from gmmas_schema.base import FrozenModel
from gmmas_workflows.scores import ModelScore


class FinishedRound(FrozenModel):
    """One finished round (round.json).

    Attributes:
        rounds: rounds the run is planned for.
        started_at: seconds since 1970-01-01 UTC.
        seconds: wall seconds of the round.
        validation: of the model that `validation.model_round` names; None where nothing was validated.
        model_sha256: digest of this round's model.safetensors.
        peak_memory_mib: largest resident memory of this process so far.
    """

    run: str
    round: int = Field(ge=1)
    rounds: int = Field(ge=1)
    started_at: float = Field(description="seconds since 1970-01-01 UTC")
    seconds: float = Field(ge=0)
    validation: ModelScore | None = None
    model_sha256: str
    peak_memory_mib: float = Field(default=0, ge=0)


class FinishedRun(FrozenModel):
    """A run's end (result.json).

    Attributes:
        rounds: finished rounds.
        best_round: round whose model has the highest validation score among the rounds from 1; of equals the earliest.
        validation: the best model's validation.
        last: the last model's validation.
        test: the best model on the test cases; never used to choose anything.
        subsets: the same by the sequences shown (`t1+flair`), where the run measures that.
    """

    run: str
    rounds: int = Field(ge=1)
    best_round: int = Field(ge=1)
    model_digest: str
    best_sha256: str
    last_sha256: str
    validation: ModelScore | None = None
    last: ModelScore | None = None
    test: ModelScore | None = None
    subsets: dict[str, ModelScore] = Field(default_factory=dict)
