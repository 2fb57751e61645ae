"""The page: two tables in Markdown, what their columns mean, how far they can be trusted, and what is missing from them."""

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np

from benchmarks.learning.results import name_runs
from benchmarks.learning.statistics import BY_LUCK, FEWEST_SEEDS, told_apart
from benchmarks.learning.summary import ArmSummary, FigureSummary, Summary
from gmmas_schema.messages import Interval

OVERLAP: Final = {"dice": "mean Dice", "dice_full": "Dice, all four"}
OTHERS: Final = {"auc_idh": "AUC IDH", "auc_codeletion": "AUC 1p/19q", "ece": "ECE", "fewer_better": "fewer better"}
"""Figures of the first table with their differences, those before and behind the worst hospital."""
ENHANCING: Final = {
    "et_visible": "visible, 15 subsets",
    "et_visible_t1ce": "visible, T1ce alone",
    "et_false": "outlined where there is none, 15 subsets",
    "et_false_t1ce": "outlined where there is none, T1ce alone",
    "dice_et": "all patients, 15 subsets",
    "et_t1ce": "all patients, T1ce alone",
}
"""Figures of the second table."""

_MISSING: Final = "–"


def write_markdown(summary: Summary) -> str:
    """Return the report as Markdown."""
    lines = [*_heading(summary), *_main_table(summary), "", *_legend(summary), ""]
    lines += [*_enhancing_table(summary), "", *_enhancing_legend(summary), "", *_caution(summary), ""]
    return "\n".join([*lines, *_notes(summary), "", f"`{summary.command}` on {summary.machine}.", ""])


def _heading(summary: Summary) -> list[str]:
    """Return what stands above a final page that lacks runs of the main arms."""
    if not summary.incomplete:
        return []
    lacking = name_runs((run.arm, run.seed) for run in summary.missing if run.arm in summary.plan["main"])
    return [f"**INCOMPLETE: not final.** Of the main arms these runs have no result here: {lacking}.", ""]


def _main_table(summary: Summary) -> list[str]:
    columns = ("piece", "arm", "seeds", "Dice WT / TC / ET", *OVERLAP.values(), "worst hospital", *OTHERS.values(), "MiB")
    lines = _table_head(columns)
    for row in summary.arms:
        regions = " / ".join(_number(row.figures[f"dice_{region}"].mean) for region in ("wt", "tc", "et"))
        cells = [row.arm.piece, row.arm.name, _seeds(row), regions, *_cells(row, OVERLAP), _number(row.worst_site)]
        lines.append(_table_row([*cells, *_cells(row, OTHERS), f"{row.mib_down + row.mib_up:.0f}"]))
    return lines


def _enhancing_table(summary: Summary) -> list[str]:
    lines = _table_head(("ET of arm", "seeds", *ENHANCING.values()))
    lines += [_table_row([row.arm.name, _seeds(row), *_cells(row, ENHANCING)]) for row in summary.arms]
    values = [[floor.figures.get(name, np.nan) for name in ENHANCING] for floor in summary.floor.values()]
    means = [_number(float(mean)) if np.isfinite(mean) else _MISSING for mean in np.mean(values, axis=0)]
    return [*lines, _table_row(["*nothing outlined*", _list(summary.floor), *means])]


def _table_head(columns: Sequence[str]) -> list[str]:
    return [_table_row(columns), "|" + "---|" * len(columns)]


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cells(row: ArmSummary, names: Collection[str]) -> list[str]:
    return [_with_difference(row.figures[name], seeds=len(row.seeds)) for name in names]


def _seeds(row: ArmSummary) -> str:
    """Return the seeds of a row, and what they are too few for."""
    remark = " (patients only)" if _has_differences(row) and len(row.seeds) < FEWEST_SEEDS else ""
    left = f"; without {_list(row.unpaired)}" if row.unpaired else ""
    return f"{_list(row.seeds)}{remark}{left}"


def _has_differences(row: ArmSummary) -> bool:
    return any(figure.difference.low is not None for figure in row.figures.values())


