from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.messages import SiteReport
from gmmas_schema.vocabulary import MODALITIES, TASKS
from strategies.aggregation import BLOCK, PRODUCT_LIMIT, RunningMean
from strategies.exchange import names_up
from strategies.holders import weigh_holders

values = st.floats(-1e4, 1e4, width=32, allow_subnormal=True)
weights = st.floats(1e-3, 1e4)
replies = st.lists(st.tuples(hnp.arrays(np.float32, 5, elements=values), weights), min_size=1, max_size=6)


def mean_of(pairs):
    mean = RunningMean({"fusion.a": np.zeros(5, np.float32)})
    for site, (value, weight) in pairs:
        mean.fold(site, {"fusion.a": value}, weights={"fusion": weight})
    return mean.result()["fusion.a"]


@given(replies, st.randoms())
def test_the_order_of_arrival_does_not_change_a_bit(pairs, random):
    named = [(f"site{i}", pair) for i, pair in enumerate(pairs)]
    shuffled = random.sample(named, len(named))
    assert mean_of(named).tobytes() == mean_of(shuffled).tobytes()


@given(replies)
@example([(np.full(5, 1e-30, np.float32), 1.0), (np.full(5, 1e4, np.float32), 1e4), (np.full(5, -1e4, np.float32), 1e4)])
def test_the_mean_is_the_exact_one_to_float32(pairs):
    got = mean_of([(f"site{i}", pair) for i, pair in enumerate(pairs)])
    total = sum(Fraction(weight) for _, weight in pairs)
    for index in range(5):
        exact = sum(Fraction(float(value[index])) * Fraction(weight) for value, weight in pairs) / total
        # Each product is off by less than 2^-53 on its grid, and by float64 rounding; then one float32 rounding.
        slack = Fraction(len(pairs)) * (Fraction(2) ** -52 + Fraction(2) ** -52 * 10**8) / total
        assert abs(Fraction(float(got[index])) - exact) <= slack + abs(exact) * Fraction(2) ** -23


@given(hnp.arrays(np.float32, 5, elements=st.floats(-1e4, 1e4, width=32)), st.lists(weights, min_size=1, max_size=5))
def test_sites_that_agree_are_left_as_they_are(value, shares):
    value[np.abs(value) < 1e-6] = 0.0
    got = mean_of([(f"site{i}", (value, weight)) for i, weight in enumerate(shares)])
    np.testing.assert_array_max_ulp(got, value, maxulp=1)


def model():
    rng = np.random.default_rng(1)
    names = [f"encoders.{m}.w" for m in MODALITIES] + ["fusion.w", "decoder.w"] + [f"heads.{t}.w" for t in TASKS] + ["uncertainty.idh"]
    tensors = {name: rng.standard_normal((2, 3)).astype(np.float32) for name in names}
    return tensors | {"uncertainty.idh": np.array(-0.0, np.float32)}


def test_what_nobody_sends_is_unchanged_bit_for_bit():
    current = model()
    mean = RunningMean(current)
    mean.fold("a", {"fusion.w": np.ones((2, 3), np.float32)}, weights={"fusion": 2.0})
    following = mean.result()
    assert list(following) == list(current)
    for name, value in current.items():
        assert (following[name].tobytes() == value.tobytes()) == (name != "fusion.w")
        assert following[name].dtype == np.float32
        assert following[name].shape == value.shape


def test_a_mean_of_no_replies_is_the_model_itself():
    current = model()
    assert all(RunningMean(current).result()[name] is value for name, value in current.items())


@given(
    st.lists(
        st.tuples(
            st.sets(st.sampled_from(MODALITIES), min_size=1),
            st.fixed_dictionaries({task: st.integers(0, 50) for task in TASKS}),
            st.integers(0, 2**31),
        ),
        max_size=4,
    ),
    st.sampled_from(TASKS),
    st.sampled_from(MODALITIES),
)
def test_a_site_without_a_label_or_a_sequence_has_no_influence_on_what_rests_on_it(sites, task, modality):
    """Folding in the sites that lack it changes nothing, not even the last bit."""

    def aggregate(kept):
        mean = RunningMean(model())
        for index, (modalities, labelled, seed) in kept:
            ordered = tuple(m for m in MODALITIES if m in modalities)
            report = SiteReport(site="s", run="r", round=1, model_digest="d", modalities=ordered, cases=50, labelled=labelled)
            rng = np.random.default_rng(seed)
            trained = {name: rng.standard_normal(value.shape).astype(np.float32) for name, value in model().items()}
            names = names_up(trained, modalities=ordered, labelled=labelled)
            mean.fold(f"site{index}", {name: trained[name] for name in names}, weights=weigh_holders(report))
        return mean.result()

    everyone = list(enumerate(sites))
    head, encoder = f"heads.{task}.w", f"encoders.{modality}.w"
    with_label = [entry for entry in everyone if entry[1][1][task] > 0]
    with_sequence = [entry for entry in everyone if modality in entry[1][0]]
    assert aggregate(everyone)[head].tobytes() == aggregate(with_label)[head].tobytes()
    assert aggregate(everyone)[encoder].tobytes() == aggregate(with_sequence)[encoder].tobytes()


