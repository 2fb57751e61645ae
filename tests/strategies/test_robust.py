import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_schema.errors import ProtocolError
from gmmas_schema.robustness import FixedClip, MedianClip, MedianRule, RobustnessConfig, TrimmedRule
from strategies import spool as spool_module
from strategies.aggregation import RunningMean
from strategies.norms import NormLimit
from strategies.robust import RobustAggregate
from strategies.spool import Spool

CURRENT = {
    "decoder.a": np.linspace(-1, 1, 30).astype(np.float32).reshape(5, 6),
    "encoders.t1.a": np.full(7, 0.5, np.float32),
    "fusion.a": np.zeros((2, 2), np.float32),
    "uncertainty.idh": np.array(0.25, np.float32),
}
WEIGHTS = {"decoder": 2.0, "encoder.t1": 1.0, "fusion": 3.0, "uncertainty.idh": 1.0}
ALL = tuple(CURRENT)


def reply(seed, names=ALL, scale=0.1):
    rng = np.random.default_rng(seed)
    drift = np.random.default_rng(99)
    moved = {
        name: (value + scale * (drift.standard_normal(value.shape) + rng.standard_normal(value.shape))) for name, value in CURRENT.items()
    }
    return {name: moved[name].astype(np.float32) for name in names}


@pytest.fixture
def aggregate(tmp_path):
    numbers = itertools.count()

    def make(replies, *, multiple=None, **options):
        made = RobustAggregate(
            CURRENT,
            config=RobustnessConfig(norm_limit=multiple, **options),
            spool=Spool(tmp_path / str(next(numbers))),
            limit=NormLimit(multiple=multiple),
        )
        for number, (site, tensors) in enumerate(replies.items()):
            made.fold(site, tensors, weights={group: weight + number for group, weight in WEIGHTS.items()} if site != "zero" else {})
        return made

    return make


def plain(replies):
    mean = RunningMean(CURRENT)
    for number, (site, tensors) in enumerate(replies.items()):
        mean.fold(site, tensors, weights={group: weight + number for group, weight in WEIGHTS.items()})
    return mean


def same(first, second):
    return {n: (v.shape, v.tobytes()) for n, v in first.items()} == {n: (v.shape, v.tobytes()) for n, v in second.items()}


def test_with_nobody_refused_it_is_the_plain_mean_to_the_last_bit(aggregate):
    replies = {site: reply(seed) for seed, site in enumerate("abcd")}
    made = aggregate(replies, multiple=10.0)
    assert made.settle().refused == {}
    assert same(made.result(), plain(replies).result())
    assert made.shares() == plain(replies).shares()


def test_a_refused_reply_leaves_no_trace(aggregate):
    replies = {site: reply(seed) for seed, site in enumerate("abcd")}
    bad = {"z": reply(9, scale=30.0)}
    made = aggregate(replies | bad, multiple=10.0)
    verdict = made.settle()
    assert set(verdict.refused) == {"z"}
    assert set(verdict.norms) == set("abcd")
    assert same(made.result(), plain(replies).result())
    assert set(made.shares()) == set("abcd")


@pytest.mark.parametrize("combine", [{}, {"combine": MedianRule()}, {"combine": TrimmedRule(share=0.3)}])
@pytest.mark.parametrize("options", [{}, {"multiple": 10.0}, {"clip": MedianClip(multiple=1.0)}, {"cosine_limit": -0.05}])
def test_the_order_of_arrival_and_the_size_of_blocks_do_not_change_a_bit(aggregate, monkeypatch, combine, options):
    sites = {site: reply(seed) for seed, site in enumerate("abcde")}
    sites["e"] = {name: 2 * CURRENT[name] - value for name, value in sites["e"].items()}
    sites["z"] = reply(7, scale=30.0)
    weights = {site: number + 1.0 for number, site in enumerate(sites)}
    outcomes = []
    for order, at_once in ((list(sites), 10**6), (list(sites)[::-1], 10**6), (["c", "z", "a", "e", "b", "d"], 5)):
        monkeypatch.setattr(spool_module, "VALUES_AT_ONCE", at_once)
        made = aggregate({}, **combine, **options)
        for site in order:
            made.fold(site, sites[site], weights=dict.fromkeys(WEIGHTS, weights[site]))
        verdict = made.settle()
        outcomes.append((made.result(), made.shares(), sorted(verdict.refused), verdict.clipped, verdict.norms))
    for other in outcomes[1:]:
        assert same(outcomes[0][0], other[0])
        assert outcomes[0][1:4] == other[1:4]
        assert outcomes[0][4] == other[4]
    # The cosine belongs to sums over a tensor, which blocks of another size add up otherwise; what is refused by it is the same.
    assert outcomes[0][2] == {"multiple": ["z"], "cosine_limit": ["e"]}.get(next(iter(options), ""), [])


