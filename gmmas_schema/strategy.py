"""How sites' updates become the next model: whose count how much (`strategy`), and what is done with their mean (`server_step`)."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat

from gmmas_schema.base import FrozenModel
from gmmas_schema.vocabulary import Region, Task

_Share = Annotated[float, Field(ge=0, le=1)]


class HoldersStrategy(FrozenModel):
    """Every group is averaged over the sites that hold it, weighted by the site's effective case count.

    Attributes:
        weights: the square root of the count, the count itself, or all equal.
        region_rows: the segmentation head is averaged region by region, over the sites whose labels teach that region (strategies.rows);
            where all teach all, that is the head's average.
        fairness: q of q-FFL: weights are multiplied by the site's loss to this power; 0 leaves them as they are (strategies.fairness).
    """

    kind: Literal["holders"] = "holders"
    weights: Literal["sqrt", "cases", "uniform"] = "sqrt"
    region_rows: bool = True
    fairness: float = Field(default=0.0, ge=0, le=5)


class FedAvgStrategy(FrozenModel):
    """Every group over every site, weighted by the number of cases (McMahan et al., AISTATS 2017); the baseline."""

    kind: Literal["fedavg"] = "fedavg"


def _refuse_for_baseline(raw: Any) -> Any:
    if isinstance(raw, Mapping) and raw.get("kind") == "fedavg":
        for key in HoldersStrategy.model_fields.keys() & raw.keys() - {"kind"}:
            raise ValueError(f"strategy.{key} does not go with strategy.kind fedavg: the baseline weighs by cases alone; use kind holders")
    return raw


Strategy = Annotated[HoldersStrategy | FedAvgStrategy, Field(discriminator="kind"), BeforeValidator(_refuse_for_baseline)]


class PseudoTerms(FrozenModel):
    """What pseudo-labelled cases count in the averages of one round (strategies.unlabelled).

    Never more than labelled ones, or the only site with such cases could be made to outweigh all others.

    Attributes:
        weights: of a case against a labelled one, per region or marker; 0 for one that is not named.
        limits: per group, factor on what they add to a site's weight; 1 for one that is not named.
    """

    weights: dict[Region | Task, _Share] = Field(default_factory=dict)
    limits: dict[str, _Share] = Field(default_factory=dict)


class AverageStep(FrozenModel):
    """The next model is the mean, or lies on the way to it (strategies.server_step).

    Attributes:
        learning_rate: factor on the mean update; 1 is plain averaging.
    """

    kind: Literal["average"] = "average"
    learning_rate: PositiveFloat = 1.0


class MomentumStep(FrozenModel):
    """FedAvgM: a step along the mean update, and a share of the step before (strategies.momentum).

    Attributes:
        learning_rate: factor on the mean update.
        momentum: share of the previous round's step that is made again.
    """

    kind: Literal["momentum"] = "momentum"
    learning_rate: PositiveFloat = 1.0
    momentum: float = Field(default=0.5, gt=0, lt=1)


class AdaptiveStep(FrozenModel):
    """What FedAdam and FedYogi share (strategies.adaptive; Reddi et al., ICLR 2021).

    Attributes:
        learning_rate: largest step of a coordinate whose updates all point the same way.
        first_decay: beta_1, of the running mean of the updates.
        second_decay: beta_2, of the running mean of their squares.
        adaptivity: tau, below which an update counts as noise; the smaller, the more adaptive.
    """

    learning_rate: PositiveFloat = 0.03
    first_decay: float = Field(default=0.9, ge=0, lt=1)
    second_decay: float = Field(default=0.99, ge=0, lt=1)
    adaptivity: PositiveFloat = 1e-3


class AdamStep(AdaptiveStep):
    """FedAdam: the running mean of squares forgets at a fixed rate."""

    kind: Literal["adam"] = "adam"


class YogiStep(AdaptiveStep):
    """FedYogi: it moves towards the new square by a step that does not depend on how far away it is."""

    kind: Literal["yogi"] = "yogi"


_KINDS_WITH_MOMENTUM = ("momentum",)


def _name_kind(raw: Any) -> Any:
    """Give a step without a `kind`, as configurations had it before there were kinds, its kind; refuse momentum where there is none."""
    if not isinstance(raw, Mapping):
        return raw
    if "kind" not in raw:
        if raw.get("momentum"):
            return {**raw, "kind": "momentum"}
        return {key: value for key, value in raw.items() if key != "momentum"} | {"kind": "average"}
    if "momentum" in raw and raw["kind"] not in _KINDS_WITH_MOMENTUM:
        reason = "Adam and Yogi have their own, first_decay" if raw["kind"] in ("adam", "yogi") else "kind momentum has it"
        raise ValueError(f"server_step.momentum does not go with server_step.kind {raw['kind']}: {reason}")
    return raw


ServerStep = Annotated[
    AverageStep | MomentumStep | AdamStep | YogiStep,
    Field(discriminator="kind"),
    BeforeValidator(_name_kind),
]
