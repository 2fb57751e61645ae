"""Every way in which five sites can drop out, phase by phase."""

import copy
from functools import cache
from itertools import combinations

import numpy as np
import pytest

from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.secure import SecureConfig
from strategies.secure import coordinator as coordinator_module
from strategies.secure import site as site_module
from strategies.secure import view as view_module
from strategies.secure.coordinator import CoordinatorHalf
from strategies.secure.documents import HEAD_BYTES
from strategies.secure.keys import check_signature
from tests.strategies.secure.attempts import IDENTITIES, KEYS, SITES, Attempt, make_sites, make_terms, make_updates, sum_in_the_clear

HELD = {
    "ash": ("encoder.t1", "fusion", "decoder"),
    "birch": ("encoder.t1", "fusion", "decoder"),
    "cedar": ("encoder.t1", "fusion", "decoder"),
    "dogwood": ("encoder.t1", "fusion"),
    "elm": ("fusion",),
}
PHASES = ("advertise keys", "share keys", "send masked updates", "agree on the survivors", "unmask")


def subsets(names):
    return [frozenset(chosen) for size in range(len(names) + 1) for chosen in combinations(sorted(names), size)]


class Tree:
    """Walks through all drop-outs; what was done before a phase is copied for each of the ways to go on."""

    def __init__(self, terms, updates, weights):
        self.terms, self.updates, self.weights = terms, updates, weights
        self.finished, self.failed = 0, [0] * 5

    def walk(self):
        sites, half = make_sites(self.terms), CoordinatorHalf(self.terms, IDENTITIES)
        asked = dict.fromkeys(SITES, b"")
        self.step(0, half, sites, asked, ())

    def step(self, phase, half, sites, asked, masked):
        """Let every site that is asked answer once, then go on with every subset of the answers."""
        sites = clone({name: sites[name] for name in asked})
        answers = {name: self.answer(phase, sites[name], name, asked[name]) for name in sorted(asked)}
        for alive in subsets(asked):
            half_ = clone(half)
            for name in sorted(alive):
                (half_.add_advertisement, half_.add_shares, half_.add_masked, half_.add_agreement, half_.add_unmasking)[phase](
                    name, answers[name]
                )
            if len(alive) < self.terms.threshold:
                with pytest.raises(FederationError) as caught:
                    self.close(phase, half_, alive)
                assert caught.value.code is ReasonCode.QUORUM
                assert PHASES[phase] in caught.value.where
                assert f"at least {self.terms.threshold} of 5" in caught.value.expected
                self.failed[phase] += 1
                continue
            following = self.close(phase, half_, alive)
            if phase == 4:
                self.check(following, masked)
            else:
                self.step(phase + 1, half_, sites, following, tuple(sorted(alive)) if phase == 2 else masked)

    def answer(self, phase, site, name, asked):
        if phase == 0:
            return site.advertise(self.weights[name])
        if phase == 2:
            return site.mask(asked, self.updates[name])
        return {1: site.share_keys, 3: site.agree, 4: site.unmask}[phase](asked)

    def close(self, phase, half, alive):
        if phase == 1:
            return half.inboxes()
        if phase == 4:
            return half.result()
        raw = (half.roster, None, half.survivors, half.unmask_request)[phase]()
        return dict.fromkeys(alive, raw)

    def check(self, result, survivors):
        """The sum without masks is the sum with masks, in the integers; groups of fewer than three survivors stay closed."""
        for group in self.terms.sizes:
            holders = tuple(name for name in survivors if group in HELD[name])
            if len(holders) < 3:
                assert result.refused[group] == "fewer than 3 holders"
                assert group not in result.groups
                continue
            total = sum_in_the_clear(self.terms, self.updates, self.weights, group, survivors)
            mean, weight = self.terms.grid().decode(total, clip=self.terms.clip[group], limit=self.terms.weight_limit, sites=len(holders))
            found = result.groups[group]
            assert found.sites == holders
            assert found.mean_E.tobytes() == mean.tobytes()
            assert found.weight == weight
        self.finished += 1


def clone(state):
    fixed = [*KEYS.values(), *IDENTITIES.values(), IDENTITIES]
    return copy.deepcopy(state, {id(entry): entry for entry in fixed})


@pytest.fixture(autouse=True)
def _check_each_signature_once(monkeypatch):
    """A signature that was checked for one site is the same for the next."""
    identities = {id(key): key for key in IDENTITIES.values()}

    @cache
    def checked(key, signature, parts, where):
        check_signature(identities[key], signature, *parts, where=where)

    def check(identity, signature, *parts, where):
        checked(id(identity), signature, parts, where)

    for module in (site_module, coordinator_module, view_module):
        monkeypatch.setattr(module, "check_signature", check)


@pytest.mark.parametrize(("threshold", "patterns"), [(3, 1 + 5 * 5 + 10 * 25), (4, 1 + 5 * 5), (5, 1)])
def test_every_pattern_of_drop_outs_gives_the_sum_of_the_survivors_or_a_clear_failure(threshold, patterns):
    updates, weights = make_updates(1, held=HELD)
    tree = Tree(make_terms(threshold=threshold), updates, weights)
    tree.walk()
    assert tree.finished == patterns
    assert all(tree.failed)


def test_all_sites_stay_in_a_federation_without_drop_outs():
    terms = make_terms()
    updates, weights = make_updates(2)
    result = Attempt(terms, updates, weights).run().result
    assert result.refused == {}
    assert {found.sites for found in result.groups.values()} == {SITES}


@pytest.mark.parametrize("ring_bits", [16, 32, 64])
@pytest.mark.parametrize("bits", [4, 8])
def test_coarse_grids_and_other_rings_compose(bits, ring_bits):
    terms = make_terms(config=SecureConfig(bits=bits, ring_bits=ring_bits), threshold=3)
    updates, weights = make_updates(3)
    attempt = Attempt(terms, updates, weights).run(gone_at=((), ("ash",), ("elm",)))
    survivors = ("birch", "cedar", "dogwood")
    entries = sum(size + 1 for size in terms.sizes.values())
    assert {len(raw) for raw in attempt.masked.values()} == {HEAD_BYTES + entries * ring_bits // 8}
    for group, found in attempt.result.groups.items():
        steps = np.array([terms.grid().weigh(weights[name][group], limit=terms.weight_limit) for name in survivors], float)
        clipped = np.array([np.clip(updates[name][group], -0.25, 0.25) for name in survivors], float)
        exact = steps @ clipped / steps.sum()
        assert np.abs(found.mean_E - exact).max() <= terms.grid().error(0.25) + 2.0**-24
