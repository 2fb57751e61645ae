import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_schema.errors import ProtocolError
from gmmas_schema.groups import group_of
from gmmas_schema.privacy import PrivacyConfig
from strategies.noise import NoiseSource
from strategies.norms import NormLimit
from strategies.privacy import PrivateSum, clip_update, weighted_update

CURRENT = {
    "decoder.a": np.linspace(-1, 1, 12).astype(np.float32).reshape(3, 4),
    "encoders.t1.a": np.full(5, 0.5, np.float32),
    "encoders.t1ce.a": np.zeros(5, np.float32),
    "heads.idh.a": np.full(3, -2, np.float32),
    "uncertainty.idh": np.array(0.25, np.float32),
}
GROUPS = tuple(dict.fromkeys(map(group_of, CURRENT)))
KEY = bytes(32)


def config(**changes):
    return PrivacyConfig(**{"clip_norm": 0.7, "noise_multiplier": 1.0, "epsilon": 8.0, "full_weight": 4.0} | changes)


def make(replies, *, released=GROUPS, sites=4, multiple=None, **changes):
    """Return the aggregate of {site: (tensors, weights)}, with the same noise every time."""
    limit = NormLimit(multiple, reach=dict.fromkeys(GROUPS, 0.1))
    made = PrivateSum(CURRENT, config=config(**changes), released=released, sites=sites, limit=limit, noise=NoiseSource(KEY))
    for site, (tensors, weights) in replies.items():
        made.fold(site, tensors, weights=weights)
    return made


held = st.sets(st.sampled_from(GROUPS), min_size=1)
changes = st.floats(-1e6, 1e6, width=32) | st.floats(-(2.0**-10), 2.0**-10, width=32)


@st.composite
def contributions(draw):
    groups = draw(held)
    scale = draw(changes)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    names = [name for name in CURRENT if group_of(name) in groups]
    tensors = {name: (CURRENT[name] + scale * rng.standard_normal(CURRENT[name].shape)).astype(np.float32) for name in names}
    return tensors, {group: draw(st.floats(1e-3, 50)) for group in groups}


def distance(first, second):
    return math.sqrt(sum(float(np.sum((first[name].astype(float) - second[name]) ** 2)) for name in first))


@settings(max_examples=150)
@given(st.lists(contributions(), min_size=1, max_size=4), contributions(), st.integers(1, 5))
def test_one_site_moves_the_sum_by_at_most_the_clip_whatever_it_holds_and_sends(others, own, sites):
    """With the same noise, what is left of the difference of two neighbouring releases is the site's part of the sum."""
    replies = {f"s{i}": reply for i, reply in enumerate(others)}
    # Precision of the release is float32, so the noise is kept small here.
    options = {"sites": sites, "noise_multiplier": 1e-6}
    with_it, without = make(replies | {"z": own}, **options).result(), make(replies, **options).result()
    assert sites * distance(with_it, without) <= 0.7 * (1 + 1e-4)


@given(contributions())
def test_a_clipped_update_is_never_longer_than_the_clip(own):
    tensors, weights = own
    update = weighted_update(tensors, CURRENT, weights)
    clipped = clip_update(update, clip_norm=0.7)
    zero = {name: np.zeros_like(value) for name, value in update.items()}
    before, after = distance(update, zero), distance(clipped, zero)
    assert after <= 0.7
    assert after == pytest.approx(min(before, 0.7), rel=1e-5)


def test_an_update_within_the_clip_is_a_mean_over_the_fixed_number_of_sites():
    step = {name: (value + np.float32(0.01)).astype(np.float32) for name, value in CURRENT.items()}
    full = dict.fromkeys(GROUPS, 9.0)
    made = make({"a": (step, full), "b": (step, dict.fromkeys(GROUPS, 1.0))}, noise_multiplier=1e-9)
    for name, value in made.result().items():
        np.testing.assert_allclose(value - CURRENT[name], 0.01 * (1 + 0.25) / 4, rtol=1e-3)
    assert made.shares() == {"a": dict.fromkeys(GROUPS, 0.25), "b": dict.fromkeys(GROUPS, 0.0625)}
    own = make({"a": (step, full)}, noise_multiplier=1e-9, holders={"encoder.t1ce": 1}).result()
    np.testing.assert_allclose(own["encoders.t1ce.a"], 0.01, rtol=1e-3)


def test_what_a_member_could_send_gets_noise_and_nothing_else_is_touched():
    result = make({}, released=("decoder", "uncertainty.idh")).result()
    for name, value in result.items():
        assert (value is CURRENT[name]) == (group_of(name) not in {"decoder", "uncertainty.idh"})
    assert (result["decoder.a"] != CURRENT["decoder.a"]).all()


def test_the_noise_has_the_size_that_is_accounted_for_and_is_drawn_once():
    current = {"decoder.a": np.zeros(40_000, np.float32)}
    made = PrivateSum(current, config=config(noise_multiplier=2.5), released=("decoder",), sites=4, limit=NormLimit(None))
    noise = made.result()["decoder.a"].astype(float)
    assert noise.std() == pytest.approx(2.5 * 0.7 / 4, rel=0.02)
    assert abs(noise.mean()) < 0.02
    assert made.result()["decoder.a"] is made.result()["decoder.a"]


def test_the_order_of_arrival_does_not_change_a_bit():
    rng = np.random.default_rng(1)
    replies = {
        site: ({name: (v + rng.standard_normal(v.shape)).astype(np.float32) for name, v in CURRENT.items()}, dict.fromkeys(GROUPS, 3.0))
        for site in "abcd"
    }
    first, second = make(replies).result(), make(dict(reversed(replies.items()))).result()
    assert all(first[name].tobytes() == second[name].tobytes() for name in CURRENT)


def test_a_site_is_judged_by_its_own_update_only():
    far = {"decoder.a": CURRENT["decoder.a"] + np.float32(5)}
    near = {"decoder.a": CURRENT["decoder.a"] + np.float32(0.001)}
    with pytest.raises(ProtocolError, match="decoder"):
        make({"z": (far, {"decoder": 1.0})}, multiple=10.0)
    crowd = {f"s{i}": (near, {"decoder": 1.0}) for i in range(5)}
    make(crowd | {"z": ({"decoder.a": CURRENT["decoder.a"] + np.float32(0.1)}, {"decoder": 1.0})}, multiple=10.0)


def test_values_without_a_length_are_refused():
    opposite = np.where(CURRENT["decoder.a"] > 0, -3.4e38, 3.4e38).astype(np.float32)
    huge = {"decoder.a": CURRENT["decoder.a"] * np.float32(3e38)}
    update = weighted_update({"decoder.a": opposite}, huge, {"decoder": 1.0})
    with pytest.raises(ProtocolError, match="length"):
        clip_update(update, clip_norm=1.0)
