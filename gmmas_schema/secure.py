"""Secure aggregation (strategies.secure): its settings, and what its messages say beside the protocol's own documents.

With it on, the coordinator learns sums over sites and no site's update. A TRAIN request carries a SecureTask, and the report in reply an
advertisement of keys in place of tensors; phases 1 to 4 are messages of their own, of type SECURE_MESSAGE.
"""

import math
from typing import Annotated, Final, Literal

from pydantic import Field, PositiveFloat, field_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.coordinator import SITE_NAME
from gmmas_schema.groups import GROUPS, REGION_ROWS
from gmmas_schema.strategy import PseudoTerms, Strategy

SMALLEST_SUM: Final = 3
"""Fewest sites behind a sum that is opened: of a sum of two, each of the two knows the other's part."""

LARGEST_FEDERATION: Final = 256
"""Most sites of one secure round: every site shares its secrets with every other one, so messages grow with the square of the sites."""

SECURE_MESSAGE: Final = "query.secure"
"""Flower message type of phases 1 to 4."""

PAYLOAD: Final = "payload"
"""Key of the phase's bytes beside the DOCUMENT."""

MOST_WEIGHT_STEPS: Final = 2**16 - 1
FEWEST_WEIGHT_STEPS: Final = 15
"""Steps of a weight (strategies.secure.fixed_point)."""

Clip = Annotated[float, Field(gt=0, le=2.0**20)]
Site = Annotated[str, Field(pattern=SITE_NAME)]
"""A site's name: no path, and no second spelling under which the same key could be found again."""


class SecureConfig(FrozenModel):
    """Secure aggregation of the sites' updates; it is on where federation.yaml has this block.

    Attributes:
        threshold: t, sites that must answer to the end of a round; None for two thirds of the n that began it, rounded up. It must be more
            than half of them. So many sites could uncover a single one together with a coordinator that keeps to the protocol, 2 t - n of
            them with one that does not (strategies.secure.ledger).
        minimum_holders: sites behind every sum that is opened; a group of tensors with fewer stays as it was.
        bits: an entry of an update is rounded to one of 2^bits - 1 steps from -clip to clip.
        ring_bits: width of an integer on the wire. The smaller, the coarser are the weights (strategies.secure.fixed_point).
        clip: entries of an update are clipped to +- this: AdamW moves an entry by about its learning rate a step, or less.
        clip_groups: another clip for these groups; anchors travel as sums over patients, so theirs are large.
        weight_limit: a site's largest weight in a group; a larger one counts as this.
        phase_deadline_s: longest wait for the answers of a phase after training; who has not answered counts as dropped out.
    """

    threshold: int | None = Field(default=None, ge=2, le=LARGEST_FEDERATION)
    minimum_holders: int = Field(default=SMALLEST_SUM, ge=SMALLEST_SUM, le=LARGEST_FEDERATION)
    bits: int = Field(default=16, ge=4, le=24)
    ring_bits: Literal[16, 32, 64] = 32
    clip: Clip = 0.25
    clip_groups: dict[str, Clip] = {"anchors": 1024.0}
    weight_limit: PositiveFloat = 64.0
    phase_deadline_s: PositiveFloat = 120.0

    @field_validator("clip_groups")
    @classmethod
    def _known_groups(cls, value: dict[str, float]) -> dict[str, float]:
        unknown = sorted(set(value) - {*GROUPS, *REGION_ROWS})
        if unknown:
            raise ValueError(f"no such group: {', '.join(unknown)}; groups are {', '.join(GROUPS)}")
        return value

    def clip_of(self, group: str) -> float:
        """Return the clip of a group of tensors."""
        return self.clip_groups.get(group, self.clip)

    def check_sites(self, sites: int, *, private: bool) -> None:
        """Refuse settings under which so many sites cannot add up.

        Args:
            sites: that take part.
            private: the sum has noise, which makes a grid of its own (strategies.secure.noisy_sum).

        Raises:
            ValueError: too many sites, a threshold that does not fit them, or integers too narrow for them.
        """
        if sites > LARGEST_FEDERATION:
            raise ValueError(f"secure aggregation is for at most {LARGEST_FEDERATION} sites, not for {sites}")
        choose_threshold(sites, threshold=self.threshold)
        steps = weight_steps(sites, bits=self.bits, ring_bits=self.ring_bits)
        if not private and steps < FEWEST_WEIGHT_STEPS:
            raise ValueError(
                f"secure.bits {self.bits} in secure.ring_bits {self.ring_bits} leave {steps} steps for the weights of {sites} sites, fewer"
                f" than {FEWEST_WEIGHT_STEPS}"
            )


class SecureTask(FrozenModel):
    """What a TRAIN request adds: the site is to keep its update and advertise keys.

    Attributes:
        terms: of the attempt, JSON (strategies.secure.documents.Terms).
        strategy: by which the site weighs its update itself.
        pseudo: what pseudo-labelled cases count.
    """

    terms: str = Field(max_length=2**15)
    strategy: Strategy
    pseudo: PseudoTerms = PseudoTerms()

    def subject(self, asked: str) -> str:
        """Return the digest of what is asked, and of how the update is to be weighed, which the terms are about.

        Whoever could tell one site to weigh itself fully and all others lightly would have that site's update in the quotient of the sums.

        Args:
            asked: digest of the request (TaskRequest.subject).
        """
        return self.model_copy(update={"terms": asked}).digest()


class PhaseRequest(FrozenModel):
    """Goes with the bytes of a phase to a site.

    Attributes:
        run: of the attempt's terms; another one is refused, for the site books under it.
        round: of the attempt's terms.
        attempt: digest of the attempt's terms (hex), so that a message of an attempt before does no harm to this one.
        phase: 1 to 4, as in strategies.secure.documents.
        identities: with phase 1, the enrolled public key of each site (OpenSSH); a site holds them against those it knows.
    """

    run: str
    round: int = Field(ge=1)
    attempt: str = Field(max_length=64)
    phase: int = Field(ge=1, le=4)
    identities: dict[Site, Annotated[str, Field(max_length=512)]] = Field(default_factory=dict, max_length=LARGEST_FEDERATION)


class PhaseReply(FrozenModel):
    """Goes with the bytes of a site's answer."""

    site: str
    run: str
    round: int = Field(ge=1)
    phase: int = Field(ge=1, le=4)


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


def weight_steps(sites: int, *, bits: int, ring_bits: int) -> int:
    """Return V, the largest integer weight: sites * V * (2^(bits-1) - 1) stays below 2^(ring_bits - 1), so that no sum can wrap."""
    levels = (1 << (bits - 1)) - 1
    return min(MOST_WEIGHT_STEPS, ((1 << (ring_bits - 1)) - 1) // (sites * levels))