def _legend(summary: Summary) -> list[str]:
    reference, bound = summary.plan["reference"], summary.plan["upper_bound"]
    own = "test" if summary.site == summary.plan["test"] else "validation"
    patients = max((floor.patients for floor in summary.floor.values()), default=0)
    floor = "; ".join(f"{value.figures['dice']:.3f} with {seed}" for seed, value in summary.floor.items())
    return [
        f"Held-out hospital `{summary.site}`, {patients} patients a seed. Means over the row's seeds; behind them the difference to",
        f"`{reference}`, or to what the arm is compared with (below), over the same seeds and patients, with its 95 % interval (paired",
        "bootstrap over patients within seeds, then over seeds), bold where it excludes 0. A row is over the seeds that both have, so what",
        "is subtracted may be another mean than that in the other arm's own row. Dice WT / TC / ET, their mean and *fewer better* are over",
        "all 15 subsets of the sequences; *fewer better* is the share of patients and nested pairs of subsets in which the smaller one has",
        "the clearly higher Dice (by more than 0.01). AUCs are with all four sequences, ECE is over all subsets and both markers. *Worst",
        f"hospital* is the lowest mean Dice among the training hospitals, on their own {own} patients with their own sequences. MiB are",
        f"those of a run. `{bound}` is the upper bound. The floor of mean Dice, which counts 1 where a region is absent and none is",
        f"outlined, is what a model scores that outlines nothing at all: {floor}.",
    ]


def _enhancing_legend(summary: Summary) -> list[str]:
    counts = ", ".join(f"{floor.enhancing} of {floor.patients} with {seed}" for seed, floor in summary.floor.items())
    return [
        f"The enhancing tumour (ET) is there in some patients only ({counts}). *Visible* is its Dice in those. In the",
        "others Dice is all or nothing: 0 where some is outlined, whose share is *outlined where there is none*, and 1 where none is. *All",
        "patients* mixes both, as the Dice ET of the first table does; the last row shows what outlining nothing comes to.",
    ]


def _caution(summary: Summary) -> list[str]:
    """Return what a reader of many intervals over few seeds has to know; nothing where there is none."""
    rows = [row for row in summary.arms if _has_differences(row)]
    if not rows:
        return []
    intervals = sum(row.figures[name].difference.low is not None for row in rows for name in (*OVERLAP, *OTHERS, *ENHANCING))
    lines = [
        f"The tables hold {intervals} intervals, not corrected for their number: where nothing differs, one in 20 excludes 0 by chance.",
        "Seeds add to that: training falls out differently from one to the next, and where that alone makes the difference, an interval",
        f"excludes 0 {_luck(rows)}.",
    ]
    if any(len(row.seeds) == 1 for row in rows):
        lines += ["So nothing is bold with one seed."]
    if any(len(row.seeds) < FEWEST_SEEDS for row in rows):
        lines += ["*Patients only* marks rows whose intervals say how patients differ under these very trainings, and little about others."]
    lines += ["What is bold in one figure alone is a question for more seeds."]
    if summary.site == summary.plan["test"]:
        lines += [f"Choices were made on `{summary.plan['development']}`; what is best here has not been chosen by that."]
    return lines


def _luck(rows: Sequence[ArmSummary]) -> str:
    """Return how often luck tells apart, for the numbers of seeds there are."""
    numbers = sorted({len(row.seeds) for row in rows})
    shares = {number: BY_LUCK.get(number, min(BY_LUCK.values())) for number in numbers}
    return ", ".join(f"in {100 * share:.0f} % of the cases with {number} seed{'s' * (number > 1)}" for number, share in shares.items())


def _verdict(summary: Summary) -> str:
    """Return the line that says which arms the mean Dice tells apart from what they are compared with."""
    told: dict[str, list[str]] = {"worse": [], "better": [], "not told apart": []}
    for row in summary.arms:
        change = row.figures["dice"].difference
        if change.value is not None and change.low is not None:
            apart = told_apart(change, seeds=len(row.seeds))
            word = "not told apart" if not apart else "better" if change.value > 0 else "worse"
            told[word].append(f"`{row.arm.name}`" + (" (patients only)" if len(row.seeds) < FEWEST_SEEDS else ""))
    return "- mean Dice, each against what it is compared with: " + "; ".join(
        f"{word}: {', '.join(names) or 'none'}" for word, names in told.items()
    )


