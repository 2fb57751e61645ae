"""What everybody who has seen the same advertisements can work out alike: places, holders, live groups, and what is signed."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Self

from cryptography.hazmat.primitives.asymmetric import ec

from strategies.secure.documents import ALL_GROUPS, Advertisement, Roster, Terms, misfit
from strategies.secure.keys import check_distinct, check_signature, digest, untrusted

Identities = Mapping[str, ec.EllipticCurvePublicKey]
"""Enrolled public key of each site."""


@dataclass(frozen=True)
class View:
    """The participants of one attempt.

    Attributes:
        terms: of the attempt.
        members: advertisements by site, in the order of names.
        seen: digest of the roster.
    """

    terms: Terms
    members: Mapping[str, Advertisement]
    seen: bytes

    @classmethod
    def of(cls, roster: Roster, terms: Terms, identities: Identities, *, where: str) -> Self:
        """Return the view of a roster; its advertisements are checked by check_advertisement().

        Raises:
            ProtocolError: too few sites, one that is not invited, or a site, a key or an identity twice.
        """
        members = {member.site: member for member in sorted(roster.members, key=lambda member: member.site)}
        keys = {key for member in members.values() for key in (member.box_key, member.mask_key)}
        if len(members) != len(roster.members) or len(keys) != 2 * len(members):
            raise untrusted(where, "a site or a key twice", "every site once, with keys of its own")
        if len(members) < terms.threshold or not set(members) <= set(terms.invited):
            raise misfit(where, ", ".join(members) or "no sites", f"{terms.threshold} or more of {', '.join(terms.invited)}")
        check_distinct({site: identities[site] for site in members if site in identities}, where=where)
        return cls(terms, members, digest("roster", *(part for member in members.values() for part in member.signed_parts())))

    def place(self, site: str) -> int:
        """Return the site's place among the shares, from 1."""
        return list(self.members).index(site) + 1

    def holders(self, group: str, among: Collection[str]) -> tuple[str, ...]:
        """Return which of these sites hold a group, by name."""
        return tuple(site for site, member in self.members.items() if site in among and group in member.seeds)

    def live_groups(self, among: Collection[str]) -> tuple[str, ...]:
        """Return the groups that enough of these sites hold, in the order of ALL_GROUPS."""
        return tuple(group for group in ALL_GROUPS if len(self.holders(group, among)) >= self.terms.minimum_holders)

    def layout(self, site: str, among: Collection[str]) -> tuple[tuple[str, int], ...]:
        """Return the groups of a site's masked vector and their number of ring elements, the weight included."""
        held = self.members[site].seeds
        return tuple((group, self.terms.sizes[group] + 1) for group in self.live_groups(among) if group in held)

    def noise_makers(self, group: str, masking: Collection[str]) -> int:
        """Return how many sites' noise the sum of a group rests on at the least, if it is opened at all.

        Of those that mask, all but a threshold may drop out; and `privacy.colluders` may know, or leave out, their own.
        """
        assert self.terms.privacy is not None, "without privacy nobody makes noise"
        left = len(self.holders(group, masking)) - (len(masking) - self.terms.threshold)
        return max(left, self.terms.minimum_holders) - self.terms.privacy.colluders

    def masked_parts(self, masking: Iterable[str]) -> tuple[str | bytes, ...]:
        """Return what a site signs with its masked vector: the terms, the roster, and among whom it has masked."""
        return ("masked", self.terms.context(), self.seen, digest("masking", *sorted(masking)))

    def agreed_parts(self, masking: Iterable[str], survivors: Iterable[str]) -> tuple[str | bytes, ...]:
        """Return what a site signs: the terms, the roster, who shared keys and who survived, as it was told."""
        return (
            "agreement",
            self.terms.context(),
            self.seen,
            digest("masking", *sorted(masking)),
            digest("survivors", *sorted(survivors)),
        )


def check_advertisement(member: Advertisement, terms: Terms, identities: Identities) -> None:
    """Check an advertisement.

    Raises:
        ProtocolError: it is of another attempt, of an unknown site or group, or without its site's signature.
    """
    where = f"keys of {member.site}"
    if member.context != terms.context():
        raise untrusted(where, "keys for another run, round or attempt", "keys for this one")
    if member.site not in identities:
        raise untrusted(where, "an unknown site", "a site whose enrolled key is known")
    if set(member.seeds) - set(terms.sizes):
        raise misfit(where, "a group that the model lacks", "groups of the model")
    check_signature(identities[member.site], member.signature, *member.signed_parts(), where=where)


def mask_label(context: bytes, group: str) -> str:
    """Return what a mask is for."""
    return f"{context.hex()} {group}"


def commitment(context: bytes, site: str, group: str, seed: bytes) -> bytes:
    """Return the commitment to a self-mask's seed; 32 random bytes cannot be guessed from it."""
    return digest("seed", context, site, group, seed)


def box_purpose(context: bytes, *, sender: str, recipient: str) -> bytes:
    """Return what a sealed box is bound to."""
    return digest("box", context, sender, recipient)
