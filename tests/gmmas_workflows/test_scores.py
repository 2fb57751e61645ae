import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.vocabulary import Region, Split, Task
from gmmas_workflows.scores import ModelScore, choose_best, has_stalled, score_model, score_of


def evaluation(*, wt=None, n=0, idh=None, idh_n=0, cases=4, loss=None):
    return Evaluation(
        split=Split.VALIDATION,
        cases=cases,
        dice={Region.WT: Interval(value=wt, n=n)},
        auc={Task.IDH: Interval(value=idh, n=idh_n)},
        loss={} if loss is None else {Task.IDH: loss},
    )


def score(sites):
    return score_model(sites, model_round=2, split=Split.VALIDATION)


def test_metrics_are_means_over_patients():
    got = score({"a": evaluation(wt=0.8, n=3, loss=1.0, cases=3), "b": evaluation(wt=0.4, n=1, idh=0.7, idh_n=5, loss=2.0, cases=1)})
    assert got.metrics == pytest.approx({"dice_wt": 0.7, "auc_idh": 0.7, "loss_idh": 1.25})
    assert got.score == pytest.approx(0.7)
    assert list(got.sites) == ["a", "b"]


def test_without_segmentations_the_score_is_the_auc():
    assert score({"a": evaluation(idh=0.9, idh_n=3)}).score == 0.9


def measured(*, wt, tc, et, visible_et, model_round=1, visible=(Region.WT, Region.TC, Region.ET), n=20):
    """Half of the patients have no enhancing tumour; all have the others."""
    dice = {Region.WT: wt, Region.TC: tc, Region.ET: et}
    seen = {Region.WT: wt, Region.TC: tc, Region.ET: visible_et}
    told = Evaluation(
        split=Split.VALIDATION,
        cases=n,
        dice={region: Interval(value=value, n=n) for region, value in dice.items()},
        visible_dice={region: Interval(value=seen[region], n=n // 2 if region is Region.ET else n) for region in visible},
    )
    return score_model({"a": told}, model_round=model_round, split=Split.VALIDATION)


def test_a_network_blind_to_enhancement_is_not_chosen_before_one_that_finds_it():
    """The blind one has .5 over all patients, the other none of them where it draws specks in patients without enhancement."""
    blind = measured(wt=0.8, tc=0.7, et=0.5, visible_et=0.0, model_round=1)
    finds = measured(wt=0.8, tc=0.7, et=0.35, visible_et=0.7, model_round=2)
    assert blind.score == pytest.approx((0.8 + 0.7 + 0.25) / 3)
    assert finds.score == pytest.approx((0.8 + 0.7 + 0.525) / 3)
    assert choose_best([blind, finds], fallback=9) == 2
    assert not has_stalled([blind, finds], patience=1, min_delta=0.001)


def test_specks_of_enhancement_in_patients_without_any_still_cost():
    clean, specks = (measured(wt=0.8, tc=0.7, et=et, visible_et=0.7) for et in (0.85, 0.35))
    assert clean.score > specks.score


def test_a_region_whose_visible_dice_is_not_told_counts_by_its_dice():
    assert measured(wt=0.8, tc=0.7, et=0.6, visible_et=0.2, visible=(Region.WT, Region.TC)).score == pytest.approx(0.7)
    assert score_of({"dice_wt": 0.6, "visible_dice_et": 0.9, "auc_idh": 1.0}) == pytest.approx(0.6)


def test_a_score_of_an_earlier_version_is_read_as_it_was_made():
    kept = ModelScore.model_validate_json('{"model_round": 3, "split": "validation", "metrics": {"dice_wt": 0.5}, "score": 0.7}')
    assert choose_best([kept, known(4, 0.6)], fallback=9) == 3


def test_without_any_metric_there_is_no_score():
    assert score({"a": evaluation()}).score is None
    assert score({}).metrics == {}


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_of_sites_does_not_matter(order):
    values = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 1 / 3}
    assert score({site: evaluation(wt=values[site], n=3) for site in order}) == score(
        {site: evaluation(wt=values[site], n=3) for site in sorted(order)}
    )


def known(model_round, value):
    return ModelScore(model_round=model_round, split=Split.VALIDATION, score=value)


def test_the_best_is_the_highest_and_of_equals_the_earliest():
    assert choose_best([known(1, 0.2), known(3, 0.6), known(2, 0.6), known(4, None)], fallback=9) == 2
    assert choose_best([known(1, None)], fallback=9) == 9
    assert choose_best([known(3, 0.0)], fallback=9) == 3


def made(*values):
    return [ModelScore(model_round=n, split=Split.VALIDATION, score=value) for n, value in enumerate(values, start=1)]


@pytest.mark.parametrize(
    ("values", "stalled"),
    [
        ((), False),
        ((0.5, 0.5), False),
        ((0.5, 0.5, 0.5), True),
        ((0.5, 0.4, 0.6, 0.6), False),
        ((0.5, None, 0.5, None), False),
        ((None, None, None), False),
        ((0.50, 0.505, 0.512), False),  # neither is a rise above 0.50 by more than 0.01, together they are
        ((0.50, 0.505, 0.510), True),
    ],
)
def test_training_has_stalled_when_no_score_rises_for_as_long_as_patience_lasts(values, stalled):
    assert has_stalled(made(*values), patience=2, min_delta=0.01) is stalled


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(1, 5))
def test_patience_counts_from_the_best_score(values, patience):
    best = choose_best(made(*values), fallback=0)
    assert has_stalled(made(*values), patience=patience, min_delta=0) == (len(values) - best >= patience)
