import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.vocabulary import Region, Split, Task
from gmmas_workflows.scores import ModelScore, choose_best, score_model


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
