"""Promotion of a model by an alias of the registry: the rules of the gate, and the record of what was found."""

from enum import StrEnum

from pydantic import Field

from gmmas_schema.base import FrozenModel
from gmmas_schema.manifest import Sha256


class GateRules(FrozenModel):
    """How much worse than the present holder of the alias a model may be.

    Attributes:
        dice: at any site, in any region.
        auc: at any site, for any marker.
        auc_patients: fewest patients at a site behind an AUC that is judged: of five, one pair that changes its order may move it by .25.
        ece: expected calibration error of a region over all sites.
        nll: mean negative log-likelihood of a marker over all sites, in nats: of the few patients that markers have, a calibration error
            is mostly noise, and this is a fair score of any number of them.
        patients: fewest behind a calibration that is judged.
    """

    dice: float = Field(default=0.02, ge=0, le=1)
    auc: float = Field(default=0.03, ge=0, le=1)
    auc_patients: int = Field(default=10, ge=2)
    ece: float = Field(default=0.03, ge=0, le=1)
    nll: float = Field(default=0.05, ge=0)
    patients: int = Field(default=10, ge=2)


class Verdict(StrEnum):
    """Of one check."""

    HOLDS = "holds"
    FAILS = "fails"
    NOT_JUDGED = "not judged"


class GateFinding(FrozenModel):
    """One check of the gate.

    Attributes:
        subject: what was looked at: `dice_wt`, `calibration idh`, `signature`, `tasks`.
        site: where; empty for all sites together.
        champion: value of the present holder; `candidate` that of the model in question.
        difference: candidate minus champion, with its 95 % interval.
        paired: whether the interval is that of differences on the same patients; otherwise it is the wider one of unrelated means.
        margin: how much worse it may be.
        note: what is to be known of it.
    """

    subject: str
    site: str = ""
    verdict: Verdict
    champion: float | None = None
    candidate: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    paired: bool = False
    margin: float | None = None
    note: str = ""


class Promotion(FrozenModel):
    """What is kept of a promotion.

    Attributes:
        model: registered model; `version` of it that was promoted, `replaced` the one that had the alias before, empty for the first.
        weights: SHA-256 of the promoted version's model.safetensors.
        evidence: identifier of the validation that the findings rest on; empty for the first holder.
        override: why the alias was given although a check failed; empty where all held.
        by: the operator's account on the coordinator's machine.
        at: UTC, ISO 8601.
    """

    model: str
    alias: str
    version: str
    replaced: str = ""
    weights: Sha256
    rules: GateRules
    findings: tuple[GateFinding, ...]
    evidence: str = ""
    override: str = Field(default="", max_length=500)
    by: str
    at: str

    @property
    def failed(self) -> tuple[GateFinding, ...]:
        """Return the checks that failed."""
        return tuple(found for found in self.findings if found.verdict is Verdict.FAILS)
