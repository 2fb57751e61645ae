"""What sites and coordinator say to each other, phase by phase, and reading it without trusting it.

    phase  coordinator -> site                    site -> coordinator
    0      Terms                                  Advertisement   two public keys, the groups it holds, signed
    1      Roster of advertisements               ShareParcel     a sealed box of shares for every peer
    2      Inbox of boxes                         masked vector   bytes, see below
    3      Survivors, as they signed in phase 2   Agreement       a signature of what the site has seen
    4      UnmaskRequest with all agreements      Unmasking       shares: seeds of survivors, keys of the dropped, never both of one

Documents are JSON with bytes in base64. The masked vector is binary: the 32-byte digest of the terms, the site's signature of the roster
and of those among whom it has masked, then for each live group in the order of ALL_GROUPS its elements and its weight as little-endian
integers of the ring; its length is known before it comes. A document is refused by its length, a bound on what that many sites can have to
say, before it is parsed.
"""

from typing import Annotated, Any, Final, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ProtocolError
from gmmas_schema.groups import GROUPS, REGION_ROWS
from gmmas_schema.privacy import PrivacyConfig
from gmmas_schema.secure import LARGEST_FEDERATION, SMALLEST_SUM, Clip, Site
from strategies.secure.fixed_point import FixedPoint
from strategies.secure.keys import KEY_BYTES, NONCE_BYTES, SIGNATURE_BYTES, TAG_BYTES, digest
from strategies.secure.noisy_sum import NoisySum
from strategies.secure.shamir import SHARE_BYTES

ALL_GROUPS: Final = (*GROUPS, *REGION_ROWS)
"""Every group that can be summed, in a fixed order; the segmentation head is summed whole or row by row."""

DIGEST_BYTES: Final = 32
HEAD_BYTES: Final = DIGEST_BYTES + SIGNATURE_BYTES
"""Of a masked vector, before its first group."""
SITE_BYTES: Final = 1 << 13
"""Bound on what a document says about one site: 26 groups with a name and a share or a commitment in base64, and room."""
LARGEST_GROUP: Final = 2**31
BOX_BYTES: Final = NONCE_BYTES + SHARE_BYTES * (1 + len(ALL_GROUPS)) + TAG_BYTES

