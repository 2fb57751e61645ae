"""Calibration: one temperature per head, reliability by confidence, and below which confidence a marker is left open (calibration.json).

A temperature T > 0 divides a head's logit: s(l / T) is less sure than s(l) for T > 1 (Guo et al., ICML 2017, "On Calibration of Modern
Neural Networks"). Heads are those of conditional probabilities (WT, TC given WT, ET given TC, IDH, 1p/19q given IDH mutant, and optional
markers), so nested regions stay nested and WHO CNS5 is obeyed whatever the temperatures.

Everything that a site reports is a sum over patients in which each patient weighs 1, so sites are merged by addition. Reliability is
that of the probabilities a reader sees (P(codeleted), not P(codeleted | mutant)), in bins of the confidence max(p, 1 - p):

    ECE = sum_b |sum of confidence in b - sum of correct in b| / sum of patients
"""

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat, model_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.vocabulary import Region, Split, Task

CALIBRATION_FILE: Final = "calibration.json"

BINS: Final = 15
"""Bins of equal width over the confidence of a two-way decision, 1/2 to 1."""

TEMPERATURES: Final = tuple(2.0 ** (0.15 * step) for step in range(-20, 21))
"""Where the likelihood is asked for: 41 temperatures from 1/8 to 8, evenly spaced in their logarithm."""

LARGEST_NATS: Final = 1e4
"""A patient's mean negative log-likelihood counts at most this much, so that no site's sum drowns the others'."""


def _one_head(value: Region | Task) -> Region | Task:
    if value is Task.SEGMENTATION:
        raise ValueError("the segmentation has three heads: wt, tc, et")
    return value


Head = Annotated[Region | Task, AfterValidator(_one_head)]
"""What has a temperature of its own: a region or a marker."""

Temperatures = Mapping[Region | Task, float]
"""Temperature per head; a head that is not named has temperature 1."""

BinSums = Annotated[tuple[NonNegativeFloat, ...], Field(min_length=BINS, max_length=BINS)]


def bin_edges() -> tuple[float, ...]:
    """Return the BINS + 1 edges of the bins of confidence."""
    return tuple(0.5 + 0.5 * step / BINS for step in range(BINS + 1))


class CalibrationPlan(FrozenModel):
    """How the run's models are calibrated after the last round.

    Attributes:
        minimum_patients: a head with fewer labelled patients over all sites keeps temperature 1. From 10 on, a fit that is held towards
            1 helps more than it harms (benchmarks/calibration_patients.py).
        target_accuracy: share of right answers that a marker must reach at its threshold and above; below the threshold it is left open.
    """

    minimum_patients: int = Field(default=10, ge=1)
    target_accuracy: float = Field(default=0.9, gt=0.5, lt=1)


class CalibrationQuery(FrozenModel):
    """What a site is asked for beside the accuracy of the model.

    Attributes:
        grid: temperatures at which the likelihood is wanted.
        temperatures: fitted ones; reliability is wanted at temperature 1 and at these.
    """

    grid: tuple[PositiveFloat, ...] = Field(default=(), max_length=200)
    temperatures: dict[Head, PositiveFloat] | None = None


class Reliability(FrozenModel):
    """Sums over patients per bin of confidence; a region's voxels share their patient's weight of 1.

    Attributes:
        patients: weight.
        confidence: weight times confidence.
        correct: weight of what was decided rightly.
    """

    patients: BinSums = (0.0,) * BINS
    confidence: BinSums = (0.0,) * BINS
    correct: BinSums = (0.0,) * BINS

    @property
    def total(self) -> float:
        """Number of patients."""
        return math.fsum(self.patients)

    @property
    def ece(self) -> float | None:
        """Expected calibration error in [0, 1]; None without patients."""
        gaps = [abs(sure - right) for sure, right in zip(self.confidence, self.correct, strict=True)]
        return math.fsum(gaps) / self.total if self.total else None

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        """Return the sum; it does not depend on the order of the parts."""
        given = list(parts)
        names = ("patients", "confidence", "correct")
        return cls(**{name: tuple(math.fsum(sums) for sums in zip(*(getattr(p, name) for p in given), strict=True)) for name in names})


