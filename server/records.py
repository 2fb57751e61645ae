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
from gmmas_schema.calibration import CalibrationStatistics
from gmmas_schema.errors import ReasonCode
from gmmas_schema.messages import Evaluation, PseudoLabels, Target
from gmmas_schema.privacy import PrivacySpent
from gmmas_schema.vocabulary import Modality, Task
from gmmas_workflows.records import FinishedRound, FinishedRun
from gmmas_workflows.scores import ModelScore


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
        cpu_seconds: processor seconds of the site's trainer over the request.
        bytes_down: bytes of tensors and documents sent to the site.
        bytes_up: bytes of tensors and documents it sent.
        pseudo_labels: what the site's unlabelled cases gave, per target.
        shares: share in each group's mean, in [0, 1].
        evaluation: accuracy of the received model on the site's validation cases.
        personalised: of the site's own form of it, in the personalised mode.
        subsets: accuracy by the sequences shown, where it was asked for, until it is merged.
        calibration: the site's sums for calibration, until they are merged; they are not kept.
        reason: one line on why the reply was refused; the site is told it with the next request.
        norms: length of the accepted update per group (strategies.norms); of a private round nothing is kept.
        clipped: factor below 1 by which the update was shortened, per group.
        cosine: with the mean direction of the others, where the run asks for it and the site has enough company.
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
    pseudo_labels: dict[Target, PseudoLabels] = Field(default_factory=dict)
    shares: dict[str, float] = Field(default_factory=dict)
    round_trip_s: float = Field(default=0, ge=0)
    seconds: dict[str, float] = Field(default_factory=dict)
    bytes_down: int = Field(default=0, ge=0)
    bytes_up: int = Field(default=0, ge=0)
    cpu_seconds: float = Field(default=0, ge=0)
    peak_memory_mib: float = Field(default=0, ge=0)
    evaluation: Evaluation | None = None
    personalised: Evaluation | None = None
    subsets: dict[str, Evaluation] = Field(default_factory=dict)
    calibration: CalibrationStatistics | None = None
    reason: str = ""
    norms: dict[str, float] = Field(default_factory=dict)
    clipped: dict[str, float] = Field(default_factory=dict)
    cosine: float | None = None


class RoundRecord(FinishedRound):
    """One finished round (round.json).

    Attributes:
        attempt: 1-based; more than 1 where earlier attempts failed for want of replies.
        seconds: wall seconds of the successful attempt.
        ready: ramp of the pseudo-labels per target that was ready.
        combined: why a group was combined otherwise than `robustness.combine` asks for.
        privacy: what the run had spent after this round.
        cpu_seconds: processor seconds of the coordinator's process since the last round, up to the checkpoint.
        validation: of model `round` - 1, the one the sites received, as they received it.
        personalised: in the personalised mode, of that model with each site's own norms; it decides on nothing.
        peak_memory_mib: largest resident memory of the coordinator's process so far.
    """

    attempt: int = Field(ge=1)
    sites: tuple[SiteRecord, ...]
    ready: dict[Target, float] = Field(default_factory=dict)
    personalised: ModelScore | None = None
    combined: dict[str, str] = Field(default_factory=dict)
    privacy: PrivacySpent | None = None
    cpu_seconds: float = Field(default=0, ge=0)

    @property
    def groups_moved(self) -> frozenset[str]:
        """Groups of tensors in whose mean at least one site had a share."""
        return frozenset(group for site in self.sites for group, share in site.shares.items() if share > 0)

    @property
    def bytes_down(self) -> int:
        """Bytes sent to all sites."""
        return sum(site.bytes_down for site in self.sites)

    @property
    def bytes_up(self) -> int:
        """Bytes received from all sites."""
        return sum(site.bytes_up for site in self.sites)


class RunResult(FinishedRun):
    """The run's end (result.json).

    Attributes:
        ledger: what the evaluations after the last round cost, one entry per site and evaluation.
        privacy: what the whole run spent.
    """

    ledger: tuple[SiteRecord, ...] = ()
    privacy: PrivacySpent | None = None


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