Key = Annotated[bytes, Field(min_length=KEY_BYTES, max_length=KEY_BYTES)]
Digest = Annotated[bytes, Field(min_length=DIGEST_BYTES, max_length=DIGEST_BYTES)]
Share = Annotated[bytes, Field(min_length=SHARE_BYTES, max_length=SHARE_BYTES)]
Signature = Annotated[bytes, Field(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Box = Annotated[bytes, Field(min_length=NONCE_BYTES + SHARE_BYTES + TAG_BYTES, max_length=BOX_BYTES)]
ContentHash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Group = Annotated[str, Field(max_length=32)]

DocumentT = TypeVar("DocumentT", bound=BaseModel)


class Document(FrozenModel):
    """A frozen document whose bytes are base64 in JSON."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Terms(Document):
    """What an attempt is about; its digest is in everything that is signed, sealed or masked.

    Attributes:
        run: identifier of the run.
        round: 1-based.
        attempt: 1-based; one secret state a site, never used again.
        nonce: drawn by the coordinator, so that an attempt repeated after its crash is another one.
        subject: digest of the training request whose update is summed, and of how it is weighed.
        model: content hash of each group of the model that the update is a change of, as every site received it.
        invited: the sites that may take part, in the order of their names; sums cannot wrap with so many. All attempts of a round name
            the same ones, whether or not all of them are asked again (strategies.secure.ledger).
        threshold: sites that must answer to the end, more than half of the invited ones; the same in all attempts of a round.
        minimum_holders: sites behind every sum that is opened.
        bits: of an entry (strategies.secure.fixed_point).
        ring_bits: of an integer.
        clip: per group of the model.
        weight_limit: largest weight.
        sizes: elements per group of the model.
        privacy: clip and noise of a private sum (strategies.secure.noisy_sum), for which clip, bits and weight_limit have no meaning.
    """

    run: str = Field(min_length=1, max_length=128)
    round: int = Field(ge=1)
    attempt: int = Field(ge=1)
    nonce: Digest
    subject: str = Field(max_length=64)
    invited: Annotated[tuple[Site, ...], Field(min_length=SMALLEST_SUM, max_length=LARGEST_FEDERATION)]
    threshold: int = Field(ge=2, le=LARGEST_FEDERATION)
    minimum_holders: int = Field(ge=SMALLEST_SUM, le=LARGEST_FEDERATION)
    bits: int = Field(ge=4, le=24)
    ring_bits: int
    clip: dict[Group, Clip]
    weight_limit: float = Field(gt=0)
    sizes: dict[Group, Annotated[int, Field(ge=1, le=LARGEST_GROUP)]]
    model: dict[Group, ContentHash]
    privacy: PrivacyConfig | None = None

    @model_validator(mode="after")
    def _sound(self) -> "Terms":
        if list(self.invited) != sorted(set(self.invited)):
            raise ValueError("invited must name every site once, in the order of names")
        if not self.sites / 2 < self.threshold <= self.sites:
            raise ValueError(f"threshold ({self.threshold}) must be more than half of the invited sites ({self.sites}), and at most all")
        if set(self.sizes) - set(ALL_GROUPS) or not self.sizes:
            raise ValueError("sizes must name groups of gmmas_schema.groups")
        if set(self.clip) != set(self.sizes) or set(self.model) != set(self.sizes):
            raise ValueError("sizes, clip and model must name the same groups")
        if self.ring_bits not in (16, 32, 64):
            raise ValueError("ring_bits must be 16, 32 or 64")
        if self.privacy is not None and self.privacy.colluders >= self.minimum_holders:
            raise ValueError(f"privacy.colluders ({self.privacy.colluders}) must be fewer than minimum_holders ({self.minimum_holders})")
        return self

    @property
    def sites(self) -> int:
        """Number of invited sites."""
        return len(self.invited)

    def company(self) -> str:
        """Return the digest of who may take part and how many must stay: one in a round (strategies.secure.ledger)."""
        return digest("company", str(self.threshold), *self.invited).hex()

    def context(self) -> bytes:
        """Return the digest that everything in this attempt is bound to."""
        return digest("terms", self.digest())

    def question(self) -> str:
        """Return the digest of what is asked, the same for every attempt: without noise the same sites then give the same sum."""
        return self.model_copy(update={"attempt": 1, "nonce": bytes(DIGEST_BYTES), "threshold": 0}).digest()

    def grid(self) -> FixedPoint:
        """Return the integers of an attempt without noise."""
        return FixedPoint(sites=self.sites, bits=self.bits, ring_bits=self.ring_bits)

    def noisy_grid(self) -> NoisySum | None:
        """Return the integers of a private attempt; None where there is no noise."""
        if self.privacy is None:
            return None
        fewest = self.minimum_holders - self.privacy.colluders
        return NoisySum(sites=self.sites, ring_bits=self.ring_bits, elements=sum(self.sizes.values()), fewest=fewest, privacy=self.privacy)

    def dtype(self) -> np.dtype[Any]:
        """Return the integers on the wire: little-endian, unsigned."""
        return np.dtype(f"<u{self.ring_bits // 8}")


class Advertisement(Document):
    """A site's two public keys for one attempt.

    Attributes:
        site: name.
        context: of the terms.
        box_key: X25519, for what peers seal for it.
        mask_key: X25519, for the masks it shares with each peer.
        seeds: SHA-256 commitment to the self-mask's seed of each group it holds; holding more than this says is impossible.
        signature: by its enrolled identity, of all the above.
    """

    site: Site
    context: Digest
    box_key: Key
    mask_key: Key
    seeds: dict[Group, Digest]
    signature: Signature

    @model_validator(mode="after")
    def _known_groups(self) -> "Advertisement":
        if set(self.seeds) - set(ALL_GROUPS):
            raise ValueError("seeds must name groups of gmmas_schema.groups")
        return self

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups the site holds, in the order of ALL_GROUPS."""
        return tuple(group for group in ALL_GROUPS if group in self.seeds)

    def signed_parts(self) -> tuple[str | bytes, ...]:
        """Return what the signature is of."""
        seeds = [part for group in self.groups for part in (group, self.seeds[group])]
        return ("advertisement", self.context, self.site, self.box_key, self.mask_key, *seeds)


class Roster(Document):
    """Who takes part: every advertisement that came in time, the same bytes for every site."""

    members: Annotated[tuple[Advertisement, ...], Field(max_length=LARGEST_FEDERATION)]


class ShareParcel(Document):
    """A site's sealed boxes, one for every peer of the roster."""

    boxes: Annotated[dict[Site, Box], Field(max_length=LARGEST_FEDERATION)]


class Inbox(Document):
    """The boxes that the peers which shared have sealed for one site; their names, with its own, are the set that masks."""

    boxes: Annotated[dict[Site, Box], Field(max_length=LARGEST_FEDERATION)]


class Survivors(Document):
    """The sites whose masked vectors are in the sum, each with its signature of the roster and of those among whom it has masked."""

    sites: Annotated[dict[Site, Signature], Field(max_length=LARGEST_FEDERATION)]


class Agreement(Document):
    """A site's signature of the roster, of who shared and of who survived, as it was told."""

    signature: Signature


class UnmaskRequest(Document):
    """The agreements, and whose secrets are asked for.

    Attributes:
        agreements: at least a threshold of signatures of the same view.
        survivors: sites of which the seeds of self-masks are asked for.
        dropped: sites of which the mask keys are asked for.
    """

    agreements: Annotated[dict[Site, Signature], Field(max_length=LARGEST_FEDERATION)]
    survivors: Annotated[tuple[Site, ...], Field(max_length=LARGEST_FEDERATION)]
    dropped: Annotated[tuple[Site, ...], Field(max_length=LARGEST_FEDERATION)]


class Unmasking(Document):
    """One site's shares.

    Attributes:
        seeds: of the survivors' self-masks, {survivor: {group: share}}, for the groups that are opened.
        keys: of the dropped sites' mask keys.
        withheld: groups that this site has opened for another set of sites before.
    """

    seeds: Annotated[dict[Site, dict[Group, Share]], Field(max_length=LARGEST_FEDERATION)]
    keys: Annotated[dict[Site, Share], Field(max_length=LARGEST_FEDERATION)]
    withheld: tuple[Group, ...] = ()


def write(document: Document) -> bytes:
    """Return a document as it travels."""
    return document.model_dump_json().encode()


def read(raw: bytes, kind: type[DocumentT], *, sites: int, where: str) -> DocumentT:
    """Return a document.

    Args:
        raw: bytes from the other side.
        kind: what it must be.
        sites: invited sites, which bound its length.
        where: who sent it, for the error.

    Raises:
        ProtocolError: too long, not JSON, or not such a document.
    """
    limit = SITE_BYTES * (sites + 1)
    if len(raw) > limit:
        raise misfit(where, f"{len(raw)} bytes", f"a {kind.__name__} of at most {limit}")
    try:
        return kind.model_validate_json(raw)
    except ValidationError as error:
        faults = "; ".join(".".join(map(str, fault["loc"]))[:60] + ": " + fault["type"] for fault in error.errors()[:5])
        raise misfit(where, faults, f"a {kind.__name__}") from error


def misfit(where: str, got: object, expected: object) -> ProtocolError:
    """Return the error for a message that does not fit the protocol or its state."""
    return ProtocolError(
        "a message of secure aggregation does not fit",
        where=where,
        got=f"{got!s:.200}",
        expected=expected,
        remedy="run the same release of gmmas-fed on both sides; a round that is tried again starts anew",
    )
