import numpy as np
import pytest

from gmmas_schema.errors import ProtocolError
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.groups import group_of
from gmmas_schema.messages import SiteReport
from gmmas_schema.strategy import HoldersStrategy
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Modality, Region, Task
from strategies.aggregation import RunningMean
from strategies.holders import weigh_holders
from strategies.rows import cases_teaching, join_rows, split_rows
from strategies.weighting import as_averaged

WITHOUT_T1CE = (Modality.T1, Modality.T2, Modality.FLAIR)
ROWS = HoldersStrategy()
WHOLE = HoldersStrategy(region_rows=False)
TO_T1CE = TrainingPlan(enhancing_needs_t1ce="site")


def head(seed):
    rng = np.random.default_rng(seed)
    shapes = {
        "decoder.w": (2, 2),
        "heads.segmentation.weight": (3, 8, 1, 1, 1),
        "heads.segmentation.bias": (3,),
        "heads.idh.logit.bias": (1,),
    }
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def report(modalities):
    return SiteReport(
        site="s", run="r", round=1, model_digest="d", modalities=modalities, cases=30, labelled={Task.SEGMENTATION: 9, Task.IDH: 4}
    )


def test_rows_join_to_what_they_were_split_from():
    split = split_rows(head(0))
    assert {name: value.shape for name, value in split.items() if ".et." in name} == {
        "heads.segmentation.et.weight": (1, 8, 1, 1, 1),
        "heads.segmentation.et.bias": (1,),
    }
    joined = join_rows(split)
    assert list(joined) == list(head(0))
    assert all(value.tobytes() == head(0)[name].tobytes() for name, value in joined.items())


def test_every_row_has_a_group_of_its_own_and_nothing_else_changes_its():
    groups = {name: group_of(name) for name in split_rows(head(0))}
    assert {groups[f"heads.segmentation.{region}.weight"] for region in REGIONS} == {f"head.segmentation.{region}" for region in REGIONS}
    assert groups["heads.idh.logit.bias"] == "head.idh"
    assert group_of("heads.segmentation.weight") == "head.segmentation"
    with pytest.raises(ProtocolError):
        group_of("heads.tumour.et.weight")


@pytest.mark.parametrize("rule", ["site", "sample"])
def test_a_site_without_t1ce_does_not_teach_the_enhancing_tumour_where_the_rule_leaves_it_out(rule):
    assert cases_teaching(report(WITHOUT_T1CE), WITHOUT_T1CE, rule) == {Region.WT: 9, Region.TC: 9, Region.ET: 0}
    everywhere = dict.fromkeys(REGIONS, 9)
    assert cases_teaching(report(MODALITIES), MODALITIES, rule) == everywhere
    assert cases_teaching(report(WITHOUT_T1CE), WITHOUT_T1CE, "never") == everywhere
    weights = weigh_holders(report(WITHOUT_T1CE), strategy=ROWS, plan=TrainingPlan(enhancing_needs_t1ce=rule))
    assert {group: weight for group, weight in weights.items() if group.startswith("head.segmentation")} == {
        "head.segmentation.wt": 3,
        "head.segmentation.tc": 3,
    }
    assert weigh_holders(report(WITHOUT_T1CE), strategy=WHOLE, plan=TrainingPlan(enhancing_needs_t1ce=rule))["head.segmentation"] == 3


def test_outlines_of_the_whole_tumour_alone_teach_one_row():
    """A cohort may draw no more: it returns the other rows as they came, whatever it holds."""
    whole = report(MODALITIES).model_copy(update={"outlined": {Region.WT: 9, Region.TC: 0, Region.ET: 0}})
    weights = weigh_holders(whole, strategy=ROWS, plan=TO_T1CE)
    assert [group for group in weights if group.startswith("head.segmentation")] == ["head.segmentation.wt"]


@pytest.mark.parametrize(("rule", "weight"), [("never", 3), ("site", 2), ("sample", 2)])
def test_the_enhancing_tumour_counts_the_cases_that_show_it(rule, weight):
    some = report(MODALITIES).model_copy(update={"shown": {Modality.T1CE: {Task.SEGMENTATION: 4, Task.IDH: 4}}})
    weights = weigh_holders(some, strategy=ROWS, plan=TrainingPlan(enhancing_needs_t1ce=rule))
    assert weights["head.segmentation.et"] == weight
    assert weights["head.segmentation.wt"] == 3


def test_its_row_of_the_enhancing_tumour_has_no_influence_and_its_other_rows_count():
    def mean_with(other):
        mean = RunningMean(split_rows(head(0)))
        mean.fold("full", split_rows(head(1)), weights=weigh_holders(report(MODALITIES), strategy=ROWS, plan=TO_T1CE))
        mean.fold("other", split_rows(other), weights=weigh_holders(report(WITHOUT_T1CE), strategy=ROWS, plan=TO_T1CE))
        return join_rows(mean.result())

    changed = {name: value.copy() for name, value in head(2).items()}
    changed["heads.segmentation.weight"][2] += 5
    changed["heads.segmentation.bias"][2] -= 3
    one, two = mean_with(head(2)), mean_with(changed)
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)
    np.testing.assert_array_equal(one["heads.segmentation.weight"][2], head(1)["heads.segmentation.weight"][2])
    expected = (head(1)["heads.segmentation.weight"][:2] + head(2)["heads.segmentation.weight"][:2]) / 2
    np.testing.assert_allclose(one["heads.segmentation.weight"][:2], expected, rtol=1e-6)


def test_where_all_teach_all_regions_the_rows_average_to_what_the_whole_head_does():
    def mean_by(strategy):
        mean = RunningMean(as_averaged(head(0), strategy))
        for seed, modalities in ((1, MODALITIES), (2, WITHOUT_T1CE)):
            mean.fold(str(seed), as_averaged(head(seed), strategy), weights=weigh_holders(report(modalities), strategy=strategy))
        return join_rows(mean.result())

    rows, whole = mean_by(ROWS), mean_by(WHOLE)
    assert all(rows[name].tobytes() == whole[name].tobytes() for name in whole)
