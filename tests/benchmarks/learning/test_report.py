import json

import pytest

from benchmarks.learning.figures import draw_curves, draw_differences
from benchmarks.learning.plan import LearningPlan, pick
from benchmarks.learning.report import summarise, write_json, write_markdown
from gmmas_schema.vocabulary import Split
from tests.benchmarks.learning.results import make_results, make_rows

SKILLS = {"gmmas": 0.7, "pooled": 0.75, "fedavg": 0.6, "modality-dropout-0": 0.7}


@pytest.fixture(scope="module")
def plan() -> LearningPlan:
    return LearningPlan.read()


@pytest.fixture(scope="module")
def results(plan):
    return make_results(plan, SKILLS)


def report(plan, results, *, final: bool = False):
    return summarise(plan, results, final=final, command="python -m benchmarks.learning", machine="test, 2 cores")


def test_rows_stand_in_the_order_of_the_plan_and_arms_without_results_are_left_out(plan, results) -> None:
    summary = report(plan, results)
    assert [row.arm.name for row in summary.arms] == ["gmmas", "pooled", "fedavg", "modality-dropout-0"]
    assert (summary.site, summary.patients) == ("development", 12)
    assert all(row.seeds == plan.seeds for row in summary.arms)


def test_differences_and_ratios_are_to_reference_and_upper_bound(plan, results) -> None:
    rows = {row.arm.name: row for row in report(plan, results).arms}
    assert rows["gmmas"].figures["dice"].difference.value is None
    change = rows["fedavg"].figures["dice"].difference
    assert change.value == pytest.approx(rows["fedavg"].figures["dice"].mean - rows["gmmas"].figures["dice"].mean)
    assert change.high < 0
    assert rows["modality-dropout-0"].figures["dice"].difference.value == 0
    ratio = rows["gmmas"].ratio
    assert ratio.value == pytest.approx(rows["gmmas"].figures["dice"].mean / rows["pooled"].figures["dice"].mean)
    assert ratio.high < 1


def test_the_table_marks_what_is_beyond_chance(plan, results) -> None:
    lines = write_markdown(report(plan, results)).splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    cells = {row[1]: row for row in table}
    assert len({len(row) for row in cells.values()}) == 1
    place = cells["arm"].index("mean Dice")
    assert cells["fedavg"][place].endswith("**")
    assert "−" in cells["fedavg"][place]
    assert "**" not in cells["modality-dropout-0"][place]
    assert "(" not in cells["gmmas"][place]
    assert any(line.startswith("- `gmmas` reaches 0.9") and line.endswith("`pooled`") for line in lines)


def test_the_page_says_which_arms_differ_and_how_many_intervals_it_holds(plan, results) -> None:
    text = write_markdown(report(plan, results))
    assert "against what it is compared with: worse: `fedavg`; better: `pooled`; not told apart: `modality-dropout-0`" in text
    assert f"holds {3 * 7} intervals" in text
    assert "which 3 seeds show only in part" in text
    assert "Choices were made" not in text
    assert "Choices were made on `development`" in write_markdown(report(plan, results, final=True))


def test_an_arm_may_be_compared_with_another_than_the_reference(plan) -> None:
    summary = report(plan, make_results(plan, {"gmmas": 0.9, "wire-fp32": 0.7, "wire-int8": 0.69}))
    row = next(row for row in summary.arms if row.arm.name == "wire-int8")
    assert -0.02 < row.figures["dice"].difference.value < 0
    assert 1 < row.hd95_ratio["hd95_full"].value < 1.1
    text = write_markdown(summary)
    assert "- `wire-int8` is compared with `wire-fp32`" in text
    assert "- `wire-int8`: HD95 " in text
    assert "times that of `wire-fp32`" in text


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


def test_an_arm_may_lack_seeds_and_hospitals(plan, results) -> None:
    first = plan.seeds[0]
    some = results | {"pooled": {first: results["pooled"][first].model_copy(update={"own": {}})}}
    row = next(row for row in report(plan, some).arms if row.arm.name == "pooled")
    assert row.seeds == (first,)
    assert row.worst_site is None
    assert row.figures["dice"].difference.n == 12


def test_json_is_whole_and_short(plan, results) -> None:
    content = json.loads(write_json(report(plan, results)))
    assert [row["arm"]["name"] for row in content["arms"]] == list(SKILLS)
    assert content["arms"][1]["figures"]["dice"]["by_seed"].keys() == {str(seed) for seed in plan.seeds}
    assert content["arms"][0]["validation"]["score"][-1][0] == 16
    assert len(write_json(report(plan, results))) < 100_000


@pytest.mark.slow
def test_plots_show_every_arm(plan, results, tmp_path, monkeypatch) -> None:
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (drawn.append(self), save(self, path, **options)))
    summary = report(plan, results)
    draw_differences(summary, tmp_path / "differences.png")
    draw_curves(summary, tmp_path / "curves.png")
    forest, curves = drawn
    assert [label.get_text() for label in forest.axes[0].get_yticklabels()] == list(SKILLS)[1:]
    labels = {text.get_text() for axes in curves.axes if axes.get_legend() for text in axes.get_legend().get_texts()}
    assert labels == set(SKILLS)
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("differences.png", "curves.png"))