class ReliabilityPair(FrozenModel):
    """Reliability of one head at temperature 1 and at the fitted temperatures."""

    before: Reliability = Reliability()
    after: Reliability = Reliability()

    @classmethod
    def merge(cls, parts: Iterable[Self]) -> Self:
        """Return the sum of pairs."""
        given = list(parts)
        return cls(before=Reliability.merge(p.before for p in given), after=Reliability.merge(p.after for p in given))


class HeadStatistics(FrozenModel):
    """One head at one site; sums in which every patient weighs 1.

    Attributes:
        patients: patients behind `nll`: those whose label the conditional logit answers for.
        nll: per temperature of the grid the sum over patients of their mean negative log-likelihood, in nats.
        reliability: of the head's unconditional probability; None where it was not asked for.
    """

    patients: int = Field(default=0, ge=0)
    nll: tuple[NonNegativeFloat, ...] = ()
    reliability: ReliabilityPair | None = None


class CalibrationStatistics(FrozenModel):
    """A site's answer to a CalibrationQuery.

    Attributes:
        split: where the patients come from: a site without a calibration split uses its validation split.
        patients: patients of that split.
        heads: heads with at least one labelled patient.
    """

    split: Split
    patients: int = Field(ge=0)
    heads: dict[Head, HeadStatistics] = Field(default_factory=dict)


class Abstention(FrozenModel):
    """When a marker is left open.

    Attributes:
        rule: `below` a confidence of `threshold`; `always`, for no confidence reached the target; `never`, for there were too few
            patients to find a threshold, or the marker has none because it is not judged.
        threshold: confidence max(p, 1 - p) from which answers were right often enough, for rule `below`.
        accuracy: share of right answers at the threshold and above, among `patients` patients.
        note: the rule in words.
    """

    rule: Literal["below", "always", "never"] = "never"
    threshold: float | None = Field(default=None, ge=0.5, le=1)
    accuracy: float | None = Field(default=None, ge=0, le=1)
    patients: float = Field(default=0, ge=0)
    note: str = ""


class HeadCalibration(FrozenModel):
    """One head of a calibrated model.

    Attributes:
        temperature: 1 where no fit was made; `note` then says why.
        patients: patients behind the fit.
        nll_before: their mean negative log-likelihood (nats) at temperature 1; `nll_after` at the fitted one. Unlike the calibration
            error, which few patients in many bins overstate, it is a fair score of any number of patients.
        reliability: on the patients of the fit.
        test: on the sites' test patients, which nothing was fitted to.
        abstention: of a marker; None for a region.
    """

    temperature: PositiveFloat = 1.0
    fitted: bool = False
    note: str = ""
    patients: int = Field(default=0, ge=0)
    nll_before: NonNegativeFloat | None = None
    nll_after: NonNegativeFloat | None = None
    reliability: ReliabilityPair = ReliabilityPair()
    test: ReliabilityPair | None = None
    abstention: Abstention | None = None


class Calibration(FrozenModel):
    """Contents of calibration.json, beside the weights it belongs to.

    Attributes:
        weights_sha256: of model.safetensors.
        plan: how the temperatures and thresholds were chosen.
        patients: patients per split that were used; the validation split where a site has no calibration split. It also chose the
            round of the best model, so temperatures from it are slightly flattering; `test` of a head is not.
        heads: per head.
    """

    weights_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    plan: CalibrationPlan = CalibrationPlan()
    patients: dict[Split, int] = Field(default_factory=dict)
    heads: dict[Head, HeadCalibration] = Field(default_factory=dict)

    @property
    def temperatures(self) -> dict[Region | Task, float]:
        """Temperature per head."""
        return {head: found.temperature for head, found in self.heads.items()}

    @model_validator(mode="after")
    def _markers_abstain(self) -> Self:
        if any(found.abstention is not None for head, found in self.heads.items() if isinstance(head, Region)):
            raise ValueError("a region does not abstain")
        return self
