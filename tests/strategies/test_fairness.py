import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_schema.messages import SiteReport
from gmmas_schema.strategy import HoldersStrategy
from gmmas_schema.vocabulary import MODALITIES, TASKS, Task
from strategies.fairness import LARGEST_RATIO, fairness_factor
from strategies.holders import weigh_holders

losses = st.dictionaries(st.sampled_from(TASKS), st.floats(-1, 1e6))
labelled = st.dictionaries(st.sampled_from(TASKS), st.integers(0, 50))
BY_CHANCE = math.exp(-1.5)


def report(labelled, losses):
    return SiteReport(site="s", run="r", round=1, model_digest="d", modalities=MODALITIES, cases=50, labelled=labelled, losses=losses)


@given(labelled, losses, st.sampled_from(["sqrt", "cases", "uniform"]))
def test_q_0_is_the_holders_weighting_to_the_last_bit(labelled, losses, weights):
    plain = weigh_holders(report(labelled, {}), strategy=HoldersStrategy(weights=weights))
    assert weigh_holders(report(labelled, losses), strategy=HoldersStrategy(weights=weights, fairness=0)) == plain


@given(labelled, losses, st.floats(0, 5))
def test_weights_stay_positive_and_finite_whatever_a_site_claims(labelled, losses, q):
    found = weigh_holders(report(labelled, losses), strategy=HoldersStrategy(fairness=q))
    assert set(found) == set(weigh_holders(report(labelled, {})))
    assert all(0 < weight < math.inf for weight in found.values())


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0])
def test_two_sites_weigh_as_their_losses_to_the_power_q(q):
    count = {Task.SEGMENTATION: 16, Task.IDH: 9}
    easy = weigh_holders(report(count, {Task.SEGMENTATION: 0.4, Task.IDH: 0.1}), strategy=HoldersStrategy(fairness=q))
    hard = weigh_holders(report(count, {Task.SEGMENTATION: 0.8, Task.IDH: 0.3}), strategy=HoldersStrategy(fairness=q))
    for group in ("decoder", "head.segmentation.et", "uncertainty.segmentation", "encoder.t1", "fusion", "adapter"):
        assert hard[group] / easy[group] == pytest.approx(2**q)
    assert hard["head.idh"] / easy["head.idh"] == pytest.approx(3**q)
    assert hard["anchors"] == easy["anchors"] == 1


def test_what_several_tasks_share_goes_by_the_one_with_most_cases_relative_to_chance():
    strategy = HoldersStrategy(fairness=1)
    molecular = weigh_holders(report({Task.IDH: 16}, {Task.IDH: 2 * BY_CHANCE}), strategy=strategy)
    segmenting = weigh_holders(report({Task.SEGMENTATION: 16, Task.IDH: 4}, {Task.SEGMENTATION: 2.0, Task.IDH: 9.0}), strategy=strategy)
    assert molecular["encoder.t1"] == pytest.approx(segmenting["encoder.t1"])


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0, 5.0])
def test_whatever_q_is_a_claim_weighs_no_more_than_the_bound(q):
    """5 is the most that a configuration allows; unbounded, a claim would weigh 20^5 times chance, and 400^5 times an honest good fit."""
    count = {Task.SEGMENTATION: 16}
    liar, honest, plain = (
        weigh_holders(report(count, losses), strategy=HoldersStrategy(fairness=q))["decoder"]
        for losses in ({Task.SEGMENTATION: 1e30}, {Task.SEGMENTATION: 0.0}, {})
    )
    assert liar / plain <= LARGEST_RATIO
    assert liar / honest <= LARGEST_RATIO**2
    assert fairness_factor(report({}, {Task.IDH: 1e30}), Task.IDH, q=q) == min(LARGEST_RATIO, LARGEST_RATIO**q)


def test_a_claimed_loss_is_cut_and_none_counts_as_chance():
    assert fairness_factor(report({}, {Task.IDH: 1e30}), Task.IDH, q=1) == LARGEST_RATIO
    assert fairness_factor(report({}, {Task.IDH: -1.0}), Task.IDH, q=1) == 1 / LARGEST_RATIO
    assert fairness_factor(report({}, {}), Task.IDH, q=2) == 1