def test_zero_weight_is_no_influence():
    current = model()
    mean = RunningMean(current)
    mean.fold("a", {"heads.idh.w": np.full((2, 3), 9, np.float32)}, weights={"head.idh": 0.0, "fusion": 1.0})
    assert mean.result()["heads.idh.w"] is current["heads.idh.w"]
    assert mean.shares() == {}


def test_shares_are_each_groups_own():
    mean = RunningMean(model())
    one = np.ones((2, 3), np.float32)
    mean.fold("a", {"fusion.w": one, "heads.idh.w": one}, weights={"fusion": 3.0, "head.idh": 1.0})
    mean.fold("b", {"fusion.w": one}, weights={"fusion": 1.0})
    assert mean.shares() == {"a": {"fusion": 0.75, "head.idh": 1.0}, "b": {"fusion": 0.25}}


def test_tensors_longer_than_a_block_are_averaged_whole():
    size = 2 * BLOCK + 7
    rng = np.random.default_rng(0)
    first, second = (rng.standard_normal(size).astype(np.float32) for _ in range(2))
    mean = RunningMean({"fusion.w": np.zeros(size, np.float32)})
    mean.fold("a", {"fusion.w": first}, weights={"fusion": 1.0})
    mean.fold("b", {"fusion.w": second}, weights={"fusion": 3.0})
    expected = (first.astype(np.float64) + 3.0 * second.astype(np.float64)) / 4
    np.testing.assert_array_max_ulp(mean.result()["fusion.w"], expected.astype(np.float32), maxulp=1)


def test_a_second_reply_of_a_site_is_refused():
    mean = RunningMean(model())
    one = {"fusion.w": np.ones((2, 3), np.float32)}
    mean.fold("a", one, weights={"fusion": 1.0})
    with pytest.raises(ProtocolError) as caught:
        mean.fold("a", one, weights={"fusion": 1.0})
    assert caught.value.code is ReasonCode.REPLY_REFUSED


@pytest.mark.parametrize("value", [PRODUCT_LIMIT * 1.01, -np.inf, np.nan])
def test_values_too_large_to_add_exactly_are_refused_before_anything_is_added(value):
    mean = RunningMean(model())
    bad = {"decoder.w": np.ones((2, 3), np.float32), "fusion.w": np.array([[0, 0, 0], [0, value, 0]], np.float32)}
    with pytest.raises(ProtocolError) as caught:
        mean.fold("a", bad, weights={"fusion": 1.0, "decoder": 1.0})
    assert caught.value.code is ReasonCode.REPLY_REFUSED
    assert mean.shares() == {}
    mean.fold("a", {"fusion.w": np.ones((2, 3), np.float32)}, weights={"fusion": 1.0})


@given(replies.filter(lambda pairs: len(pairs) > 1), st.randoms())
def test_a_reply_that_is_taken_out_again_leaves_no_bit_behind(pairs, random):
    named = [(f"site{i}", pair) for i, pair in enumerate(pairs)]
    out, *kept = random.sample(named, len(named))
    mean = RunningMean({"fusion.a": np.zeros(5, np.float32)})
    for site, (value, weight) in named:
        mean.fold(site, {"fusion.a": value}, weights={"fusion": weight})
    mean.withdraw(out[0], {"fusion.a": out[1][0]})
    assert mean.result()["fusion.a"].tobytes() == mean_of(kept).tobytes()
    assert set(mean.shares()) == {site for site, _ in kept}


def test_the_last_reply_taken_out_leaves_the_model_itself():
    current = model()
    mean = RunningMean(current)
    sent = {"fusion.w": np.ones((2, 3), np.float32)}
    mean.fold("a", sent, weights={"fusion": 2.0})
    mean.withdraw("a", sent)
    assert all(mean.result()[name] is value for name, value in current.items())
    assert mean.shares() == {}