def _notes(summary: Summary) -> list[str]:
    bound = summary.plan["upper_bound"]
    federated = [row for row in summary.arms if row.arm.kind == "federated" and row.ratio.value is not None]
    lines = [*_missing(summary), _verdict(summary)]
    lines += [
        f"- `{row.arm.name}` reaches {_interval(row.ratio)} of the mean 15-subset Dice of `{bound}` (seeds {_list(row.ratio_seeds)})"
        for row in federated
    ]
    lines += [f"- `{row.arm.name}`: {row.arm.note}" for row in summary.arms if row.arm.note]
    lines += [f"- `{row.arm.name}` is compared with `{row.arm.compare_with}`" for row in summary.arms if row.arm.compare_with]
    lines += [_joined(row) for row in summary.arms if row.joined is not None]
    lines += [_surfaces(row, summary) for row in summary.arms if row.figures["hd95"].mean is not None]
    smallest = {row.arm.name: min(row.log_variance.values()) for row in summary.arms if row.log_variance}
    lines += [f"- smallest log-variance of any task at the end: {', '.join(f'`{name}` {value:.2f}' for name, value in smallest.items())}"]
    commits = sorted({commit for row in summary.arms for commit in row.software})
    lines += [f"- software: {', '.join(commits)}{'; arms of different commits are compared' if len(commits) > 1 else ''}"]
    precisions = sorted({precision for row in summary.arms for precision in row.precision})
    return [*lines, f"- convolutions in {', '.join(precisions)}{', so arms differ in more than their name' if len(precisions) > 1 else ''}"]


def _missing(summary: Summary) -> list[str]:
    """Return lines about runs without a result, the failed ones first, with their reason."""
    failed = [run for run in summary.missing if run.state == "failed"]
    unfinished = [run for run in summary.missing if run.state == "unfinished"]
    lines = [f"- **failed**: `{run.arm}` {run.seed}: {' '.join(run.detail.split())}" for run in failed]
    lines += [f"- **not finished**: `{run.arm}` {run.seed} ({run.detail})" for run in unfinished]
    rows = {row.arm.name for row in summary.arms}
    for state, words in {"not run": "not run yet", "left out": "left out by the command"}.items():
        runs = [(run.arm, run.seed) for run in summary.missing if run.state == state]
        of_some = rows | {run.arm for run in summary.missing if run.state != state}
        some = name_runs(run for run in runs if run[0] in of_some)
        every = ", ".join(dict.fromkeys(f"`{arm}`" for arm, _ in runs if arm not in of_some))
        found = [some] * bool(some) + [f"every seed of {every}"] * bool(every)
        lines += [f"- **{words}**: {'; '.join(found)}"] if found else []
    return lines


def _joined(row: ArmSummary) -> str:
    """Return the line about when pseudo-labels joined."""
    assert row.joined is not None
    rounds = {seed: ", ".join(f"{target} {number}" for target, number in sorted(found.items())) for seed, found in row.joined.items()}
    said = "; ".join(f"{seed}: {found or 'never'}" for seed, found in rounds.items())
    return f"- `{row.arm.name}`: first round in which pseudo-labels counted, by seed: {said}"


def _surfaces(row: ArmSummary, summary: Summary) -> str:
    """Return the line about an arm's HD95."""
    every, full = (f"{row.figures[name].mean:.2f} mm" for name in ("hd95", "hd95_full"))
    line = f"- `{row.arm.name}`: HD95 {every} over 15 subsets, {full} with all four sequences"
    ratios = " and ".join(_interval(ratio) for ratio in row.hd95_ratio.values())
    return f"{line}; {ratios} times that of `{row.arm.compare_with or summary.plan['reference']}`" if ratios else line


def _interval(interval: Interval) -> str:
    return f"{_number(interval.value)} [{_number(interval.low)}, {_number(interval.high)}]"


def _with_difference(figure: FigureSummary, *, seeds: int) -> str:
    """Return `0.612 (−0.041 [−0.060, −0.022])`."""
    text, change = _number(figure.mean), figure.difference
    if change.value is None or change.low is None or change.high is None:
        return text
    behind = f"({_signed(change.value)} [{_signed(change.low)}, {_signed(change.high)}])"
    return f"{text} **{behind}**" if told_apart(change, seeds=seeds) else f"{text} {behind}"


def _number(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _list(seeds: Collection[int]) -> str:
    return ", ".join(map(str, seeds))
