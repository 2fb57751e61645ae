import pytest

from benchmarks.learning.plan import LearningPlan
from benchmarks.learning.report import ENHANCING, OTHERS, OVERLAP, write_markdown
from benchmarks.learning.results import Missing
from benchmarks.learning.summary import summarise
from gmmas_schema.vocabulary import Region, Task
from tests.benchmarks.learning.results import make_results

SKILLS = {"gmmas": 0.7, "pooled": 0.75, "head-whole": 0.6, "modality-dropout-0": 0.7}
FIGURES_SHOWN = len([*OVERLAP, *OTHERS, *ENHANCING])


@pytest.fixture(scope="module")
def plan() -> LearningPlan:
    return LearningPlan.read()


@pytest.fixture(scope="module")
def results(plan):
    return make_results(plan, SKILLS)


def page(plan, results, *, final: bool = False, **options) -> str:
    return write_markdown(summarise(plan, results, final=final, command="python -m benchmarks.learning", machine="test", **options))


def tables_of(text: str) -> list[dict[str, dict[str, str]]]:
    """Return the tables of a page: cells by arm and column."""
    tables = []
    for block in text.split("\n\n"):
        lines = [line.strip("| ").split(" | ") for line in block.splitlines() if line.startswith("| ")]
        if lines:
            arm = next(place for place, name in enumerate(lines[0]) if name.endswith("arm"))
            assert {len(line) for line in lines} == {len(lines[0])}
            tables.append({line[arm]: dict(zip(lines[0], line, strict=True)) for line in lines[1:]})
    return tables


def test_the_tables_mark_what_is_beyond_chance(plan, results) -> None:
    main, enhancing = tables_of(page(plan, results))
    assert main["head-whole"]["mean Dice"].endswith("**")
    assert "−" in main["head-whole"]["mean Dice"]
    assert "**" not in main["modality-dropout-0"]["mean Dice"]
    assert "(" not in main["gmmas"]["mean Dice"]
    assert enhancing["head-whole"]["visible, T1ce alone"].endswith("**")
    assert "s" not in main["gmmas"], "seconds are no property of an arm on a machine that others use"


def test_the_second_table_tells_the_enhancing_tumour_apart_from_its_absence(plan, results) -> None:
    text = page(plan, results)
    _, enhancing = tables_of(text)
    assert enhancing["gmmas"]["outlined where there is none, 15 subsets"] == "0.467"
    assert enhancing["pooled"]["outlined where there is none, T1ce alone"] == "0.000 (+0.000 [+0.000, +0.000])"
    nothing = enhancing["*nothing outlined*"]
    assert nothing["visible, 15 subsets"] == nothing["outlined where there is none, 15 subsets"] == "0.000"
    assert nothing["all patients, 15 subsets"] == nothing["all patients, T1ce alone"] == "0.250"
    assert "(9 of 12 with 101, 9 of 12 with 102, 9 of 12 with 103)" in text
    assert "outlines nothing at all: 0.083 with 101; 0.083 with 102; 0.083 with 103." in text


def test_the_page_says_which_arms_differ_and_how_many_intervals_it_holds(plan, results) -> None:
    text = page(plan, results)
    assert "against what it is compared with: worse: `head-whole`; better: `pooled`; not told apart: `modality-dropout-0`" in text
    assert f"hold {3 * FIGURES_SHOWN} intervals" in text
    assert "excludes 0 in 25 % of the cases with 3 seeds." in text
    assert "atients only*" not in text
    assert "(patients only)" not in text
    assert any(line.startswith("- `gmmas` reaches 0.9") and line.endswith("`pooled` (seeds 101, 102, 103)") for line in text.splitlines())
    assert "Choices were made" not in text
    assert "Choices were made on `development`" in page(plan, results, final=True)


def test_few_seeds_are_said_to_be_few_and_one_seed_is_never_bold(plan, results) -> None:
    first, second, _ = plan.seeds
    some = results | {
        "head-whole": {first: results["head-whole"][first]},
        "pooled": {seed: results["pooled"][seed] for seed in (first, second)},
    }
    text = page(plan, some)
    main, _ = tables_of(text)
    assert main["gmmas"]["seeds"] == main["modality-dropout-0"]["seeds"] == "101, 102, 103"
    assert main["head-whole"]["seeds"] == "101 (patients only)"
    assert main["pooled"]["seeds"] == "101, 102 (patients only)"
    assert "[" in main["head-whole"]["mean Dice"]
    assert not any("**" in cell for cell in main["head-whole"].values())
    assert main["pooled"]["mean Dice"].endswith("**")
    assert "in 100 % of the cases with 1 seed, in 50 % of the cases with 2 seeds, in 25 % of the cases with 3 seeds." in text
    assert "nothing is bold with one seed" in text
    assert "worse: none; better: `pooled` (patients only); not told apart: `modality-dropout-0`, `head-whole` (patients only)" in text


def test_the_page_names_the_seeds_that_a_row_leaves_out(plan, results) -> None:
    some = results | {"gmmas": {seed: results["gmmas"][seed] for seed in plan.seeds[:2]}}
    main, _ = tables_of(page(plan, some))
    assert main["gmmas"]["seeds"] == "101, 102"
    assert main["pooled"]["seeds"] == "101, 102 (patients only); without 103"


def test_runs_without_a_result_are_named_with_the_reason(plan, results) -> None:
    missing = [
        Missing(arm="head-whole", seed=103, state="not run"),
        *(Missing(arm="semi", seed=seed, state="not run") for seed in plan.seeds),
        Missing(arm="few", seed=101, state="failed", detail="MemoryError:\n no room"),
        Missing(arm="few", seed=102, state="unfinished", detail="12 of 24 rounds"),
        Missing(arm="few", seed=103, state="not run"),
    ]
    lines = page(plan, results, missing=missing).splitlines()
    assert "- **failed**: `few` 101: MemoryError: no room" in lines
    assert "- **not finished**: `few` 102 (12 of 24 rounds)" in lines
    assert "- **not run yet**: `head-whole` 103; `few` 103; every seed of `semi`" in lines
    assert not any("INCOMPLETE" in line for line in lines)


def test_a_final_page_that_lacks_main_arms_says_so_first(plan, results) -> None:
    missing = [Missing(arm="semi", seed=102, state="left out"), Missing(arm="cutmix-off", seed=101, state="not run")]
    lines = page(plan, results, final=True, missing=missing, incomplete=True).splitlines()
    assert lines[0] == "**INCOMPLETE: not final.** Of the main arms these runs have no result here: `semi` 102."
    assert "- **left out by the command**: every seed of `semi`" in lines


def test_an_arm_may_be_compared_with_another_than_the_reference(plan) -> None:
    text = page(plan, make_results(plan, {"gmmas": 0.9, "wire-fp32": 0.7, "wire-int8": 0.69}))
    assert "- `wire-int8` is compared with `wire-fp32`" in text
    assert "- `wire-int8`: HD95 " in text
    assert "times that of `wire-fp32`" in text


def test_the_page_says_when_pseudo_labels_joined(plan) -> None:
    results = make_results(plan, {"gmmas": 0.9, "semi": 0.9})
    results["semi"][102] = results["semi"][102].model_copy(update={"joined": {Task.IDH: 4, Region.WT: 9}})
    lines = [line for line in page(plan, results).splitlines() if "pseudo-labels counted" in line]
    assert lines == ["- `semi`: first round in which pseudo-labels counted, by seed: 101: never; 102: idh 4, wt 9; 103: never"]
