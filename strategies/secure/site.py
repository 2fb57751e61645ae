"""A site's half of secure aggregation: bytes in, bytes out; the update leaves only under masks.

    y = [W q, W] + PRG(b_g) + sum over peers v after u of PRG(s_uv, g) - sum over peers v before u of PRG(s_uv, g)     modulo 2^R

for every group g that enough sites hold, over the peers that hold it too. Bonawitz et al., CCS 2017, Figure 4, the version with signatures.
The package's docstring states the threat model. Everything secret lives in this object for one attempt and is dropped at its end.
"""

import secrets
from collections.abc import Mapping
from enum import IntEnum

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from numpy.typing import NDArray

from gmmas_schema.errors import ModelError
from strategies.noise import NoiseSource
from strategies.secure.documents import (
    Advertisement,
    Agreement,
    Inbox,
    Roster,
    ShareParcel,
    Survivors,
    Terms,
    Unmasking,
    UnmaskRequest,
    misfit,
    read,
    write,
)
from strategies.secure.fixed_point import Ring
from strategies.secure.keys import SIGNATURE_BYTES, KeyPair, check_signature, derive_key, seal, sign, unseal, untrusted
from strategies.secure.ledger import OpenedSums
from strategies.secure.masks import apply_mask
from strategies.secure.shamir import SHARE_BYTES, share_bytes
from strategies.secure.view import Identities, View, box_purpose, check_advertisement, commitment, mask_label

Float32 = NDArray[np.float32]


class Phase(IntEnum):
    """What a site is asked next; every phase is answered once."""

    ADVERTISE = 0
    SHARE = 1
    MASK = 2
    AGREE = 3
    UNMASK = 4
    OVER = 5


