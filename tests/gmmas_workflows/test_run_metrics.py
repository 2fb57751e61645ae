import pytest

from gmmas_schema.messages import Evaluation, Interval, PseudoLabels, SiteReport
from gmmas_schema.vocabulary import Region, Split, Task
from gmmas_workflows.run_metrics import evaluation_metrics, mean_losses, score_metrics, trained_metrics
from gmmas_workflows.scores import ModelScore

NORTH = Evaluation(
    split=Split.TEST,
    cases=4,
    dice={Region.WT: Interval(value=0.5, low=0.1, high=0.9, n=4), Region.ET: Interval(n=0)},
    auc={Task.IDH: Interval(value=0.75, low=0.2, high=1.0, n=4)},
    loss={Task.SEGMENTATION: 1.25},
)


def test_training_losses_are_means_over_the_labelled_cases() -> None:
    north = ({Task.SEGMENTATION: 1.0, Task.IDH: 0.5}, {Task.SEGMENTATION: 30, Task.IDH: 0})
    south = ({Task.SEGMENTATION: 2.0}, {Task.SEGMENTATION: 10})
    assert mean_losses([north, south]) == {"train/loss_segmentation": pytest.approx(1.25)}


def test_metrics_without_a_value_are_left_out() -> None:
    assert evaluation_metrics(NORTH) == {"dice_wt": 0.5, "auc_idh": 0.75, "loss_segmentation": 1.25}


def test_means_and_sites_have_names_of_their_own() -> None:
    score = ModelScore(model_round=1, split=Split.TEST, metrics={"dice_wt": 0.5}, score=0.6, sites={"north": NORTH})
    assert score_metrics(score) == {
        "test/dice_wt": 0.5,
        "test/score": 0.6,
        "site/north/test/dice_wt": 0.5,
        "site/north/test/auc_idh": 0.75,
        "site/north/test/loss_segmentation": 1.25,
    }


def test_the_sites_own_forms_of_a_model_are_not_mixed_up_with_it() -> None:
    score = ModelScore(model_round=1, split=Split.TEST, metrics={"dice_wt": 0.5}, score=0.6, sites={"north": NORTH})
    own, common = score_metrics(score, prefix="personalised"), score_metrics(score)
    assert {name.replace("personalised", "test"): value for name, value in own.items()} == common
    assert not own.keys() & common.keys()


def test_who_trained_tells_losses_seconds_and_the_ledger_of_pseudo_labels() -> None:
    ledger = PseudoLabels(offered=4, accepted=3, positive=2, negative=1, share=0.75, agreement=0.5)
    report = SiteReport(
        site="north",
        run="r",
        round=1,
        model_digest="0",
        cases=10,
        losses={Task.IDH: 0.25},
        seconds={"train": 3.0},
        pseudo_labels={Task.IDH: ledger},
        cpu_seconds=5.0,
        peak_memory_mib=100.0,
    )
    metrics = trained_metrics(report)
    assert metrics["cases"] == 10
    assert metrics["train_loss_idh"] == 0.25
    assert metrics["seconds_train"] == 3.0
    assert metrics["cpu_seconds"] == 5.0
    assert {name: value for name, value in metrics.items() if name.startswith("pseudo_")} == {
        "pseudo_idh_offered": 4,
        "pseudo_idh_accepted": 3,
        "pseudo_idh_positive": 2,
        "pseudo_idh_negative": 1,
        "pseudo_idh_share": 0.75,
        "pseudo_idh_agreement": 0.5,
    }
