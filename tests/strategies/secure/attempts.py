"""One attempt of secure aggregation between in-memory sites, which drop out where a test says so."""

from collections.abc import Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from gmmas_schema.secure import SecureConfig, choose_threshold
from strategies.secure.coordinator import CoordinatorHalf
from strategies.secure.documents import Advertisement, Terms
from strategies.secure.ledger import OpenedSums
from strategies.secure.site import SiteHalf

SITES = ("ash", "birch", "cedar", "dogwood", "elm")
MORE_SITES = (*SITES, "fir", "gum", "hazel", "ivy")
KEYS = {site: ec.generate_private_key(ec.SECP384R1()) for site in MORE_SITES}
IDENTITIES = {site: key.public_key() for site, key in KEYS.items()}
SIZES = {"encoder.t1": 7, "fusion": 5, "decoder": 3}
ALL = frozenset(SITES)
SUBJECT = "0" * 64
CONFIG = SecureConfig()


def make_terms(
    *, invited=SITES, threshold=None, sizes=SIZES, config=CONFIG, attempt=1, nonce=b"\0" * 32, number=1, run="run", privacy=None, model=None
):
    return Terms(
        run=run,
        round=number,
        attempt=attempt,
        nonce=nonce,
        subject=SUBJECT,
        invited=tuple(sorted(invited)),
        threshold=choose_threshold(len(invited), threshold=threshold),
        minimum_holders=config.minimum_holders,
        bits=config.bits,
        ring_bits=config.ring_bits,
        clip={group: config.clip_of(group) for group in sizes},
        weight_limit=config.weight_limit,
        sizes=dict(sizes),
        model=model or dict.fromkeys(sizes, "0" * 64),
        privacy=privacy,
    )


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


class Attempt:
    """One attempt in steps, one a phase; what passes between the sites and the coordinator is kept, as a coordinator may.

    Args:
        terms: of the attempt.
        updates: flat update by site and group.
        weights: weight by site and group.
        ledgers: of the sites, where a test goes on with one.
        half: the coordinator, where it is not the true one.
    """

    def __init__(self, terms, updates, weights, *, ledgers=None, half=None):
        self.terms, self.updates, self.weights = terms, updates, weights
        self.sites = make_sites(terms, list(updates), ledgers)
        self.half = half or CoordinatorHalf(terms, IDENTITIES)
        self.alive = sorted(self.sites)
        self.keys = {name: site._mask for name, site in self.sites.items()}  # those of the sites that help a coordinator
        self.advertisements, self.masked, self.agreements, self.unmaskings = {}, {}, {}, {}

    def lose(self, names):
        self.alive = [name for name in self.alive if name not in names]

    def advertise(self):
        for name in self.alive:
            self.advertisements[name] = self.sites[name].advertise(self.weights[name])
            self.half.add_advertisement(name, self.advertisements[name])
        self.roster = self.half.roster()
        self.members = {name: Advertisement.model_validate_json(raw) for name, raw in self.advertisements.items()}

    def share(self):
        for name in self.alive:
            self.half.add_shares(name, self.sites[name].share_keys(self.roster))
        self.inboxes = self.half.inboxes()

    def mask(self):
        for name in self.alive:
            self.masked[name] = self.sites[name].mask(self.inboxes[name], self.updates[name])
            self.half.add_masked(name, self.masked[name])
        self.survivors = self.half.survivors()

    def agree(self):
        for name in self.alive:
            self.agreements[name] = self.sites[name].agree(self.survivors)
            self.half.add_agreement(name, self.agreements[name])
        self.request = self.half.unmask_request()

    def unmask(self):
        for name in self.alive:
            self.unmaskings[name] = self.sites[name].unmask(self.request)
            self.half.add_unmasking(name, self.unmaskings[name])
        self.result = self.half.result()

    def run(self, *, gone_at=(), until=5):
        """Do the phases; `gone_at[phase]` are the sites that are not heard of from that phase on."""
        for phase, step in enumerate((self.advertise, self.share, self.mask, self.agree, self.unmask)[:until]):
            self.lose(gone_at[phase] if phase < len(gone_at) else ())
            step()
        return self


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