class SiteHalf:
    """One site in one attempt.

    Args:
        site: its name.
        terms: of the attempt, from the coordinator.
        sizes: elements of each group that the site holds, as it knows them.
        subject: digest of the training request, as the site knows it.
        identity: its enrolled private key.
        identities: the enrolled public keys it trusts, its own among them.
        opened: what the site has masked and helped to open before; is written to.

    Raises:
        ProtocolError: the terms are not about this model or this request, or do not invite this site.
    """

    def __init__(
        self,
        site: str,
        *,
        terms: Terms,
        sizes: Mapping[str, int],
        subject: str,
        identity: ec.EllipticCurvePrivateKey,
        identities: Identities,
        opened: OpenedSums,
    ) -> None:
        if any(terms.sizes.get(group) != size for group, size in sizes.items()) or terms.subject != subject:
            raise misfit(site, "terms for another model or another request", "terms for what this site has trained")
        if site not in terms.invited:
            raise misfit(site, f"terms that invite {', '.join(terms.invited)}", "terms that invite this site")
        self._site, self._terms, self._context = site, terms, terms.context()
        self._grid, self._noisy = terms.grid(), terms.noisy_grid()
        self._identity, self._identities, self._opened = identity, identities, opened
        self._own = set(sizes)
        self._next = Phase.ADVERTISE
        self._box, self._mask = KeyPair.make(), KeyPair.make()
        self._seeds: dict[str, bytes] = {}
        self._pairs: dict[str, bytes] = {}
        self._weights: dict[str, float] = {}
        self._own_shares: bytes = b""
        self._shares: dict[str, dict[str, bytes]] = {}
        self._survivors: tuple[str, ...] = ()

    @property
    def next(self) -> Phase:
        """The phase this site is asked next."""
        return self._next

    @property
    def is_private(self) -> bool:
        """Whether the update is to leave with noise."""
        return self._noisy is not None

    def advertise(self, weights: Mapping[str, float]) -> bytes:
        """Phase 0: return new public keys and commitments, signed.

        Args:
            weights: positive weight of each group the site holds; a group without one takes no part.
        """
        self._enter(Phase.ADVERTISE)
        if set(weights) - self._own or any(not 0 < weight < float("inf") for weight in weights.values()):
            raise ModelError("a group's weight is wrong", where=self._site, got=dict(weights), expected="positive, groups of the model")
        self._weights = dict(weights)
        self._seeds = {group: secrets.token_bytes(32) for group in self._terms.sizes if group in weights}
        unsigned = Advertisement(
            site=self._site,
            context=self._context,
            box_key=self._box.public,
            mask_key=self._mask.public,
            seeds={group: commitment(self._context, self._site, group, seed) for group, seed in self._seeds.items()},
            signature=bytes(SIGNATURE_BYTES),
        )
        self._advertisement = unsigned.model_copy(update={"signature": sign(self._identity, *unsigned.signed_parts())})
        return write(self._advertisement)

    def share_keys(self, roster: bytes) -> bytes:
        """Phase 1: return the shares of this site's mask key and seeds, sealed for each peer.

        Raises:
            ProtocolError: the roster holds keys that are forged, replayed, foreign or not this site's own.
        """
        self._enter(Phase.SHARE)
        document = read(roster, Roster, sites=self._terms.sites, where="roster")
        self._view = View.of(document, self._terms, self._identities, where="roster")
        for member in document.members:
            check_advertisement(member, self._terms, self._identities)
        if self._view.members.get(self._site) != self._advertisement:
            raise untrusted("roster", "other keys under this site's name", "the keys it has made")
        holders, threshold = len(self._view.members), self._terms.threshold
        secret_parts = [self._mask.private, *(self._seeds[group] for group in self._advertisement.groups)]
        shares = [share_bytes(part, threshold=threshold, holders=holders) for part in secret_parts]
        boxes = {}
        for place, (peer, member) in enumerate(self._view.members.items()):
            plain = b"".join(share[place] for share in shares)
            if peer == self._site:
                self._own_shares = plain
            else:
                purpose = box_purpose(self._context, sender=self._site, recipient=peer)
                boxes[peer] = seal(self._box_key(member, sender=self._site), plain, purpose=purpose)
        return write(ShareParcel(boxes=boxes))

    def mask(self, inbox: bytes, update: Mapping[str, Float32]) -> bytes:
        """Phase 2: return the masked vector, once the ledger says in which company it leaves; the caller keeps the ledger before it sends.

        Args:
            inbox: the peers' boxes.
            update: flat delta of each group the site holds.

        Raises:
            ProtocolError: too few peers, a box that does not open, or this round's update has left in another company.
            ModelError: the update is not finite or of another size; nothing leaves the site.
        """
        self._enter(Phase.MASK)
        run, number, company = self._terms.run, self._terms.round, self._terms.company()
        self._opened.check_company(run, number, company=company)
        boxes = read(inbox, Inbox, sites=self._terms.sites, where="inbox").boxes
        if set(boxes) - set(self._view.members) or self._site in boxes or len(boxes) + 1 < self._terms.threshold:
            raise misfit("inbox", f"boxes of {len(boxes)} peers", f"{self._terms.threshold - 1} or more, of the roster")
        self._shares = {peer: self._open(peer, box) for peer, box in boxes.items()}
        self._shares[self._site] = self._split(self._own_shares, self._advertisement)
        self._pairs = {peer: self._mask.agree(self._view.members[peer].mask_key) for peer in boxes}
        encoded = self._encode({group: self._own_update(group, update) for group, _ in self._view.layout(self._site, self._shares)})
        parts = [self._mask_group(group, y).tobytes() for group, y in encoded.items()]
        self._seeds, self._pairs = {}, {}
        self._opened.leave(run, number, company=company)
        return b"".join([self._context, sign(self._identity, *self._view.masked_parts(self._shares)), *parts])

    def agree(self, survivors: bytes) -> bytes:
        """Phase 3: sign who is said to have survived; a site signs one such set in an attempt.

        Raises:
            ProtocolError: too few survivors, an unknown one, one that masked among others than this site, or this site is not among them.
        """
        self._enter(Phase.AGREE)
        told = read(survivors, Survivors, sites=self._terms.sites, where="survivors").sites
        if not set(told) <= set(self._shares) or self._site not in told or len(told) < self._terms.threshold:
            expected = f"{self._terms.threshold} or more of those that shared, with this site"
            raise misfit("survivors", ", ".join(told), expected)
        # Of a group with few holders, one that was shown others than these could be left without a mask that another survivor takes off.
        for site, signature in told.items():
            parts = self._view.masked_parts(self._shares)
            check_signature(self._identities[site], signature, *parts, where=f"those among whom {site} has masked")
        self._survivors = tuple(sorted(told))
        return write(Agreement(signature=sign(self._identity, *self._view.agreed_parts(self._shares, self._survivors))))

    def unmask(self, request: bytes) -> bytes:
        """Phase 4: return shares of the survivors' seeds and of the dropped sites' mask keys, and forget the attempt.

        Raises:
            ProtocolError: both are asked for of one site, other sites are named than were signed, or too few have signed the same view.
        """
        self._enter(Phase.UNMASK)
        asked = read(request, UnmaskRequest, sites=self._terms.sites, where="unmasking")
        self._check_asked(asked)
        contributors = {group: self._view.holders(group, self._survivors) for group in self._view.live_groups(self._survivors)}
        # Noise is drawn anew with every attempt, so there the question is this very attempt: its keys, for terms can be sent again.
        question = self._view.seen.hex() if self.is_private else self._terms.question()
        run, number = self._terms.run, self._terms.round
        withheld = self._opened.admit(run, number, question=question, sums=contributors, once=self.is_private)
        opened = [group for group in contributors if group not in withheld]
        answer = Unmasking(
            seeds={site: {group: self._shares[site][group] for group in opened if group in self._shares[site]} for site in asked.survivors},
            keys={site: self._shares[site][""] for site in asked.dropped},
            withheld=tuple(sorted(withheld)),
        )
        self.forget()
        return write(answer)

    def forget(self) -> None:
        """Drop every secret of the attempt; Python gives no way to wipe the memory itself."""
        self._next = Phase.OVER
        self._seeds, self._pairs, self._shares, self._own_shares = {}, {}, {}, b""
        self._box = self._mask = KeyPair(b"", b"")

    def _enter(self, phase: Phase) -> None:
        """Take a phase in its turn. A phase that fails has been used up: nothing secret is computed twice with other input."""
        if self._next is not phase:
            self.forget()
            raise misfit(self._site, f"a request for phase {phase.name}", f"phase {self._next.name}, each phase once")
        self._next = Phase(phase + 1)

    def _box_key(self, peer: Advertisement, *, sender: str) -> bytes:
        """Return the key of one direction between this site and a peer."""
        return derive_key(self._box.agree(peer.box_key), "box", self._context, sender)

    def _open(self, peer: str, box: bytes) -> dict[str, bytes]:
        """Return a peer's shares for this site: its mask key's under "", its seeds' by group."""
        member = self._view.members[peer]
        plain = unseal(
            self._box_key(member, sender=peer),
            box,
            purpose=box_purpose(self._context, sender=peer, recipient=self._site),
            plain_bytes=SHARE_BYTES * (1 + len(member.groups)),
            where=f"box of {peer}",
        )
        return self._split(plain, member)

    @staticmethod
    def _split(plain: bytes, member: Advertisement) -> dict[str, bytes]:
        names = ("", *member.groups)
        return {name: plain[start : start + SHARE_BYTES] for name, start in zip(names, range(0, len(plain), SHARE_BYTES), strict=True)}

    def _own_update(self, group: str, update: Mapping[str, Float32]) -> Float32:
        delta_E = update.get(group)
        if delta_E is None or delta_E.shape != (self._terms.sizes[group],):
            got = "nothing" if delta_E is None else delta_E.shape
            raise ModelError("an update has not its group's size", where=group, got=got, expected=(self._terms.sizes[group],))
        return delta_E

    def _encode(self, update: Mapping[str, Float32]) -> dict[str, Ring]:
        """Return the groups as integers, weighted; clipped together and with this site's noise where the round is private."""
        if self._noisy is None:
            grid, limit, clip = self._grid, self._terms.weight_limit, self._terms.clip
            return {
                group: grid.encode(delta_E, weight=grid.weigh(self._weights[group], limit=limit), clip=clip[group])
                for group, delta_E in update.items()
            }
        weights = {group: self._noisy.weigh(self._weights[group]) for group in update}
        makers = {group: self._view.noise_makers(group, self._shares) for group in update}
        return self._noisy.encode(update, weights=weights, makers=makers, source=NoiseSource())

    def _mask_group(self, group: str, y: Ring) -> Ring:
        """Put an encoded group under this site's mask and those it shares with the group's other holders, in place."""
        label = mask_label(self._context, group)
        apply_mask(y, self._seeds[group], label=label, sign=1)
        for peer in self._view.holders(group, self._shares):
            if peer != self._site:
                apply_mask(y, self._pairs[peer], label=label, sign=1 if self._site < peer else -1)
        return y

    def _check_asked(self, asked: UnmaskRequest) -> None:
        """Refuse a request for other secrets than those of the view this site and at least a threshold have signed."""
        both = set(asked.survivors) & set(asked.dropped)
        if both:
            raise untrusted("unmasking", f"both secrets of {', '.join(sorted(both))} asked for", "one: together they uncover an update")
        if tuple(sorted(asked.survivors)) != self._survivors or set(asked.dropped) != set(self._shares) - set(self._survivors):
            raise untrusted("unmasking", "other sites than this site has signed", ", ".join(self._survivors))
        signers = set(asked.agreements)
        if not signers <= set(self._survivors) or len(signers) < self._terms.threshold:
            raise untrusted("unmasking", f"{len(signers)} agreements", f"{self._terms.threshold} or more, of survivors")
        parts = self._view.agreed_parts(self._shares, self._survivors)
        for site, signature in asked.agreements.items():
            check_signature(self._identities[site], signature, *parts, where=f"agreement of {site}")
