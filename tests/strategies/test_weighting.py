import pytest

from gmmas_schema.federation import FederationConfig, TrainingPlan
from gmmas_schema.messages import PseudoLabels, SiteReport
from gmmas_schema.strategy import FedAvgStrategy, HoldersStrategy, PseudoTerms
from gmmas_schema.vocabulary import MODALITIES, Region, Task
from strategies.weighting import choose_weighting

REPORT = SiteReport(
    site="s",
    run="r",
    round=1,
    model_digest="d",
    modalities=MODALITIES,
    cases=30,
    labelled={Task.IDH: 9},
    pseudo_labels={Region.WT: PseudoLabels(offered=21, accepted=20, positive=5, negative=5, share=20 / 21, agreement=0.8)},
)


def test_holders_by_square_root_are_the_default():
    assert choose_weighting(FederationConfig().strategy)(REPORT)["head.idh"] == 3


@pytest.mark.parametrize(("weights", "expected"), [("sqrt", 3), ("cases", 9), ("uniform", 1)])
def test_the_scale_of_the_counts_can_be_chosen(weights, expected):
    assert choose_weighting(HoldersStrategy(weights=weights))(REPORT)["head.idh"] == expected


def test_pseudo_labels_count_by_their_weight_and_quality():
    weigh = choose_weighting(HoldersStrategy(weights="cases"), pseudo=PseudoTerms(weights={Region.WT: 0.5}))
    assert weigh(REPORT)["decoder"] == pytest.approx(0.5 * 0.8 * 20)
    assert weigh(REPORT)["encoder.t1ce"] == 9
    assert not any(group.startswith("head.segmentation") for group in weigh(REPORT))


def test_a_backbone_of_regions_rests_on_regions():
    """Nine molecular results do not let a hospital's outlines, all of them the model's own, count like drawn ones."""
    plan, strategy = TrainingPlan(backbone="regions"), HoldersStrategy(weights="cases")
    weights = choose_weighting(strategy, plan=plan, pseudo=PseudoTerms(weights={Region.WT: 0.25}))(REPORT)
    assert weights["encoder.t1ce"] == weights["fusion"] == weights["decoder"] == pytest.approx(0.25 * 0.8 * 20)
    assert weights["head.idh"] == 9
    assert set(choose_weighting(strategy, plan=plan)(REPORT.model_copy(update={"pseudo_labels": {}}))) == {"head.idh", "uncertainty.idh"}


def test_federated_averaging_counts_every_case():
    weights = choose_weighting(FedAvgStrategy(), pseudo=PseudoTerms(weights={Region.WT: 0.5}))(REPORT)
    assert set(weights.values()) == {30}
    assert "decoder" in weights
