"""Configuration of differential privacy at site level (strategies.privacy), part of federation.yaml; and what a run has spent."""

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.groups import GROUPS


class PrivacyConfig(FrozenModel):
    """The protected unit is one hospital's whole contribution to a round: its weighted update of every group it sends.

    Attributes:
        clip_norm: C, largest L2 norm of a site's weighted update over all its groups together.
        noise_multiplier: z; Gaussian noise of standard deviation z C is added to the sum over the sites.
        delta: of (epsilon, delta); no more than one over the number of hospitals that could take part, better far less.
        epsilon: budget of the whole run; it stops with the last model that the budget affords.
        full_weight: weight (of the strategy) from which a site counts fully; below it counts in proportion. By square roots 5 is 25 cases.
        holders: number of sites that the sum of each group is divided by, whoever takes part; by default `quorum.sites`. Sites are public,
            their updates are not: name fewer for a group that few hospitals hold, or it moves by that much less.
        colluders: with `secure`, sites whose share of the noise is not counted on, because they may take it out again, alone or together.
            Every hospital that receives the model can do so with its own. Without `secure` only the coordinator knows the noise.
    """

    clip_norm: PositiveFloat
    noise_multiplier: PositiveFloat
    delta: float = Field(default=1e-5, gt=0, lt=1)
    epsilon: PositiveFloat
    full_weight: PositiveFloat = 5.0
    holders: dict[str, PositiveInt] = Field(default_factory=dict)
    colluders: int = Field(default=1, ge=0)

    @field_validator("holders")
    @classmethod
    def _groups_are_known(cls, holders: dict[str, int]) -> dict[str, int]:
        if foreign := sorted(set(holders) - set(GROUPS)):
            raise ValueError(f"no groups of tensors: {', '.join(foreign)}; groups are {', '.join(GROUPS)}")
        return holders


class PrivacySpent(FrozenModel):
    """What a run has spent so far.

    Attributes:
        releases: noisy sums that were made, each counted once whether or not anybody saw it; a repeated round counts again.
        affordable: releases that the budget allows in all.
        epsilon: spent at `delta`.
    """

    epsilon: float = Field(ge=0)
    delta: float = Field(gt=0, lt=1)
    noise_multiplier: PositiveFloat
    clip_norm: PositiveFloat
    releases: int = Field(ge=0)
    affordable: int = Field(ge=0)

    def explain(self) -> str:
        """Return what was spent, in one line."""
        return f"epsilon {self.epsilon:.3g} spent at delta {self.delta:g}, {self.releases} of {self.affordable} affordable releases"
