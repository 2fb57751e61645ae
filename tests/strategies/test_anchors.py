import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_schema.groups import MIN_ANCHOR_PATIENTS
from strategies.aggregation import RunningMean
from strategies.anchors import COUNTS, DECAY, SUMS, counts_fit, settle_anchors

K, P, C = 4, 2, 3


def anchors(count, prototype=0.0):
    counts = np.full((K, P), count, np.float32)
    return {SUMS: np.full((K, P, C), prototype * count, np.float32), COUNTS: counts}


def merge(current, *sites):
    mean = RunningMean(current)
    for number, site in enumerate(sites):
        mean.fold(str(number), site, weights={"anchors": 1.0})
    return settle_anchors(mean=mean.result(), current=current, sites=len(sites))


def prototypes(tensors):
    return tensors[SUMS] / tensors[COUNTS][..., None]


def test_the_first_prototypes_are_the_mean_over_all_patients():
    merged = merge(anchors(0), anchors(6, prototype=1.0), anchors(18, prototype=3.0))
    np.testing.assert_allclose(prototypes(merged), 2.5)
    np.testing.assert_array_equal(merged[COUNTS], 24)


def test_known_prototypes_move_slowly():
    merged = merge(anchors(10, prototype=1.0), anchors(8, prototype=2.0))
    np.testing.assert_allclose(prototypes(merged), DECAY * 1 + (1 - DECAY) * 2)


@pytest.mark.parametrize("others", range(12))
def test_just_enough_patients_are_enough_however_many_sites_have_none(others):
    merged = merge(anchors(0), anchors(MIN_ANCHOR_PATIENTS, prototype=2.0), *[anchors(0)] * others)
    np.testing.assert_array_equal(merged[COUNTS], MIN_ANCHOR_PATIENTS)
    np.testing.assert_allclose(prototypes(merged), 2.0, rtol=1e-6)


@pytest.mark.parametrize(("count", "fits"), [(0, True), (6, True), (6.5, False), (-1, False), (7, False)])
def test_anchors_of_patients_that_a_site_cannot_have_do_not_fit(count, fits):
    assert counts_fit(anchors(count), patients=12) is fits
    assert counts_fit({}, patients=0)


def test_too_few_patients_leave_a_prototype_as_it_was():
    merged = merge(anchors(10, prototype=1.0), anchors(MIN_ANCHOR_PATIENTS - 1, prototype=9.0))
    np.testing.assert_allclose(prototypes(merged), 1)
    np.testing.assert_array_equal(merged[COUNTS], 10)


def test_a_network_without_anchors_or_a_round_without_complete_sites_has_nothing_to_settle():
    assert settle_anchors(mean={}, current={}, sites=3) == {}
    assert merge(anchors(10, prototype=1.0)) == {}


@given(st.lists(st.tuples(st.integers(0, 40), st.floats(-5, 5, width=32)), min_size=1, max_size=6))
def test_hospitals_merge_as_if_their_patients_were_in_one_place(sites):
    merged = merge(anchors(0), *(anchors(count, prototype=value) for count, value in sites))
    total = sum(count for count, _ in sites)
    if total < MIN_ANCHOR_PATIENTS:
        assert not merged[COUNTS].any()
    else:
        expected = sum(count * value for count, value in sites) / total
        np.testing.assert_allclose(prototypes(merged), expected, rtol=1e-4, atol=1e-4)
        assert merged[COUNTS][0, 0] == pytest.approx(total)
