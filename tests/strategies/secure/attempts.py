"""One attempt of secure aggregation between in-memory sites, which drop out where a test says so."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from gmmas_schema.secure import SecureConfig, choose_threshold
from strategies.secure.coordinator import CoordinatorHalf, SecureResult
from strategies.secure.documents import Terms
from strategies.secure.ledger import OpenedSums
from strategies.secure.site import SiteHalf

SITES = ("ash", "birch", "cedar", "dogwood", "elm")
KEYS = {site: ec.generate_private_key(ec.SECP384R1()) for site in SITES}
IDENTITIES = {site: key.public_key() for site, key in KEYS.items()}
SIZES = {"encoder.t1": 7, "fusion": 5, "decoder": 3}
ALL = frozenset(SITES)
SUBJECT = "0" * 64


def make_terms(*, sites=5, threshold=None, sizes=SIZES, config=SecureConfig(), attempt=1, nonce=b"\0" * 32, number=1, run="run"):
    return Terms(
        run=run,
        round=number,
        attempt=attempt,
        nonce=nonce,
        subject=SUBJECT,
        sites=sites,
        threshold=choose_threshold(sites, threshold=threshold),
        minimum_holders=config.minimum_holders,
        bits=config.bits,
        ring_bits=config.ring_bits,
        clip={group: config.clip_of(group) for group in sizes},
        weight_limit=config.weight_limit,
        sizes=dict(sizes),
    )


@dataclass
class Transcript:
    """What passes between the sites and the coordinator, by phase and site."""

    advertisements: dict[str, bytes] = field(default_factory=dict)
    shares: dict[str, bytes] = field(default_factory=dict)
    masked: dict[str, bytes] = field(default_factory=dict)
    agreements: dict[str, bytes] = field(default_factory=dict)
    unmaskings: dict[str, bytes] = field(default_factory=dict)


def make_site(name, terms, *, ledger=None, sizes=None):
    return SiteHalf(
        name,
        terms=terms,
        sizes=sizes or terms.sizes,
        subject=SUBJECT,
        identity=KEYS[name],
        identities=IDENTITIES,
        opened=ledger if ledger is not None else OpenedSums(),
    )


def make_sites(terms, names=SITES, ledgers: Mapping[str, OpenedSums] | None = None):
    return {name: make_site(name, terms, ledger=(ledgers or {}).get(name)) for name in names}


def run_attempt(terms, updates, weights, *, gone_at=(), ledgers=None) -> tuple[SecureResult, Transcript]:
    """Run an attempt; `gone_at[phase]` are the sites that are not heard of any more from that phase on."""
    lost = [frozenset(gone_at[phase]) if phase < len(gone_at) else frozenset() for phase in range(5)]
    sites, transcript = make_sites(terms, list(updates), ledgers), Transcript()
    half = CoordinatorHalf(terms, IDENTITIES)
    alive = set(sites) - lost[0]
    for name in sorted(alive):
        transcript.advertisements[name] = sites[name].advertise(weights[name])
        half.add_advertisement(name, transcript.advertisements[name])
    roster = half.roster()
    alive -= lost[1]
    for name in sorted(alive):
        transcript.shares[name] = sites[name].share_keys(roster)
        half.add_shares(name, transcript.shares[name])
    inboxes = half.inboxes()
    alive -= lost[2]
    for name in sorted(alive):
        transcript.masked[name] = sites[name].mask(inboxes[name], updates[name])
        half.add_masked(name, transcript.masked[name])
    survivors = half.survivors()
    alive -= lost[3]
    for name in sorted(alive):
        transcript.agreements[name] = sites[name].agree(survivors)
        half.add_agreement(name, transcript.agreements[name])
    request = half.unmask_request()
    alive -= lost[4]
    for name in sorted(alive):
        transcript.unmaskings[name] = sites[name].unmask(request)
        half.add_unmasking(name, transcript.unmaskings[name])
    return half.result(), transcript


def make_updates(seed=0, *, sites=SITES, sizes=SIZES, scale=0.05, held=None):
    """Return a random flat update and positive weights for each site and each group it holds."""
    rng = np.random.default_rng(seed)
    updates, weights = {}, {}
    for name in sites:
        groups = (held or {}).get(name, tuple(sizes))
        updates[name] = {group: (scale * rng.standard_normal(sizes[group])).astype(np.float32) for group in groups}
        weights[name] = {group: float(rng.uniform(0.1, 60.0)) for group in groups}
    return updates, weights


def sum_in_the_clear(terms, updates, weights, group, sites):
    """Return the sum of the encoded updates of these sites, as integers, without any mask."""
    grid = terms.grid()
    total = np.zeros(terms.sizes[group] + 1, grid.dtype)
    for name in sites:
        if group in updates[name]:
            weight = grid.weigh(weights[name][group], limit=terms.weight_limit)
            total += grid.encode(updates[name][group], weight=weight, clip=terms.clip[group])
    return total
