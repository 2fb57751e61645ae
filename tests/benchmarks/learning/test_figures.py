import pytest

from benchmarks.learning.figures import NEITHER, draw_curves, draw_differences
from benchmarks.learning.plan import LearningPlan
from benchmarks.learning.summary import summarise
from tests.benchmarks.learning.results import make_results

SKILLS = {"gmmas": 0.7, "pooled": 0.75, "modality-dropout-0": 0.7, "head-whole": 0.6}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plan() -> LearningPlan:
    return LearningPlan.read()


@pytest.fixture(scope="module")
def results(plan):
    return make_results(plan, SKILLS)


@pytest.fixture
def drawn(monkeypatch) -> list:
    from matplotlib.figure import Figure

    found: list = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, path, **options: (found.append(self), save(self, path, **options)))
    return found


def summary_of(plan, results):
    return summarise(plan, results, final=False, command="python -m benchmarks.learning", machine="test, 2 cores")


def test_plots_show_every_arm(plan, results, tmp_path, drawn) -> None:
    summary = summary_of(plan, results)
    draw_differences(summary, tmp_path / "differences.png")
    draw_curves(summary, results, tmp_path / "curves.png")
    forest, curves = drawn
    assert [label.get_text() for label in forest.axes[0].get_yticklabels()] == list(SKILLS)[1:]
    labels = {text.get_text() for axes in curves.axes if axes.get_legend() for text in axes.get_legend().get_texts()}
    assert labels == set(SKILLS)
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("differences.png", "curves.png"))


def test_one_seed_is_grey_and_hollow(plan, tmp_path, drawn) -> None:
    results = make_results(plan, {"gmmas": 0.7, "pooled": 0.74, "modality-dropout-0": 0.7, "head-whole": 0.66})
    results["head-whole"] = {101: results["head-whole"][101]}
    draw_differences(summary_of(plan, results), tmp_path / "differences.png")
    axes = drawn[0].axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "head-whole (101)"
    dots = {line.get_ydata()[0]: line for line in axes.get_lines() if line.get_marker() == "o"}
    assert dots[2].get_color() == NEITHER
    assert dots[2].get_markerfacecolor() == "white"
    assert dots[0].get_color() == dots[0].get_markerfacecolor() != NEITHER


def test_curves_of_a_column_are_over_the_same_seeds(plan, tmp_path, drawn) -> None:
    """The reference is worse with the seeds that the other arm lacks; beside it, it is not."""
    good, bad = (make_results(plan, {"gmmas": skill, "head-whole": 0.6, "pooled": 0.7}) for skill in (0.8, 0.2))
    results = {"gmmas": {101: good["gmmas"][101], 102: bad["gmmas"][102]}, "head-whole": {101: good["head-whole"][101]}}
    results["pooled"] = {seed: good["pooled"][seed] for seed in (101, 102)}
    draw_curves(summary_of(plan, results), results, tmp_path / "curves.png")
    last = {
        (axes.get_title().split(":")[0], line.get_label()): line.get_ydata()[-1]
        for axes in drawn[0].axes
        if "Dice ET" in axes.get_title()
        for line in axes.get_lines()
    }
    assert last["heads row by row", "gmmas"] > 0.75
    assert last["baselines", "gmmas"] < 0.55
    assert {axes.get_xlabel() for axes in drawn[0].axes} == {"round; seeds 101", "round; seeds 101, 102"}
