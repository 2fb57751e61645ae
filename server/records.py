"""What the coordinator keeps of each round and of the run: the contents of round.json and result.json, and what MLflow is given.

Round k trains on model k-1 and makes model k; model 0 is the seeded start. The sites evaluate the model they received, so the record
of round k carries the validation of model k-1.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import Field

from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ReasonCode
from gmmas_schema.messages import Evaluation
from gmmas_schema.vocabulary import Modality, Split, Task


class Outcome(StrEnum):
    """What became of a request to a site."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    FAILED = "failed"
    MISSING = "missing"


class SiteRecord(FrozenModel):
    """One site in one round.

    Attributes:
        outcome: accepted; refused (the reply did not pass the checks); failed (the site or Flower answered with an error); missing
            (no reply by the deadline).
        code: reason, where the outcome is not accepted.
        round_trip_s: seconds from the push of the request to the end of folding the reply in.
        seconds: wall seconds at the site by stage, as it reports them.
        bytes_down: bytes of tensors and documents sent to the site.
        bytes_up: bytes of tensors and documents it sent.
        shares: share in each group's mean, in [0, 1].
        evaluation: accuracy of the received model on the site's validation cases.
    """

    site: str
    node: str = Field(description="Flower node identifier, decimal")
    outcome: Outcome
    code: ReasonCode | None = None
    modalities: tuple[Modality, ...] = ()
    cases: int = Field(default=0, ge=0)
    labelled: dict[Task, int] = Field(default_factory=dict)
    losses: dict[Task, float] = Field(default_factory=dict)
    steps: int = Field(default=0, ge=0)
    shares: dict[str, float] = Field(default_factory=dict)
    round_trip_s: float = Field(default=0, ge=0)
    seconds: dict[str, float] = Field(default_factory=dict)
    bytes_down: int = Field(default=0, ge=0)
    bytes_up: int = Field(default=0, ge=0)
    peak_memory_mib: float = Field(default=0, ge=0)
    evaluation: Evaluation | None = None


class ModelScore(FrozenModel):
    """Accuracy of one global model over the sites of a split.

    Attributes:
        model_round: the round that made the model; 0 is the seeded start.
        metrics: mean over the sites weighted by the patients each metric rests on: `dice_wt`, `dice_tc`, `dice_et`, `auc_idh`,
            `auc_codeletion`, `loss_<task>`; a metric that no site could compute is left out.
        score: mean of the available `dice_*` (of the `auc_*` where no site has segmentations); None where there is neither.
        sites: each site's own evaluation.
    """

    model_round: int = Field(ge=0)
    split: Split
    metrics: dict[str, float] = Field(default_factory=dict)
    score: float | None = None
    sites: dict[str, Evaluation] = Field(default_factory=dict)


class RoundRecord(FrozenModel):
    """One finished round (round.json).

    Attributes:
        attempt: 1-based; more than 1 where earlier attempts failed for want of replies.
        seconds: wall seconds of the successful attempt.
        validation: of model `round` - 1, the one the sites received.
        model_sha256: digest of this round's model.safetensors.
        peak_memory_mib: largest resident memory of the coordinator's process so far.
    """

    run: str
    round: int = Field(ge=1)
    rounds: int = Field(ge=1)
    attempt: int = Field(ge=1)
    started_at: float = Field(description="seconds since 1970-01-01 UTC")
    seconds: float = Field(ge=0)
    sites: tuple[SiteRecord, ...]
    validation: ModelScore | None = None
    model_sha256: str
    peak_memory_mib: float = Field(default=0, ge=0)

    @property
    def bytes_down(self) -> int:
        """Bytes sent to all sites."""
        return sum(site.bytes_down for site in self.sites)

    @property
    def bytes_up(self) -> int:
        """Bytes received from all sites."""
        return sum(site.bytes_up for site in self.sites)


class RunResult(FrozenModel):
    """The run's end (result.json).

    Attributes:
        best_round: round whose model has the highest validation score among rounds 1 to `rounds`; of equals the earliest.
        validation: the best model's validation.
        last: the last model's validation.
        test: the best model on the sites' test cases; never used to choose anything.
        ledger: what the evaluations after the last round cost, one entry per site and evaluation.
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
    ledger: tuple[SiteRecord, ...] = ()


class Tracker(Protocol):
    """Where a run's figures go (MLflow, server/tracking.py). Every call may be repeated after a resume with the same contents."""

    def start(self, resolved: Mapping[str, Any]) -> None:
        """Open or re-open the run and record its resolved configuration (plain JSON values)."""

    def log_round(self, record: RoundRecord) -> None:
        """Record one finished round as step `record.round`; a step that is already there is overwritten or left, never doubled."""

    def register(self, kind: Literal["best", "last"], weights_folder: Path, *, round: int, metrics: Mapping[str, float]) -> str:  # noqa: A002
        """Register the model.safetensors + model.json in `weights_folder` and return the version's name or URI."""

    def log_result(self, result: RunResult) -> None:
        """Record the run's end."""

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Close the run."""
