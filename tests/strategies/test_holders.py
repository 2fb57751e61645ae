import math

from hypothesis import given
from hypothesis import strategies as st

from gmmas_schema.groups import groups_sent
from gmmas_schema.messages import SiteReport
from gmmas_schema.strategy import HoldersStrategy
from gmmas_schema.vocabulary import MODALITIES, REGIONS, TASKS, Modality, Task
from strategies.holders import weigh_holders


def report(labelled, modalities=MODALITIES, cases=100):
    return SiteReport(site="s", run="r", round=1, model_digest="d", modalities=modalities, cases=cases, labelled=labelled)


def test_each_group_is_weighted_by_the_labels_behind_it():
    weights = weigh_holders(report({Task.SEGMENTATION: 16, Task.IDH: 25, Task.CODELETION: 9}))
    assert weights["decoder"] == weights["head.segmentation.et"] == weights["uncertainty.segmentation"] == 4
    assert weights["head.idh"] == weights["uncertainty.idh"] == 5
    assert weights["head.codeletion"] == 3
    assert weights["fusion"] == weights["bottleneck"] == weights["encoder.t1ce"] == weights["gate.flair"] == 5


def test_unlabelled_cases_do_not_count():
    assert weigh_holders(report({Task.IDH: 4}, cases=4)) == weigh_holders(report({Task.IDH: 4}, cases=4000))


@given(
    st.dictionaries(st.sampled_from(TASKS), st.integers(0, 500)),
    st.sets(st.sampled_from(MODALITIES)).map(lambda found: tuple(m for m in MODALITIES if m in found)),
)
def test_weights_are_positive_finite_and_only_for_what_the_site_may_send(labelled, modalities):
    weights = weigh_holders(report(labelled, modalities, cases=500), strategy=HoldersStrategy(region_rows=False))
    assert set(weights) == groups_sent(modalities, labelled)
    rows = dict.fromkeys((f"head.segmentation.{region}" for region in REGIONS), weights.get("head.segmentation", 0.0))
    by_default = {group: weight for group, weight in (weights | rows).items() if weight > 0 and group != "head.segmentation"}
    assert weigh_holders(report(labelled, modalities, cases=500)) == by_default
    assert all(weight > 0 and math.isfinite(weight) for weight in weights.values())
    for task in TASKS:
        assert (f"head.{task}" in weights) == (labelled.get(task, 0) > 0 and bool(modalities))
    if Modality.T1CE not in modalities:
        assert "encoder.t1ce" not in weights
