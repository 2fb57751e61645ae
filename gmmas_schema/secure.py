"""Settings of secure aggregation (strategies.secure): when it is on, the coordinator learns sums over sites and no site's update."""

import math
from typing import Annotated, Final, Literal

from pydantic import Field, PositiveFloat, field_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.groups import GROUPS

SMALLEST_SUM: Final = 3
"""Fewest sites behind a sum that is opened: of a sum of two, each of the two knows the other's part."""

LARGEST_FEDERATION: Final = 256
"""Most sites of one secure round: every site shares its secrets with every other one, so messages grow with the square of the sites."""

Clip = Annotated[float, Field(gt=0, le=2.0**20)]


class SecureConfig(FrozenModel):
    """Secure aggregation of the sites' updates; it is on where federation.yaml has this block.

    Attributes:
        threshold: sites that must answer to the end of a round; None for two thirds of those that began it, rounded up. It must
            be more than half of them, and so many sites together with the coordinator could uncover a single one.
        minimum_holders: sites behind every sum that is opened; a group of tensors with fewer stays as it was.
        bits: an entry of an update is rounded to one of 2^bits - 1 steps from -clip to clip.
        ring_bits: width of an integer on the wire. The smaller, the coarser are the weights (strategies.secure.fixed_point).
        clip: entries of an update are clipped to +- this: AdamW moves an entry by about its learning rate a step, or less.
        clip_groups: another clip for these groups; anchors travel as sums over patients, so theirs are large.
        weight_limit: a site's largest weight in a group; a larger one counts as this.
    """

    threshold: int | None = Field(default=None, ge=2, le=LARGEST_FEDERATION)
    minimum_holders: int = Field(default=SMALLEST_SUM, ge=SMALLEST_SUM, le=LARGEST_FEDERATION)
    bits: int = Field(default=16, ge=4, le=24)
    ring_bits: Literal[16, 32, 64] = 32
    clip: Clip = 0.25
    clip_groups: dict[str, Clip] = {"anchors": 1024.0}
    weight_limit: PositiveFloat = 64.0

    @field_validator("clip_groups")
    @classmethod
    def _known_groups(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(value) - set(GROUPS))
        if unknown:
            raise ValueError(f"no such group: {', '.join(unknown)}; groups are {', '.join(GROUPS)}")
        return value

    def clip_of(self, group: str) -> float:
        """Return the clip of a group of tensors."""
        return self.clip_groups.get(group, self.clip)


def choose_threshold(sites: int, *, threshold: int | None = None) -> int:
    """Return how many of `sites` must stay to the end: the given number, or two thirds rounded up.

    More than half, because two disjoint sets of so many sites could otherwise be told different stories and both be answered.

    Raises:
        ValueError: the given number is not more than half of the sites, or more than there are.
    """
    chosen = math.ceil(2 * sites / 3) if threshold is None else threshold
    if not sites / 2 < chosen <= sites:
        raise ValueError(f"secure.threshold ({chosen}) must be more than half of the {sites} sites and at most all of them")
    return chosen
