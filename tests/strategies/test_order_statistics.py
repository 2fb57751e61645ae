import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gmmas_schema.robustness import MeanRule, MedianRule, TrimmedRule
from strategies.order_statistics import choose_combining, median, trimmed_mean

values = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
blocks = st.integers(3, 7).flatmap(lambda sites: hnp.arrays(np.float32, (sites, 4), elements=values))


@given(blocks, st.data())
def test_few_bad_sites_cannot_leave_the_honest_range(block_SN, data):
    sites = len(block_SN)
    bad = data.draw(st.integers(0, (sites - 1) // 2))
    rows = data.draw(st.permutations(range(sites)))
    attacked = block_SN.copy()
    attacked[rows[:bad]] = data.draw(hnp.arrays(np.float32, (bad, 4), elements=st.sampled_from([-3e38, 3e38, 1e6, 0.0])))
    weights_S = data.draw(hnp.arrays(np.float64, sites, elements=st.floats(1e-3, 1e3)))
    honest = attacked[rows[bad:]]
    for joint in (median(attacked), trimmed_mean(attacked, weights_S, drop=bad)) if bad else ():
        assert (joint >= honest.min(axis=0)).all()
        assert (joint <= honest.max(axis=0)).all()


@given(blocks, hnp.arrays(np.float64, 7, elements=st.floats(1e-3, 1e3)))
def test_trimming_nothing_is_the_weighted_mean(block_SN, weights):
    weights_S = weights[: len(block_SN)]
    expected = np.average(block_SN.astype(np.float64), axis=0, weights=weights_S)
    np.testing.assert_allclose(trimmed_mean(block_SN, weights_S, drop=0), expected, rtol=1e-5, atol=1e-2)


def test_each_coordinate_drops_its_own_extremes_and_the_rest_keep_their_weights():
    block_SN = np.array([[0, 9], [1, 1], [2, 2], [99, -99]], np.float32)
    np.testing.assert_allclose(trimmed_mean(block_SN, np.array([1.0, 1, 3, 1]), drop=1), [1.75, 1.75])
    np.testing.assert_allclose(median(block_SN), [1.5, 1.5])


@pytest.mark.parametrize(
    ("rule", "holders", "kind", "drop", "named"),
    [
        (MeanRule(), 1, "mean", 0, ""),
        (MedianRule(), 5, "median", 0, ""),
        (MedianRule(), 2, "mean", 0, "median needs 3"),
        (TrimmedRule(share=0.2), 5, "trimmed", 1, ""),
        (TrimmedRule(share=0.2), 6, "trimmed", 2, ""),
        (TrimmedRule(share=0.1), 3, "trimmed", 1, ""),
        (TrimmedRule(share=0.4), 3, "trimmed", 1, "2 at either end"),
        (TrimmedRule(share=0.4), 1, "mean", 0, "1 holder, trimmed needs 3"),
    ],
)
def test_the_rule_fits_the_number_of_holders_or_says_why_not(rule, holders, kind, drop, named):
    found = choose_combining(rule, holders=holders)
    assert (found.kind, found.drop) == (kind, drop)
    assert named in found.reason
    assert bool(found.reason) == bool(named)
