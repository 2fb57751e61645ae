import json

import numpy as np
import pytest

from benchmarks.learning.plan import LearningPlan, pick
from benchmarks.learning.results import Missing
from benchmarks.learning.summary import ArmSummary, Summary, summarise, write_json
from gmmas_schema.vocabulary import Split
from tests.benchmarks.learning.results import make_result, make_results, make_rows

SKILLS = {"gmmas": 0.7, "pooled": 0.75, "head-whole": 0.6, "modality-dropout-0": 0.7}


@pytest.fixture(scope="module")
def plan() -> LearningPlan:
    return LearningPlan.read()


@pytest.fixture(scope="module")
def results(plan):
    return make_results(plan, SKILLS)


def report(plan, results, *, final: bool = False, **options) -> Summary:
    return summarise(plan, results, final=final, command="python -m benchmarks.learning", machine="test, 2 cores", **options)


def row_of(summary: Summary, arm: str) -> ArmSummary:
    return next(row for row in summary.arms if row.arm.name == arm)


def test_rows_stand_in_the_order_of_the_plan_and_arms_without_results_are_left_out(plan, results) -> None:
    summary = report(plan, results)
    assert [row.arm.name for row in summary.arms] == ["gmmas", "pooled", "modality-dropout-0", "head-whole"]
    assert summary.site == "development"
    assert all((row.seeds, row.unpaired) == (plan.seeds, ()) for row in summary.arms)


def test_differences_and_ratios_are_to_reference_and_upper_bound(plan, results) -> None:
    rows = {row.arm.name: row for row in report(plan, results).arms}
    assert rows["gmmas"].figures["dice"].difference.value is None
    assert rows["gmmas"].figures["dice"].compared is None
    worse = rows["head-whole"].figures["dice"]
    assert worse.compared == rows["gmmas"].figures["dice"].mean
    assert worse.difference.value == pytest.approx(worse.mean - worse.compared)
    assert worse.difference.high < 0
    assert rows["modality-dropout-0"].figures["dice"].difference.value == 0
    ratio = rows["gmmas"].ratio
    assert ratio.value == pytest.approx(rows["gmmas"].figures["dice"].mean / rows["pooled"].figures["dice"].mean)
    assert ratio.high < 1
    assert rows["gmmas"].ratio_seeds == plan.seeds


def test_a_row_and_its_difference_are_over_the_seeds_that_both_arms_have(plan) -> None:
    """The reference learns best with the seed that the arm lacks, and lacks a seed in which the arm learns best."""
    skills = {"gmmas": (0.6, 0.6, 0.9), "head-whole": (0.5, 0.9, None), "pooled": (0.6, None, 0.6)}
    results = {
        arm: {seed: make_result(plan, plan.arm(arm), seed, skill=of) for seed, of in zip(plan.seeds, skill, strict=True) if of is not None}
        for arm, skill in skills.items()
    }
    del results["gmmas"][plan.seeds[1]]
    row = row_of(report(plan, results), "head-whole")
    assert (row.seeds, row.unpaired) == (plan.seeds[:1], plan.seeds[1:2])
    for name in ("dice", "et_visible", "auc_idh"):
        figure = row.figures[name]
        assert set(figure.by_seed) == set(plan.seeds[:2])
        assert figure.mean == figure.by_seed[plan.seeds[0]]
        assert figure.difference.value == pytest.approx(figure.mean - figure.compared)
    assert row.figures["dice"].difference.n == 12
    assert row.ratio_seeds == plan.seeds[:1]
    assert row.own_dice["full"] == pytest.approx(0.5 + 0.1 - 0.05, abs=0.1), "of the row's seed alone"


def test_a_row_of_seeds_that_the_reference_lacks_has_no_differences(plan, results) -> None:
    first, *others = plan.seeds
    some = results | {"gmmas": {first: results["gmmas"][first]}, "pooled": {seed: results["pooled"][seed] for seed in others}}
    row = row_of(report(plan, some), "pooled")
    assert row.seeds == tuple(others)
    assert row.figures["dice"].mean is not None
    assert row.figures["dice"].compared is None
    assert row.figures["dice"].difference.value is None


def test_a_figure_that_one_seed_does_not_define_has_no_mean(plan, results) -> None:
    """A mean over the other seeds would be that of another set of patients than the row says."""
    first = plan.seeds[0]
    rows = make_rows(0.7, seed=first, without_et=12)
    changed = {
        arm: {
            seed: result.model_copy(update={"held_out": result.held_out | {plan.development: rows}}) if seed == first else result
            for seed, result in of_arm.items()
        }
        for arm, of_arm in results.items()
    }
    figures = row_of(report(plan, changed), "pooled").figures
    assert figures["et_visible"].by_seed[first] is None
    assert figures["et_visible"].mean is None
    assert figures["et_visible"].difference.value is None
    assert figures["et_false"].mean is not None
    assert np.isfinite(figures["dice"].difference.value)