def test_the_median_outvotes_whoever_is_loud(aggregate):
    replies = {site: reply(seed) for seed, site in enumerate("abc")}
    made = aggregate(replies | {"y": reply(8, scale=1e6), "zero": reply(9, scale=1e6)}, combine=MedianRule())
    made.settle()
    values = np.stack([tensors["decoder.a"] for tensors in replies.values()] + [reply(8, scale=1e6)["decoder.a"]])
    np.testing.assert_array_equal(made.result()["decoder.a"], np.median(values, axis=0).astype(np.float32))
    assert made.shares()["a"]["decoder"] == 0.25


def test_only_holders_vote_and_too_few_are_averaged_with_the_reason(aggregate):
    replies = {site: reply(seed, ("fusion.a",)) for seed, site in enumerate("abc")} | {"d": reply(5), "e": reply(6)}
    made = aggregate(replies, combine=TrimmedRule(share=0.2))
    verdict = made.settle()
    result = made.result()
    trimmed = np.sort(np.stack([tensors["fusion.a"] for tensors in replies.values()]), axis=0)[1:-1]
    assert (result["fusion.a"] >= trimmed[0]).all()
    assert (result["fusion.a"] <= trimmed[-1]).all()
    assert set(verdict.combined) == {"decoder", "encoder.t1", "uncertainty.idh"}
    assert "2 holders" in verdict.combined["decoder"]
    for name in ("decoder.a", "encoders.t1.a", "uncertainty.idh"):
        assert result[name].tobytes() == plain(replies).result()[name].tobytes()


@pytest.mark.parametrize("combine", [{}, {"combine": MedianRule()}])
def test_what_nobody_sends_is_unchanged_bit_for_bit(aggregate, combine):
    made = aggregate({site: reply(seed, ("fusion.a",)) for seed, site in enumerate("abc")}, **combine)
    made.settle()
    for name, value in made.result().items():
        assert (value is CURRENT[name]) == (name != "fusion.a")


@settings(max_examples=20)
@given(scale=st.floats(0.01, 10.0))
def test_clipped_updates_are_as_long_as_allowed_and_keep_their_way(tmp_path_factory, scale):
    replies = {"a": reply(1, scale=0.01), "b": reply(2, scale=scale)}
    made = RobustAggregate(
        CURRENT,
        config=RobustnessConfig(norm_limit=None, clip=FixedClip(norm=0.5)),
        spool=Spool(tmp_path_factory.mktemp("clip")),
        limit=NormLimit(None),
    )
    made.fold("b", replies["b"], weights=WEIGHTS)
    factors = made.settle().clipped.get("b", {})
    for group, name in (("decoder", "decoder.a"), ("encoder.t1", "encoders.t1.a")):
        change = replies["b"][name].astype(float) - CURRENT[name]
        joint = made.result()[name].astype(float) - CURRENT[name]
        assert np.linalg.norm(joint) <= 0.5 + 1e-5
        assert (group in factors) == (np.linalg.norm(change) > 0.5)
        np.testing.assert_allclose(joint, change * factors.get(group, 1.0), atol=1e-6)


def test_a_second_reply_of_a_site_and_values_without_end_are_refused(aggregate):
    for combine in ({}, {"combine": MedianRule()}):
        made = aggregate({"a": reply(1)}, **combine)
        with pytest.raises(ProtocolError):
            made.fold("a", reply(1), weights=WEIGHTS)
        with pytest.raises(ProtocolError, match="too large"):
            made.fold("b", reply(1, scale=1e30), weights=WEIGHTS)
        assert set(made.settle().norms) == {"a"}


def test_the_spool_is_gone_afterwards(aggregate, tmp_path):
    made = aggregate({"a": reply(1)})
    assert list((tmp_path / "0").iterdir())
    made.close()
    assert not (tmp_path / "0").exists()
