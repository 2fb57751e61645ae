import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_schema.errors import ReasonCode
from strategies.norms import HISTORY_ROUNDS, REACH_SLACK, NormLimit, group_reach, update_norms

REFERENCE = {
    "fusion.a": np.full((2, 3), 5, np.float32),
    "fusion.b": np.zeros(70_000, np.float32),
    "uncertainty.idh": np.array(1, np.float32),
    "anchors.sums_KPC": np.zeros((2, 2, 4), np.float32),
    "anchors.counts_KP": np.zeros((2, 2), np.float32),
}


def test_norms_are_of_the_change_over_all_tensors_of_a_group():
    rng = np.random.default_rng(0)
    tensors = {name: value + rng.standard_normal(value.shape).astype(np.float32) for name, value in REFERENCE.items()}
    norms = update_norms({name: tensors[name] for name in ("fusion.a", "fusion.b", "uncertainty.idh")}, REFERENCE)
    change = np.concatenate([(tensors[name].astype(float) - REFERENCE[name]).ravel() for name in ("fusion.a", "fusion.b")])
    assert norms["fusion"] == pytest.approx(np.linalg.norm(change), rel=1e-12)
    assert norms["uncertainty.idh"] == pytest.approx(abs(float(tensors["uncertainty.idh"]) - 1))


def test_anchors_are_measured_by_their_longest_mean():
    """A hospital with many patients is no attack, nor is one with one class only."""

    def anchors(patients):
        counts = np.full((2, 2), patients, np.float32)
        return {"anchors.sums_KPC": np.full((2, 2, 4), 3.0 * patients, np.float32), "anchors.counts_KP": counts}

    few, many = anchors(5), anchors(500)
    one = {name: value * np.array([1.0, 0.0], np.float32).reshape(2, *[1] * (value.ndim - 1)) for name, value in few.items()}
    assert update_norms(few, REFERENCE)["anchors"] == pytest.approx(6.0)
    assert update_norms(many, REFERENCE) == update_norms(one, REFERENCE) == update_norms(few, REFERENCE)
    one["anchors.sums_KPC"][1, 1] = 100.0
    assert update_norms(one, REFERENCE)["anchors"] == pytest.approx(200.0), "sums of nobody count whole"


def test_reach_is_the_way_of_all_steps_in_all_values():
    reach = group_reach(REFERENCE, way=0.1)
    assert reach == {"fusion": pytest.approx(0.1 * math.sqrt(70_006)), "anchors": 0.0, "uncertainty.idh": pytest.approx(0.1)}


def refused(norms, **options):
    return NormLimit(**{"multiple": 10.0} | options).refusals({site: {"fusion": norm} for site, norm in norms.items()})


def test_too_long_for_the_median_is_refused_by_name():
    (error,) = refused({"a": 1.0, "b": 2.0, "c": 1.5, "z": 18.0}).values()
    assert error.code is ReasonCode.REPLY_REFUSED
    assert "fusion" in error.what
    assert error.where == "site z"
    assert error.expected == "at most 17.5 (the median is 1.75)"
    assert refused({"a": 1.0, "b": 2.0, "c": 1.5, "z": 17.0}) == {}


@given(st.lists(st.floats(0, 0.3 * REACH_SLACK), min_size=1, max_size=6), st.lists(st.floats(0, 9), max_size=3))
def test_nobody_within_reach_is_refused_whatever_the_others_do(honest, others):
    norms = {f"h{i}": norm for i, norm in enumerate(honest)} | {f"o{i}": norm for i, norm in enumerate(others)}
    assert not set(refused(norms, reach={"fusion": 0.3})) & {f"h{i}" for i in range(len(honest))}


def test_two_holders_are_compared_with_the_rounds_before():
    history = [{"a": {"fusion": 1.0}, "b": {"fusion": 1.2}}]
    assert set(refused({"a": 1.0, "b": 30.0}, history=history)) == {"b"}
    assert refused({"a": 1.0, "b": 10.0}, history=history) == {}
    stale = [{"a": {"fusion": 1e-6}}] + [{"a": {"fusion": 5.0}}] * HISTORY_ROUNDS
    assert refused({"a": 40.0}, history=stale) == {}


def test_without_anything_to_compare_with_the_reach_is_the_measure():
    assert refused({"a": 2.9}, reach={"fusion": 0.3}) == {}
    assert set(refused({"a": 3.1}, reach={"fusion": 0.3})) == {"a"}
    assert refused({"a": 1e9}, reach={"fusion": 0.0}) == {}


def test_no_limit_refuses_nothing():
    assert refused({"a": 1, "b": 1, "c": 1, "z": 1e30}, multiple=None) == {}
