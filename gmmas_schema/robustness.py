"""Configuration of the defences against bad replies (strategies.robust), part of federation.yaml."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from gmmas_schema.base import FrozenModel


class MedianClip(FrozenModel):
    """Updates of a group are shortened to `multiple` times the median of its holders' norms."""

    kind: Literal["median"] = "median"
    multiple: PositiveFloat = 2.0


class FixedClip(FrozenModel):
    """Updates of a group are shortened to a fixed L2 norm."""

    kind: Literal["fixed"] = "fixed"
    norm: PositiveFloat


NormClip = Annotated[MedianClip | FixedClip, Field(discriminator="kind")]


class MeanRule(FrozenModel):
    """The weighted mean: exact, streaming, and in the hand of anyone whom no check refuses."""

    kind: Literal["mean"] = "mean"


class MedianRule(FrozenModel):
    """Coordinate by coordinate the median of a group's holders, one vote each."""

    kind: Literal["median"] = "median"


class TrimmedRule(FrozenModel):
    """Coordinate by coordinate the weighted mean without the extremes.

    Attributes:
        share: of a group's holders that is dropped at either end, at least one; it should be no less than the share of bad sites.
    """

    kind: Literal["trimmed"] = "trimmed"
    share: float = Field(default=0.2, gt=0, lt=0.5)


CombineRule = Annotated[MeanRule | MedianRule | TrimmedRule, Field(discriminator="kind")]


class RobustnessConfig(FrozenModel):
    """What a reply is held against beside its form.

    Attributes:
        norm_limit: a reply is refused where its update of a group is longer than this multiple of the median of the group's holders and
            longer than an optimiser can walk in a round; None for no limit.
        clip: shorten long updates; what `norm_limit` refuses is refused all the same.
        cosine_limit: a reply is refused where the cosine of the site's updates with the mean direction of the other holders is below this,
            in the mean of its last rounds; None for no filter.
        combine: how a group's holders become one.
    """

    norm_limit: float | None = Field(default=3.0, ge=1)
    clip: NormClip | None = None
    cosine_limit: float | None = Field(default=None, ge=-1, le=1)
    combine: CombineRule = MeanRule()

    @property
    def needs_whole_round(self) -> bool:
        """Whether replies are kept on disk until the round is over."""
        return self != RobustnessConfig(norm_limit=None)
