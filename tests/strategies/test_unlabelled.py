import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gmmas_schema.federation import SemiSupervisedConfig, TrainingPlan
from gmmas_schema.messages import PseudoLabels, SiteDescription, SiteReport
from gmmas_schema.strategy import FedAvgStrategy, HoldersStrategy, PseudoTerms
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Modality, Region, Task
from strategies.holders import weigh_holders
from strategies.unlabelled import pseudo_terms

PLAN = TrainingPlan(semi_supervised=SemiSupervisedConfig(weight=0.5))
TARGETS = (*REGIONS, Task.IDH)

held = st.sets(st.sampled_from(MODALITIES), min_size=1).map(lambda found: tuple(m for m in MODALITIES if m in found))
counts = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(0, 200))
sites = st.lists(st.tuples(held, counts), min_size=1, max_size=7)
plans = st.sampled_from(["any", "regions"]).map(lambda backbone: PLAN.model_copy(update={"backbone": backbone}))
scales = st.sampled_from(["sqrt", "cases", "uniform"]).map(lambda weights: HoldersStrategy(weights=weights))


def described(modalities, segmented, idh, unlabelled):
    labelled = {Task.SEGMENTATION: segmented, Task.IDH: idh}
    cases = max(segmented, idh) + unlabelled
    return SiteDescription(site="s", model_digest="d", software="t", modalities=modalities, cases=cases, labelled=labelled)


def reported(site, accepted=1.0, quality=1.0):
    """Return the report of a site that took pseudo-labels for this share of what it may."""

    def ledger(task):
        offered = site.cases - site.labelled.get(task, 0)
        taken = int(accepted * offered)
        share = quality * taken / max(offered, 1)
        return PseudoLabels(offered=offered, accepted=taken, positive=taken, negative=0, share=share, agreement=1)

    pseudo = {target: ledger(Task.SEGMENTATION if isinstance(target, Region) else target) for target in TARGETS}
    cases, common = site.cases, {"site": "s", "run": "r", "round": 1, "model_digest": "d"}
    return SiteReport(**common, modalities=site.modalities, cases=cases, labelled=site.labelled, pseudo_labels=pseudo)


def parts(descriptions, plan, strategy, ramp, accepted=1.0, quality=1.0):
    """Return for each group the weight of all labels, and of all pseudo-labels on top of it."""
    terms = pseudo_terms(dict.fromkeys(TARGETS, ramp), plan, strategy, descriptions)
    own: dict[str, float] = {}
    total: dict[str, float] = {}
    for site in descriptions:
        for group, weight in weigh_holders(reported(site, 0.0), plan=plan, strategy=strategy).items():
            own[group] = own.get(group, 0.0) + weight
        for group, weight in weigh_holders(reported(site, accepted, quality), plan=plan, pseudo=terms, strategy=strategy).items():
            total[group] = total.get(group, 0.0) + weight
    return {group: (own.get(group, 0.0), total[group] - own.get(group, 0.0)) for group in total}


@given(sites, plans, scales, st.floats(0.01, 1), st.floats(0, 1), st.floats(0, 1))
def test_pseudo_labels_are_at_most_a_third_of_any_average(federation, plan, strategy, ramp, accepted, quality):
    descriptions = [described(modalities, *numbers) for modalities, numbers in federation]
    for group, (own, extra) in parts(descriptions, plan, strategy, ramp, accepted, quality).items():
        assert extra >= -1e-9, group
        assert own == 0 or extra <= (own + extra) / 3 + 1e-9, group


@given(sites, plans, scales)
def test_labels_weigh_what_they_weigh_without_pseudo_labels(federation, plan, strategy):
    descriptions = [described(modalities, *numbers) for modalities, numbers in federation]
    terms = pseudo_terms(dict.fromkeys(TARGETS, 1.0), plan, strategy, descriptions)
    for site in descriptions:
        alone = weigh_holders(reported(site, 0.0), plan=plan, strategy=strategy)
        assert weigh_holders(reported(site, 0.0), plan=plan, pseudo=terms, strategy=strategy) == alone


def test_many_small_hospitals_without_labels_do_not_outweigh_a_large_one_with_them():
    """Counts alone would let them: 100 drawn tumours against 50, but a square root of 10 against ten of 2.2."""
    federation = [described(MODALITIES, 100, 0, 0)] + [described(MODALITIES, 0, 0, 10)] * 10
    own, extra = parts(federation, PLAN, HoldersStrategy(), 1.0)["decoder"]
    assert (own, extra) == (pytest.approx(10), pytest.approx(5))


def test_the_limit_is_that_of_the_holders_of_a_sequence():
    without_t1ce = tuple(m for m in MODALITIES if m is not Modality.T1CE)
    federation = [described(without_t1ce, 100, 0, 0), described(MODALITIES, 4, 0, 0), described(MODALITIES, 0, 0, 100)]
    found = parts(federation, PLAN, HoldersStrategy(weights="cases"), 1.0)
    assert found["decoder"] == (104, 50)
    assert found["encoder.t1ce"] == (pytest.approx(4), pytest.approx(2))


def test_a_sequence_that_only_unlabelled_hospitals_hold_is_theirs():
    federation = [described((Modality.FLAIR,), 9, 0, 0), described((Modality.FLAIR, Modality.T1CE), 0, 0, 8)]
    assert parts(federation, PLAN, HoldersStrategy(), 1.0)["encoder.t1ce"] == (0, 2)


def test_nothing_counts_without_semi_supervision_and_the_baseline_has_no_terms():
    ready = {Region.WT: 1.0}
    site = described(MODALITIES, 4, 0, 4)
    assert pseudo_terms(ready, TrainingPlan(), HoldersStrategy(), [site]) == PseudoTerms()
    assert pseudo_terms(ready, PLAN, FedAvgStrategy(), [site]) == PseudoTerms()


@given(sites, st.floats(0.01, 1))
def test_a_case_with_a_pseudo_label_counts_its_ramped_weight(federation, ramp):
    descriptions = [described(modalities, *numbers) for modalities, numbers in federation]
    assume(any(site.cases for site in descriptions))
    assert pseudo_terms({Region.WT: ramp}, PLAN, HoldersStrategy(), descriptions).weights == {Region.WT: 0.5 * ramp}
