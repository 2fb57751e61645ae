"""What a coordinator and t - 1 sites that help it can make of the transcript: no more than the sum over the others."""

import numpy as np
import pytest
from scipy import stats

from strategies.secure.coordinator import CoordinatorHalf
from strategies.secure.documents import HEAD_BYTES, Unmasking
from strategies.secure.masks import apply_mask
from strategies.secure.shamir import recover_bytes, weigh_shares
from strategies.secure.view import mask_label
from tests.strategies.secure.attempts import IDENTITIES, SITES, Attempt, make_terms, make_updates, sum_in_the_clear

VICTIM, HONEST = "birch", "dogwood"
COLLUDERS = ("ash", "cedar", "elm")  # t - 1 of five with the default threshold of four
SIZES = {"fusion": 40_000}
CHANCE = 1e-7
"""A true null hypothesis is rejected this often; the tests below are some ten."""


def two_worlds():
    """Return updates in which victim and honest site trade a step of up to 0.2 in every entry; their sum is the same."""
    updates, _ = make_updates(5, sizes=SIZES, scale=0.01)
    weights = {site: {"fusion": 20.0} for site in SITES}
    terms = make_terms(sizes=SIZES)
    step = terms.clip["fusion"] / terms.grid().levels
    on_grid = {site: {"fusion": (np.rint(update["fusion"] / step) * step).astype(np.float32)} for site, update in updates.items()}
    trade = (np.sign(np.random.default_rng(6).standard_normal(SIZES["fusion"])) * np.rint(0.2 / step) * step).astype(np.float32)
    other = dict(on_grid)
    other[VICTIM] = {"fusion": on_grid[VICTIM]["fusion"] + trade}
    other[HONEST] = {"fusion": on_grid[HONEST]["fusion"] - trade}
    assert (sum_in_the_clear(terms, on_grid, weights, "fusion", SITES) == sum_in_the_clear(terms, other, weights, "fusion", SITES)).all()
    return terms, on_grid, other, weights, trade


class Adversary(Attempt):
    """The coordinator with all it saw, and the key pairs of the sites that help it."""

    def vector(self):
        return np.frombuffer(self.masked[VICTIM], self.terms.grid().dtype, offset=HEAD_BYTES).copy()

    def residual(self, *, also=()):
        """Return the victim's vector without every mask that the adversary knows: its colluders' and the opened self-mask."""
        y, label = self.vector(), mask_label(self.terms.context(), "fusion")
        for peer in (*COLLUDERS, *also):
            apply_mask(y, self.keys[peer].agree(self.members[VICTIM].mask_key), label=label, sign=-1 if peer > VICTIM else 1)
        answers = {name: Unmasking.model_validate_json(raw) for name, raw in self.unmaskings.items()}
        shares = {SITES.index(name) + 1: answer.seeds[VICTIM]["fusion"] for name, answer in answers.items()}
        seed = recover_bytes(shares, weigh_shares(sorted(shares)[: self.terms.threshold]))
        apply_mask(y, seed, label=label, sign=-1)
        return y


def uniform(vector):
    """Return the p-value of chi-square over bytes against the uniform distribution."""
    return stats.chisquare(np.bincount(vector.view(np.uint8), minlength=256)).pvalue


def alike(one, other):
    """Return the p-value of a chi-square test that the bytes of both come from one distribution."""
    counts = np.stack([np.bincount(vector.view(np.uint8), minlength=256) for vector in (one, other)])
    return stats.chi2_contingency(counts[:, counts.sum(0) > 0]).pvalue


def matched(vector, trade):
    """Return the p-value of the correlation with the very difference of the two worlds, the best linear test there is."""
    return stats.pearsonr(vector.view(vector.dtype.str.replace("u", "i")).astype(float), trade.astype(float)).pvalue


@pytest.fixture(scope="module")
def worlds():
    terms, first, second, weights, trade = two_worlds()
    return Adversary(terms, first, weights).run(), Adversary(terms, second, weights).run(), trade


def test_masked_vectors_look_uniform(worlds):
    for adversary in worlds[:2]:
        assert uniform(adversary.vector()) > CHANCE
        assert uniform(adversary.residual()) > CHANCE


def test_two_inputs_of_the_victim_cannot_be_told_apart(worlds):
    first, second, trade = worlds
    assert first.result.groups["fusion"].mean_E.tobytes() == second.result.groups["fusion"].mean_E.tobytes()
    assert alike(first.vector(), second.vector()) > CHANCE
    assert alike(first.residual(), second.residual()) > CHANCE
    for adversary in (first, second):
        assert matched(adversary.residual()[:-1], trade) > CHANCE


def test_the_statistics_would_see_an_update_that_is_not_masked(worlds):
    """Control: with the one key that it must not have, the honest site's, the adversary tells both worlds apart."""
    first, second, trade = worlds
    assert uniform(first.residual(also=(HONEST,))) < 1e-100
    assert alike(first.residual(also=(HONEST,)), second.residual(also=(HONEST,))) < 1e-100
    assert matched(second.residual(also=(HONEST,))[:-1], trade) < 1e-100
    plain = sum_in_the_clear(first.terms, {VICTIM: two_worlds()[1][VICTIM]}, {VICTIM: {"fusion": 20.0}}, "fusion", [VICTIM])
    assert first.residual(also=(HONEST,)).tobytes() == plain.tobytes()


class Forgetful(CoordinatorHalf):
    """A coordinator that does not count the victim's vector, and keeps the mask keys it recovers."""

    def add_masked(self, site, raw):
        if site != VICTIM:
            super().add_masked(site, raw)

    def _mask_keys(self):
        self.recovered = super()._mask_keys()
        return self.recovered


def test_a_vector_that_comes_late_stays_masked():
    """The coordinator has the mask key of a site it calls dropped, and that site's vector: the self-mask still hides it."""
    terms, first, _, weights, _ = two_worlds()
    attempt = Attempt(terms, first, weights, half=Forgetful(terms, IDENTITIES)).run(gone_at=((), (), (), (VICTIM,)))
    assert attempt.result.groups["fusion"].sites == tuple(site for site in SITES if site != VICTIM)
    y, label = np.frombuffer(attempt.masked[VICTIM], terms.grid().dtype, offset=HEAD_BYTES).copy(), mask_label(terms.context(), "fusion")
    for peer in set(SITES) - {VICTIM}:
        secret = attempt.half.recovered[VICTIM].agree(attempt.members[peer].mask_key)
        apply_mask(y, secret, label=label, sign=-1 if peer > VICTIM else 1)
    assert uniform(y) > CHANCE


def test_what_the_colluders_hold_of_the_victims_seed_fits_every_seed():
    """With t - 1 shares, each value of the missing share leads to another seed; only the share the honest site keeps, to the true one."""
    terms, first, _, weights, _ = two_worlds()
    attempt = Attempt(terms, first, weights).run(until=2)
    seed = attempt.sites[VICTIM]._seeds["fusion"]
    attempt.mask()
    shares = {SITES.index(name) + 1: attempt.sites[name]._shares[VICTIM]["fusion"] for name in COLLUDERS}
    honest = SITES.index(HONEST) + 1
    factors = weigh_shares([*shares, honest])
    others = {recover_bytes(shares | {honest: value.to_bytes(33, "big")}, factors) for value in range(100)}
    assert len(others - {None}) >= 99
    assert seed not in others
    assert recover_bytes(shares | {honest: attempt.sites[HONEST]._shares[VICTIM]["fusion"]}, factors) == seed