def test_the_enhancing_tumour_is_told_where_it_is_and_where_it_is_not(plan, results) -> None:
    summary = report(plan, results)
    figures = row_of(summary, "gmmas").figures
    assert figures["et_false"].mean == pytest.approx(7 / 15), "in the subsets without T1ce"
    assert figures["et_false_t1ce"].mean == 0
    assert figures["et_t1ce"].mean == pytest.approx((9 * figures["et_visible_t1ce"].mean + 3) / 12)
    assert set(summary.floor) == set(plan.seeds)
    for floor in summary.floor.values():
        assert (floor.patients, floor.enhancing) == (12, 9)
        assert floor.figures["dice_et"] == floor.figures["et_t1ce"] == pytest.approx(3 / 12)
        assert floor.figures["dice"] == pytest.approx(1 / 12)
        assert floor.figures["et_visible"] == floor.figures["et_false"] == 0


def test_arms_of_a_seed_agree_on_who_has_an_enhancing_tumour(plan, results) -> None:
    """An arm that outlines none anywhere cannot tell who has it; another arm can."""
    blind = {
        name: tuple(row.model_copy(update={"dice": row.dice | {"et": float(k < 3)}}) for k, row in enumerate(rows))
        for name, rows in make_rows(0.6, seed=plan.seeds[0]).items()
    }
    outlines_everywhere = {
        name: tuple(row.model_copy(update={"dice": row.dice | {"et": 0.0}}) for row in rows) for name, rows in blind.items()
    }
    for rows, false in ((blind, 0), (outlines_everywhere, 1)):
        first = plan.seeds[0]
        changed = results["head-whole"][first].model_copy(update={"held_out": dict.fromkeys(plan.held_out, rows)})
        summary = report(plan, results | {"head-whole": {first: changed}})
        figures = row_of(summary, "head-whole").figures
        assert (figures["et_visible"].mean, figures["et_false"].mean) == (0, false)
        assert summary.floor[first].enhancing == 9


def test_an_arm_may_be_compared_with_another_than_the_reference(plan) -> None:
    row = row_of(report(plan, make_results(plan, {"gmmas": 0.9, "wire-fp32": 0.7, "wire-int8": 0.69})), "wire-int8")
    assert -0.02 < row.figures["dice"].difference.value < 0
    assert 1 < row.hd95_ratio["hd95_full"].value < 1.1


def test_naming_an_arm_brings_the_one_it_is_compared_with(plan) -> None:
    assert [arm.name for arm in pick(plan, arms=["wire-int8"]).arms] == ["gmmas", "wire-fp32", "wire-int8"]


def test_choices_are_made_without_a_look_at_the_test_hospital(plan, results) -> None:
    """Other test patients change the final table and nothing else."""
    changed = {
        arm: {
            seed: result.model_copy(
                update={
                    "held_out": result.held_out | {plan.test: make_rows(0.2, seed=seed)},
                    "own": {site: {**parts, Split.TEST: ()} for site, parts in result.own.items()},
                }
            )
            for seed, result in of_seed.items()
        }
        for arm, of_seed in results.items()
    }
    assert write_json(report(plan, changed)) == write_json(report(plan, results))
    assert write_json(report(plan, changed, final=True)) != write_json(report(plan, results, final=True))
    assert report(plan, results, final=True).site == "test"


def test_an_arm_may_lack_hospitals(plan, results) -> None:
    first = plan.seeds[0]
    some = results | {"pooled": {first: results["pooled"][first].model_copy(update={"own": {}})}}
    assert row_of(report(plan, some), "pooled").worst_site is None


def test_the_commits_of_all_runs_are_named_once_each(plan, results) -> None:
    first, second, _ = plan.seeds
    runs = results["pooled"]
    mixed = {first: runs[first].model_copy(update={"software": "abc1234, def5678"}), second: runs[second]}
    assert row_of(report(plan, results | {"pooled": mixed}), "pooled").software == ("abc1234", "def5678")


def test_json_is_whole_and_short(plan, results) -> None:
    missing = (Missing(arm="semi", seed=101, state="failed", detail="no memory"),)
    content = json.loads(write_json(report(plan, results, missing=missing)))
    assert [row["arm"]["name"] for row in content["arms"]] == ["gmmas", "pooled", "modality-dropout-0", "head-whole"]
    assert content["arms"][1]["figures"]["dice"]["by_seed"].keys() == {str(seed) for seed in plan.seeds}
    curves = content["arms"][0]["validation"]
    assert curves["score"][-1][0] == 16
    assert curves["dice"][-1][1] == pytest.approx((curves["dice_wt"][-1][1] + curves["dice_et"][-1][1]) / 2)
    assert content["missing"] == [{"arm": "semi", "seed": 101, "state": "failed", "detail": "no memory"}]
    assert content["incomplete"] is False
    assert len(write_json(report(plan, results))) < 120_000
