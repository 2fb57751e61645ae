"""The coordinator's half of secure aggregation: bytes in, bytes out; it holds one running sum, however many sites there are.

    sum over survivors k of [W_k q_k, W_k] = sum_k y_k - sum_k PRG(b_k) -+ sum over dropped d and survivors k of PRG(s_dk)     modulo 2^R

per group. A phase is closed with what came, as long as a threshold of sites is left; below it the attempt ends with a FederationError. What
a site sends wrongly is that site's ProtocolError, and the site counts as dropped from then on. Bonawitz et al., CCS 2017, Figure 4.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import FederationError, ProtocolError, ReasonCode
from strategies.secure.documents import (
    DIGEST_BYTES,
    HEAD_BYTES,
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
from strategies.secure.keys import KeyPair, check_distinct, check_signature, untrusted
from strategies.secure.masks import apply_mask
from strategies.secure.shamir import recover_bytes, weigh_shares
from strategies.secure.view import Identities, View, check_advertisement, commitment, mask_label

Float32 = NDArray[np.float32]

_FEW: Final = "fewer than {} holders"
_OPENED: Final = "opened for other sites before"


@dataclass(frozen=True)
class GroupSum:
    """What the coordinator learns of one group.

    Attributes:
        mean_E: weighted mean of the clipped updates, flat; of a private round their noisy sum over the number of sites.
        weight: sum of the weights; of a private round the number of sites.
        sites: behind the sum.
    """

    mean_E: Float32
    weight: float
    sites: tuple[str, ...]


@dataclass(frozen=True)
class SecureResult:
    """The outcome of an attempt.

    Attributes:
        groups: the opened groups.
        refused: why the others, which some site holds, stay as they were.
    """

    groups: dict[str, GroupSum]
    refused: dict[str, str]

    @property
    def is_withheld(self) -> bool:
        """Whether the sites opened nothing, for they had opened this round before."""
        return not self.groups and _OPENED in self.refused.values()


class CoordinatorHalf:
    """One attempt, phase by phase: add_*() for each site's answer, then the method that closes the phase and returns what is asked next.

    Args:
        terms: of the attempt.
        identities: enrolled public keys.
    """

    def __init__(self, terms: Terms, identities: Identities) -> None:
        self._terms, self._identities, self._context = terms, identities, terms.context()
        self._grid, self._noisy, self._dtype = terms.grid(), terms.noisy_grid(), terms.dtype()
        self._advertisements: dict[str, Advertisement] = {}
        self._boxes: dict[str, dict[str, bytes]] = {}
        self._masking: tuple[str, ...] = ()
        self._sums: dict[str, Ring] = {}
        self._masked: dict[str, bytes] = {}
        self._survivors: tuple[str, ...] = ()
        self._agreements: dict[str, bytes] = {}
        self._answers: dict[str, Unmasking] = {}

    def add_advertisement(self, site: str, raw: bytes) -> None:
        """Phase 0: take a site's keys."""
        member = read(raw, Advertisement, sites=self._terms.sites, where=f"keys of {site}")
        if member.site != site or site in self._advertisements or site not in self._terms.invited:
            raise untrusted(f"keys of {site}", f"keys of {member.site}, twice, or uninvited", "one advertisement of each invited site")
        check_advertisement(member, self._terms, self._identities)
        self._check_keys(member)
        self._advertisements[site] = member

    def roster(self) -> bytes:
        """Close phase 0: return what every site that advertised is sent."""
        self._require(self._advertisements, "advertise keys")
        roster = Roster(members=tuple(self._advertisements[site] for site in sorted(self._advertisements)))
        self._view = View.of(roster, self._terms, self._identities, where="roster")
        return write(roster)

    def add_shares(self, site: str, raw: bytes) -> None:
        """Phase 1: take a site's sealed boxes."""
        boxes = read(raw, ShareParcel, sites=self._terms.sites, where=f"shares of {site}").boxes
        if site not in self._view.members or site in self._boxes or set(boxes) != set(self._view.members) - {site}:
            raise misfit(f"shares of {site}", f"{len(boxes)} boxes", "one for every peer, once")
        self._boxes[site] = boxes

    def inboxes(self) -> dict[str, bytes]:
        """Close phase 1: return what each site that shared is sent."""
        self._require(self._boxes, "share keys")
        self._masking = tuple(sorted(self._boxes))
        boxes, self._boxes = self._boxes, {}
        return {site: write(Inbox(boxes={peer: boxes[peer][site] for peer in self._masking if peer != site})) for site in self._masking}

    def masked_bytes(self, site: str) -> int:
        """Return the length of a site's masked vector, known before it comes."""
        return HEAD_BYTES + sum(elements for _, elements in self._view.layout(site, self._masking)) * self._dtype.itemsize

    def add_masked(self, site: str, raw: bytes) -> None:
        """Phase 2: add a site's masked vector to the sums; nothing of it is kept but the signature at its head."""
        if site not in self._masking or site in self._masked or self._survivors:
            raise misfit(f"masked vector of {site}", "a vector", "one of each site that shared, in its phase")
        expected = self.masked_bytes(site)
        if len(raw) != expected or raw[:DIGEST_BYTES] != self._context:
            raise misfit(f"masked vector of {site}", f"{len(raw)} bytes", f"{expected} bytes of this attempt")
        signature, start = raw[DIGEST_BYTES:HEAD_BYTES], HEAD_BYTES
        check_signature(self._identities[site], signature, *self._view.masked_parts(self._masking), where=f"masked vector of {site}")
        for group, elements in self._view.layout(site, self._masking):
            y = np.frombuffer(raw, self._dtype, elements, start)
            start += y.nbytes
            total = self._sums.setdefault(group, np.zeros(elements, self._dtype))
            np.add(total, y, out=total)
        self._masked[site] = signature

    def survivors(self) -> bytes:
        """Close phase 2: return what every site whose vector came is sent."""
        self._require(self._masked, "send masked updates")
        self._survivors = tuple(sorted(self._masked))
        return write(Survivors(sites={site: self._masked[site] for site in self._survivors}))

    def add_agreement(self, site: str, raw: bytes) -> None:
        """Phase 3: take a site's signature of what it was told."""
        signature = read(raw, Agreement, sites=self._terms.sites, where=f"agreement of {site}").signature
        if site not in self._survivors or site in self._agreements:
            raise misfit(f"agreement of {site}", "an agreement", "one of each survivor")
        parts = self._view.agreed_parts(self._masking, self._survivors)
        check_signature(self._identities[site], signature, *parts, where=f"agreement of {site}")
        self._agreements[site] = signature

    def unmask_request(self) -> bytes:
        """Close phase 3: return what every site that agreed is sent."""
        self._require(self._agreements, "agree on the survivors")
        return write(UnmaskRequest(agreements=self._agreements, survivors=self._survivors, dropped=self._dropped))

    def add_unmasking(self, site: str, raw: bytes) -> None:
        """Phase 4: take a site's shares."""
        where = f"shares for unmasking of {site}"
        answer = read(raw, Unmasking, sites=self._terms.sites, where=where)
        if site not in self._agreements or site in self._answers:
            raise misfit(where, "shares", "one answer of each site that agreed")
        opened = set(self._view.live_groups(self._survivors)) - set(answer.withheld)
        expected = {survivor: opened & set(self._view.members[survivor].seeds) for survivor in self._survivors}
        if {survivor: set(shares) for survivor, shares in answer.seeds.items()} != expected or set(answer.keys) != set(self._dropped):
            raise misfit(where, "shares of other sites or groups", "those that were asked for")
        self._answers[site] = answer

    def result(self) -> SecureResult:
        """Close phase 4: take the masks off and return the sums.

        Raises:
            FederationError: below the threshold, or a share or an update was false (code REPLY_REFUSED): nothing of the attempt counts.
        """
        self._require(self._answers, "unmask")
        held = {group for site in self._view.members for group in self._view.members[site].seeds}
        live = self._view.live_groups(self._survivors)
        refused = {group: _FEW.format(self._terms.minimum_holders) for group in self._terms.sizes if group in held and group not in live}
        keys = self._mask_keys()
        groups = {}
        for group in live:
            answers = {site: answer for site, answer in self._answers.items() if group not in answer.withheld}
            if len(answers) < self._terms.threshold:
                refused[group] = _OPENED
                continue
            groups[group] = self._open(group, answers, keys)
        self._sums = {}
        return SecureResult(groups, refused)

    @property
    def _dropped(self) -> tuple[str, ...]:
        return tuple(site for site in self._masking if site not in self._survivors)

    def _mask_keys(self) -> dict[str, KeyPair]:
        """Return the recovered mask keys of the sites that shared keys and then were gone."""
        factors = self._factors(self._answers)
        keys = {}
        for site in self._dropped:
            private = recover_bytes({self._view.place(a): answer.keys[site] for a, answer in self._answers.items()}, factors)
            if private is None or KeyPair.from_private(private).public != self._view.members[site].mask_key:
                self._false(f"the mask key of {site}")
            keys[site] = KeyPair.from_private(private)
        return keys

    def _open(self, group: str, answers: Mapping[str, Unmasking], keys: Mapping[str, KeyPair]) -> GroupSum:
        """Return one group's sum, unmasked in place."""
        total, label, factors = self._sums.pop(group), mask_label(self._context, group), self._factors(answers)
        sites = self._view.holders(group, self._survivors)
        for site in sites:
            seed = recover_bytes({self._view.place(a): answer.seeds[site][group] for a, answer in answers.items()}, factors)
            if seed is None or commitment(self._context, site, group, seed) != self._view.members[site].seeds[group]:
                self._false(f"the seed of {site} for {group}")
            apply_mask(total, seed, label=label, sign=-1)
        for gone in self._view.holders(group, self._dropped):
            for site in sites:
                secret = keys[gone].agree(self._view.members[site].mask_key)
                apply_mask(total, secret, label=label, sign=-1 if site < gone else 1)
        try:
            mean_E, weight = self._decode(group, total, sites=len(sites))
        except ProtocolError as error:
            self._false(f"the sum of {group}", error)
        return GroupSum(mean_E, weight, sites)

    def _decode(self, group: str, total: Ring, *, sites: int) -> tuple[Float32, float]:
        if self._noisy is not None:
            return self._noisy.decode(total, sites=sites)
        return self._grid.decode(total, clip=self._terms.clip[group], limit=self._terms.weight_limit, sites=sites)

    def _factors(self, answers: Collection[str]) -> dict[int, int]:
        """Return the factors of a threshold of answers."""
        chosen = sorted(answers)[: self._terms.threshold]
        return weigh_shares([self._view.place(site) for site in chosen])

    def _check_keys(self, member: Advertisement) -> None:
        """Refuse keys that every other site would have to refuse: one site's fault must not become everybody's."""
        taken = {key for other in self._advertisements.values() for key in (other.box_key, other.mask_key)}
        if member.box_key == member.mask_key or taken & {member.box_key, member.mask_key}:
            raise untrusted(f"keys of {member.site}", "a key twice", "two keys of its own")
        for key in (member.box_key, member.mask_key):
            KeyPair.make().agree(key)  # refuses points of small order
        admitted = {site: self._identities[site] for site in (*self._advertisements, member.site)}
        check_distinct(admitted, where=f"keys of {member.site}")

    def _require(self, sites: Collection[str], phase: str) -> None:
        if len(sites) < self._terms.threshold:
            raise FederationError(
                "too few sites are left for secure aggregation",
                where=f"round {self._terms.round}, attempt {self._terms.attempt}, phase: {phase}",
                got=f"{len(sites)} ({', '.join(sorted(sites)) or 'none'})",
                expected=f"at least {self._terms.threshold} of {self._terms.sites}",
                remedy="the round is tried again; bring the missing sites back, or lower secure.threshold (more than half of the sites)",
                code=ReasonCode.QUORUM,
            )

    def _false(self, what: str, cause: Exception | None = None) -> NoReturn:
        raise FederationError(
            "secure aggregation came to a wrong result",
            where=f"round {self._terms.round}, attempt {self._terms.attempt}",
            got=f"{what} does not fit what was promised",
            expected="true shares and clipped updates from every site",
            remedy="one of the sites runs other software: compare versions, and leave sites out one by one to find it",
            code=ReasonCode.REPLY_REFUSED,
        ) from cause
