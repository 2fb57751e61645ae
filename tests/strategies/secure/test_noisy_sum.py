"""Sums with noise that the sites make: enough of it whoever drops out, a clip that holds to the last integer, no bias."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gmmas_schema.errors import ConfigError, ModelError, ProtocolError
from gmmas_schema.privacy import PrivacyConfig
from strategies.accountant import epsilon_of
from strategies.noise import NoiseSource
from strategies.secure import noisy_sum
from strategies.secure.documents import Advertisement, Roster, Unmasking
from strategies.secure.ledger import OpenedSums
from strategies.secure.noisy_sum import NoisySum
from strategies.secure.view import View
from tests.strategies.secure.attempts import SITES, Attempt, make_terms, make_updates

PRIVACY = PrivacyConfig(clip_norm=0.5, noise_multiplier=1.5, epsilon=8.0, full_weight=4.0)
SIZES = {"encoder.t1": 300, "fusion": 20_000}
KEY = bytes(32)


def make_grid(*, sites=5, ring_bits=32, elements=100, fewest=2, privacy=PRIVACY):
    return NoisySum(sites=sites, ring_bits=ring_bits, elements=elements, fewest=fewest, privacy=privacy)


def signed(ring):
    return ring.view(ring.dtype.str.replace("u", "i"))


def length_squared(*parts):
    """Return the exact squared length of integers."""
    return sum(int(value) ** 2 for part in parts for value in part.tolist())


@pytest.fixture
def silent(monkeypatch):
    """Leave the noise out, so that rounding and clip can be looked at."""
    monkeypatch.setattr(noisy_sum, "draw", lambda _source, size, *, variance: np.zeros(size, np.int64))


changes = st.floats(-1e4, 1e4, width=32) | st.floats(-(2.0**-6), 2.0**-6, width=32)


@settings(max_examples=60)
@given(
    values=st.lists(changes, min_size=1, max_size=60),
    split=st.integers(0, 60),
    weights=st.tuples(st.floats(1e-3, 1.0), st.floats(1e-3, 1.0)),
    grid=st.builds(
        make_grid,
        sites=st.integers(3, 200),
        ring_bits=st.sampled_from([32, 64]),
        privacy=st.builds(
            PrivacyConfig,
            clip_norm=st.sampled_from([1e-3, 0.5, 40.0]),
            noise_multiplier=st.floats(0.1, 50),
            epsilon=st.just(8.0),
        ),
    ),
)
def test_the_clip_holds_exactly_in_the_integers_whatever_a_site_sends(values, split, weights, grid):
    update = {"fusion": np.array(values[:split], np.float32), "decoder": np.array(values[split:], np.float32)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(noisy_sum, "draw", lambda _source, size, *, variance: np.zeros(size, np.int64))
        named = dict(zip(("fusion", "decoder"), weights, strict=True))
        encoded = grid.encode(update, weights=named, makers={"fusion": 2, "decoder": 2}, source=NoiseSource())
    largest = int(grid.privacy.clip_norm / grid.step)
    assert length_squared(*(signed(ring)[:-1] for ring in encoded.values())) <= largest**2
    assert [int(ring[-1]) for ring in encoded.values()] == [1, 1]


@pytest.mark.usefixtures("silent")
def test_an_update_within_the_clip_is_only_weighted_and_rounded():
    grid, update = make_grid(), {"fusion": np.linspace(-0.02, 0.02, 50).astype(np.float32)}
    (ring,) = grid.encode(update, weights={"fusion": 0.5}, makers={"fusion": 2}, source=NoiseSource()).values()
    mean, weight = grid.decode(ring, sites=1)
    np.testing.assert_allclose(mean, 0.5 * update["fusion"], atol=grid.step)
    assert weight == 1.0


def test_rounding_at_random_has_no_bias():
    grid = make_grid()
    values = np.repeat(np.array([0.25, -0.75, 7.5, 0.0]) * grid.step, 40_000)
    steps = grid.round_at_random(values, NoiseSource(KEY)).reshape(4, -1)
    assert (np.abs(steps - values.reshape(4, -1) / grid.step) < 1).all()
    np.testing.assert_allclose(steps.mean(axis=1), [0.25, -0.75, 7.5, 0.0], atol=5 * 0.5 / math.sqrt(40_000))


def run(*, threshold, gone_at, privacy=PRIVACY, updates=None, sizes=SIZES, ledgers=None, **changes):
    terms = make_terms(sizes=sizes, threshold=threshold, privacy=privacy, **changes)
    updates = updates or {site: {group: np.zeros(size, np.float32) for group, size in sizes.items()} for site in SITES}
    weights = {site: dict.fromkeys(update, 4.0) for site, update in updates.items()}
    return Attempt(terms, updates, weights, ledgers=ledgers).run(gone_at=gone_at)


@pytest.mark.parametrize(("threshold", "colluders"), [(3, 0), (3, 2), (4, 1), (5, 1)])
def test_the_sum_carries_at_least_the_noise_that_is_counted_whoever_drops_out(threshold, colluders):
    """With 0 to n - t drop-outs after the masks are agreed; as many shares as there may be colluders are taken out again."""
    privacy = PRIVACY.model_copy(update={"colluders": colluders})
    target = privacy.noise_multiplier * privacy.clip_norm
    makers = max(threshold, 3) - colluders
    for lost in range(5 - threshold + 1):
        attempt = run(threshold=threshold, gone_at=((), (), SITES[:lost]), privacy=privacy)
        found = attempt.result.groups["fusion"]
        total = found.mean_E.astype(float) * len(found.sites)
        # The standard deviation of 20,000 values is known to half a percent.
        assert total.std() == pytest.approx(target * math.sqrt(len(found.sites) / makers), rel=0.025)
        honest = total.std() * math.sqrt((len(found.sites) - colluders) / len(found.sites))
        assert honest >= target * (1 - 0.025)
        assert abs(total.mean()) < 5 * total.std() / math.sqrt(total.size)
        assert stats.kstest(total / total.std(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("gone_at", [(("ash",),), ((), ("ash",)), (("ash",), ("elm",))], ids=str)
def test_sites_that_are_gone_before_they_mask_leave_enough_noise_too(gone_at):
    attempt = run(threshold=3 if len(gone_at) > 1 else 4, gone_at=gone_at)
    found = attempt.result.groups["fusion"]
    honest = found.mean_E.astype(float).std() * len(found.sites) * math.sqrt((len(found.sites) - 1) / len(found.sites))
    assert honest >= 0.975 * 1.5 * 0.5


def make_view(held, *, threshold, privacy):
    terms = make_terms(threshold=threshold, sizes={"fusion": 3, "decoder": 3}, privacy=privacy)
    members = tuple(
        Advertisement(
            site=site,
            context=terms.context(),
            box_key=bytes([number]) * 32,
            mask_key=bytes([100 + number]) * 32,
            seeds={group: bytes(32) for group in held[site]},
            signature=bytes(96),
        )
        for number, site in enumerate(SITES)
    )
    return View.of(Roster(members=members), terms, {}, where="test")


@pytest.mark.parametrize("threshold", [3, 4, 5])
@pytest.mark.parametrize("colluders", [0, 1, 2])
def test_no_group_is_ever_opened_with_fewer_noise_makers_than_were_reckoned_with(threshold, colluders):
    """Every set that masks, every set that survives, every number of holders."""
    patterns = 0
    for holders in range(6):
        held = {site: ("fusion", "decoder") if number < holders else ("fusion",) for number, site in enumerate(SITES)}
        view = make_view(held, threshold=threshold, privacy=PRIVACY.model_copy(update={"colluders": colluders}))
        for masking in (set(each) for size in range(threshold, 6) for each in combinations(SITES, size)):
            for alive in (set(each) for size in range(threshold, len(masking) + 1) for each in combinations(sorted(masking), size)):
                for group in view.live_groups(alive):
                    makers = view.noise_makers(group, masking)
                    assert 1 <= makers <= len(view.holders(group, alive)) - colluders
                    patterns += 1
    assert patterns > 5


def test_the_sum_is_that_of_the_clipped_updates_without_bias():
    """Updates three times as long as the clip, from all sites alike: what the noise leaves of the sum is five clipped ones."""
    privacy = PRIVACY.model_copy(update={"noise_multiplier": 0.05})
    direction = np.full(SIZES["fusion"], 1.5 / math.sqrt(SIZES["fusion"]), np.float32)
    updates = {site: {"fusion": direction} for site in SITES}
    found = run(threshold=4, gone_at=(), privacy=privacy, updates=updates, sizes={"fusion": SIZES["fusion"]}).result.groups["fusion"]
    total = found.mean_E.astype(float) * 5
    along = float(total @ direction) / 1.5
    # The noise along one direction is one number of standard deviation z C sqrt(5 / 3).
    assert along == pytest.approx(5 * 0.5, abs=5 * 0.05 * 0.5 * math.sqrt(5 / 3))


def test_a_larger_clip_than_the_update_leaves_the_others_and_one_site_moves_the_sum_by_no_more_than_the_clip():
    quiet = PRIVACY.model_copy(update={"noise_multiplier": 0.011})
    updates, _ = make_updates(7, sizes={"fusion": 400}, scale=10.0)
    zero = updates | {"elm": {"fusion": np.zeros(400, np.float32)}}
    with_it, without = (
        run(threshold=4, gone_at=(), privacy=quiet, updates=each, sizes={"fusion": 400}).result.groups["fusion"] for each in (updates, zero)
    )
    moved = np.linalg.norm(5 * (with_it.mean_E.astype(float) - without.mean_E))
    noise = 0.011 * 0.5 * math.sqrt(2 * 5 / 3 * 400)
    assert moved <= 0.5 + 1.2 * noise


def delta_of(epsilon, *, variance, shift):
    """Return the smallest delta at this epsilon of a discrete Gaussian that is moved by `shift` steps, by summing over all of them."""
    reach = math.ceil(14 * math.sqrt(variance)) + shift
    x = np.arange(-reach, reach + 1, dtype=float)
    log_p, log_q = -(x**2) / (2 * variance), -((x - shift) ** 2) / (2 * variance)
    scale = np.exp(log_p).sum()
    return float(np.maximum(np.exp(log_p) - math.exp(epsilon) * np.exp(log_q), 0).sum() / scale)


@pytest.mark.parametrize("noise_multiplier", [0.3, 0.7, 1.5, 4.0])
@pytest.mark.parametrize("share_steps", [noisy_sum.FEWEST_STEPS, 400.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-7])
def test_the_accountants_epsilon_is_that_of_the_discrete_noise(noise_multiplier, share_steps, delta):
    """One value moved by all of the clip, where the lattice shows most; three shares of the smallest size that is allowed, and larger."""
    variance = 3 * math.ceil(share_steps**2)
    shift = round(math.sqrt(variance) / noise_multiplier)
    epsilon = epsilon_of(1, noise_multiplier=math.sqrt(variance) / shift, delta=delta)
    assert delta_of(epsilon, variance=variance, shift=shift) <= delta * (1 + 2 / variance)


def test_noise_cannot_wrap_and_an_impossible_sum_is_refused():
    grid = make_grid(sites=7)
    assert grid.sites * grid.levels < 2**31
    assert grid.levels * grid.step == pytest.approx(0.5 + 16 * 1.5 * 0.5 / math.sqrt(2))
    for total in ([0, 0, 3], [0, 0, 1], [2 * grid.levels + 1, 0, 2]):
        with pytest.raises(ProtocolError, match="not one that updates can have"):
            grid.decode(np.array(total, np.int64).astype("<u4"), sites=2)


@pytest.mark.parametrize(
    ("changes", "match"),
    [({"ring_bits": 16}, r"secure\.ring_bits"), ({"privacy": PRIVACY.model_copy(update={"noise_multiplier": 1e-8})}, "share of noise")],
)
def test_a_grid_too_coarse_for_clip_or_noise_is_refused(changes, match):
    with pytest.raises(ConfigError, match=match):
        make_grid(elements=1_000_000, **changes)


def test_a_model_of_ten_million_values_at_a_hundred_hospitals_fits_into_32_bits():
    grid = make_grid(sites=100, elements=9_000_000, fewest=2, privacy=PRIVACY.model_copy(update={"noise_multiplier": 8.9}))
    assert grid.rounding < PRIVACY.clip_norm / 64


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_update_that_is_not_finite_never_leaves(value):
    with pytest.raises(ModelError, match="not finite"):
        make_grid().encode({"fusion": np.array([value], np.float32)}, weights={"fusion": 1.0}, makers={"fusion": 2}, source=NoiseSource())


def test_all_noise_may_not_be_known_to_colluders():
    with pytest.raises(ValueError, match="colluders"):
        make_terms(privacy=PRIVACY.model_copy(update={"colluders": 3})).model_validate(
            make_terms(privacy=PRIVACY.model_copy(update={"colluders": 3})).model_dump()
        )


def test_a_private_round_is_opened_once_even_over_the_same_sites_and_for_other_groups():
    """New noise on the same update is another release; and the clip is over the groups of one attempt."""
    ledgers = {site: OpenedSums() for site in SITES}
    sizes = {"encoder.t1": 4, "fusion": 4}
    only = {site: {"fusion": np.zeros(4, np.float32)} for site in SITES}
    first = run(threshold=4, gone_at=(), updates=only, sizes=sizes, ledgers=ledgers)
    assert set(first.result.groups) == {"fusion"}
    others = {site: {"encoder.t1": np.zeros(4, np.float32)} for site in SITES}
    # The very same terms again, new ones, and new ones about what was not opened.
    for nonce, updates in ((bytes(32), only), (b"\1" * 32, only), (b"\2" * 32, others)):
        again = run(threshold=4, gone_at=(), updates=updates, sizes=sizes, ledgers=ledgers, nonce=nonce)
        assert again.result.groups == {}
        assert set(again.result.refused.values()) == {"opened for other sites before"}
        assert not any(Unmasking.model_validate_json(raw).seeds[site] for raw in again.unmaskings.values() for site in SITES)
    assert set(run(threshold=4, gone_at=(), updates=only, sizes=sizes, ledgers=ledgers, number=2).result.groups) == {"fusion"}


def test_releases_are_the_rounds_that_an_update_left_in():
    ledger = OpenedSums()
    for number in (1, 2, 2):
        ledger.release("run", number, promise="p")
    kept = OpenedSums(ledger.document())
    assert (kept.promise("run"), kept.promise("other")) == ("p", None)
    assert (kept.releases("run", with_round=2), kept.releases("run", with_round=3), kept.releases("other", with_round=1)) == (2, 3, 1)
