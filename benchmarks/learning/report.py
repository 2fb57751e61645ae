"""The tables: one row an arm, means over seeds, differences to the reference on the same patients; as JSON and as Markdown."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from pydantic import Field

from benchmarks.learning.jobs import ArmResult
from benchmarks.learning.plan import Arm, LearningPlan
from benchmarks.learning.statistics import FIGURES, CaseTable, compare, value_of
from gmmas_schema.base import FrozenModel
from gmmas_schema.messages import Interval
from gmmas_schema.vocabulary import Split, Task

Results = Mapping[str, Mapping[int, ArmResult]]
"""Results by arm and seed."""

SEGMENTING: Final = ("dice", "et_t1ce", "dice_full")
OTHERS: Final = ("auc_idh", "auc_codeletion", "ece", "fewer_better")
"""Figures of the table with their differences, those before and behind the worst hospital."""

_MISSING: Final = "–"


class FigureSummary(FrozenModel):
    """One figure of one arm; None where it is not defined."""

    mean: float | None
    by_seed: dict[int, float | None]
    difference: Interval


class ArmSummary(FrozenModel):
    """One row.

    Attributes:
        software: commits that trained it; `precision`, in which they did.
        figures: by name (statistics.FIGURES), at the held-out hospital of the report.
        ratio: mean 15-subset Dice over that of the upper bound.
        hd95_ratio: HD95 over that of the arm it is compared with, over 15 subsets and with all four sequences; empty unless both compare
            surfaces.
        worst_site: lowest over the training hospitals of the mean Dice of their own held-out patients, mean over seeds.
        own_dice: that Dice by hospital.
        mib_down: per run; seconds and steps too.
        log_variance: smallest at the end of a run, per task, over seeds.
        validation: mean over seeds of the validation figures by round.
    """

    arm: Arm
    seeds: tuple[int, ...]
    software: tuple[str, ...]
    precision: tuple[str, ...]
    figures: dict[str, FigureSummary]
    ratio: Interval
    hd95_ratio: dict[str, Interval] = Field(default_factory=dict)
    worst_site: float | None
    own_dice: dict[str, float]
    mib_down: float
    mib_up: float
    seconds: float
    steps: int
    log_variance: dict[Task, float]
    validation: dict[str, list[tuple[int, float]]]


class Summary(FrozenModel):
    """The report; benchmarks/results/learning.json.

    Attributes:
        command: what made it.
        site: held-out hospital it is about.
        patients: at that hospital, per seed.
        plan: the whole plan.
    """

    command: str
    machine: str
    site: str
    patients: int
    plan: dict[str, Any]
    arms: tuple[ArmSummary, ...]


def summarise(plan: LearningPlan, results: Results, *, final: bool, command: str, machine: str) -> Summary:
    """Return the report on the development hospital, or on the test hospital if it is final.

    Args:
        plan: arms without any result are left out.
        results: by arm and seed; the reference is among them.
        final: look at the test hospital.
        command: what made it.
        machine: where.

    Raises:
        DataError: two arms of a seed were scored on different patients.
    """
    site, split = (plan.test, Split.TEST) if final else (plan.development, Split.VALIDATION)
    tables = {arm: {seed: CaseTable.of(result.held_out[site]) for seed, result in of_seed.items()} for arm, of_seed in results.items()}
    bound = tables.get(plan.upper_bound, {})
    compared = {arm.name: tables.get(arm.compare_with or plan.reference, {}) for arm in plan.arms}
    shown = [arm for arm in plan.arms if results.get(arm.name)]
    arms = [_summarise_arm(arm, results[arm.name], tables[arm.name], compared[arm.name], bound, split) for arm in shown]
    patients = max((len(table.cases) for of_seed in tables.values() for table in of_seed.values()), default=0)
    document = plan.model_dump(mode="json")
    return Summary(command=command, machine=machine, site=site, patients=patients, plan=document, arms=tuple(arms))


def write_json(summary: Summary) -> bytes:
    """Return the report as JSON."""
    return json.dumps(_rounded(summary.model_dump(mode="json")), indent=1).encode() + b"\n"


def write_markdown(summary: Summary) -> str:
    """Return the report as Markdown: a table, and what its columns mean."""
    columns = [
        *("piece", "arm", "seeds", "Dice WT / TC / ET", "mean Dice", "ET from T1ce alone", "Dice, all four", "worst hospital"),
        *("AUC IDH", "AUC 1p/19q", "ECE", "fewer better", "MiB", "s"),
    ]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in summary.arms:
        regions = " / ".join(_number(row.figures[f"dice_{region}"].mean) for region in ("wt", "tc", "et"))
        cells = [row.arm.piece, row.arm.name, str(len(row.seeds)), regions]
        cells += [_with_difference(row.figures[name]) for name in SEGMENTING]
        cells += [_number(row.worst_site)]
        cells += [_with_difference(row.figures[name]) for name in OTHERS]
        cells += [f"{row.mib_down + row.mib_up:.0f}", f"{row.seconds:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_legend(summary), *_notes(summary), ""])


def _summarise_arm(
    arm: Arm,
    results: Mapping[int, ArmResult],
    tables: Mapping[int, CaseTable],
    reference: Mapping[int, CaseTable],
    bound: Mapping[int, CaseTable],
    split: Split,
) -> ArmSummary:
    figures = {}
    for name, figure in FIGURES.items():
        values = {seed: value_of(figure, table) for seed, table in tables.items()}
        figures[name] = FigureSummary(
            mean=_mean(values.values()),
            by_seed={seed: value if np.isfinite(value) else None for seed, value in values.items()},
            difference=Interval() if tables is reference else compare(figure, tables, reference),
        )
    runs = list(results.values())
    own = [_own_dice(run, split) for run in runs]
    return ArmSummary(
        arm=arm,
        seeds=tuple(results),
        software=tuple(sorted({run.software for run in runs})),
        precision=tuple(sorted({run.precision for run in runs})),
        figures=figures,
        ratio=compare(FIGURES["dice"], tables, bound, how="ratio"),
        hd95_ratio={
            name: found
            for name in ("hd95", "hd95_full")
            if tables is not reference and (found := compare(FIGURES[name], tables, reference, how="ratio")).value is not None
        },
        worst_site=_mean(min(dice.values()) for dice in own if dice),
        own_dice={site: float(np.mean([dice[site] for dice in own])) for site in own[0]},
        mib_down=float(np.mean([run.mib_down for run in runs])),
        mib_up=float(np.mean([run.mib_up for run in runs])),
        seconds=float(np.mean([run.seconds for run in runs])),
        steps=max(run.steps for run in runs),
        log_variance={task: min(run.log_variance[task] for run in runs) for task in runs[0].log_variance},
        validation=_validation(runs),
    )


def _own_dice(result: ArmResult, split: Split) -> dict[str, float]:
    """Return the mean Dice over patients and regions of each training hospital that has segmentations in the split."""
    rows_of = {site: rows for site, parts in result.own.items() if (rows := parts.get(split))}
    return {site: float(np.mean([[*row.dice.values()] for row in rows])) for site, rows in rows_of.items()}


def _validation(runs: Sequence[ArmResult]) -> dict[str, list[tuple[int, float]]]:
    """Return validation figures by round, as far as every seed has them."""
    curves: dict[str, dict[int, list[float]]] = {}
    for point in (point for run in runs for point in run.curve):
        for name, value in {**point.metrics, "score": point.score}.items():
            if value is not None:
                curves.setdefault(name, {}).setdefault(point.round, []).append(value)
    return {
        name: [(number, float(np.mean(values))) for number, values in sorted(points.items()) if len(values) == len(runs)]
        for name, points in curves.items()
    }


def _legend(summary: Summary) -> list[str]:
    reference, bound = summary.plan["reference"], summary.plan["upper_bound"]
    own = "test" if summary.site == summary.plan["test"] else "validation"
    return [
        f"Held-out hospital `{summary.site}`, {summary.patients} patients a seed. Means over seeds; behind them the difference to",
        f"`{reference}` on the same patients with its 95 % interval (paired bootstrap over patients within seeds, then over seeds), bold",
        "where it excludes 0. Dice WT / TC / ET, their mean and *fewer better* are over all 15 subsets of the sequences; *fewer better*",
        "is the share of patients and nested pairs of subsets in which the smaller one has the clearly higher Dice (by more than 0.01).",
        "AUCs are with all four sequences, ECE is over all subsets and both markers. *Worst hospital* is the lowest mean Dice among the",
        f"training hospitals, on their own {own} patients with their own sequences. MiB and seconds are those of a run.",
        f"`{bound}` is the upper bound.",
        *_caution(summary),
        "",
    ]


def _caution(summary: Summary) -> list[str]:
    """Return what a reader of many intervals over few seeds has to know."""
    intervals = sum(row.figures[name].difference.low is not None for row in summary.arms for name in (*SEGMENTING, *OTHERS))
    seeds = max((len(row.seeds) for row in summary.arms), default=0)
    lines = [
        f"The table holds {intervals} intervals, not corrected for their number: where nothing differs, one in 20 is bold by chance, and",
        f"more where training falls out differently from seed to seed, which {seeds} seeds show only in part (with 3, up to one in 4).",
        "What is bold in one figure alone is a question for more seeds.",
    ]
    if summary.site == summary.plan["test"]:
        lines += [f"Choices were made on `{summary.plan['development']}`; what is best here has not been chosen by that."]
    return lines


def _verdict(summary: Summary) -> str:
    """Return the line that says which arms the mean Dice tells apart from what they are compared with."""
    changes = {row.arm.name: row.figures["dice"].difference for row in summary.arms}
    known = {name: (change.low, change.high) for name, change in changes.items() if change.low is not None and change.high is not None}
    worse = [name for name, (_, high) in known.items() if high < 0]
    better = [name for name, (low, _) in known.items() if low > 0]
    neither = [name for name in known if name not in {*worse, *better}]
    told = {"worse": worse, "better": better, "not told apart": neither}
    return "- mean Dice, each against what it is compared with: " + "; ".join(
        f"{word}: {', '.join(f'`{name}`' for name in names) or 'none'}" for word, names in told.items()
    )


def _notes(summary: Summary) -> list[str]:
    bound = summary.plan["upper_bound"]
    federated = [row for row in summary.arms if row.arm.kind == "federated" and row.ratio.value is not None]
    lines = [_verdict(summary)]
    lines += [f"- `{row.arm.name}` reaches {_interval(row.ratio)} of the mean 15-subset Dice of `{bound}`" for row in federated]
    lines += [f"- `{row.arm.name}`: {row.arm.note}" for row in summary.arms if row.arm.note]
    lines += [f"- `{row.arm.name}` is compared with `{row.arm.compare_with}`" for row in summary.arms if row.arm.compare_with]
    lines += [_surfaces(row, summary) for row in summary.arms if row.figures["hd95"].mean is not None]
    smallest = {row.arm.name: min(row.log_variance.values()) for row in summary.arms if row.log_variance}
    lines += [f"- smallest log-variance of any task at the end: {', '.join(f'`{name}` {value:.2f}' for name, value in smallest.items())}"]
    commits = sorted({commit for row in summary.arms for commit in row.software})
    lines += [f"- software: {', '.join(commits)}{'; arms of different commits are compared' if len(commits) > 1 else ''}"]
    precisions = sorted({precision for row in summary.arms for precision in row.precision})
    lines += [f"- convolutions in {', '.join(precisions)}{', so arms differ in more than their name' if len(precisions) > 1 else ''}"]
    return [*lines, "", f"`{summary.command}` on {summary.machine}."]


def _surfaces(row: ArmSummary, summary: Summary) -> str:
    """Return the line about an arm's HD95."""
    every, full = (f"{row.figures[name].mean:.2f} mm" for name in ("hd95", "hd95_full"))
    line = f"- `{row.arm.name}`: HD95 {every} over 15 subsets, {full} with all four sequences"
    ratios = " and ".join(_interval(ratio) for ratio in row.hd95_ratio.values())
    return f"{line}; {ratios} times that of `{row.arm.compare_with or summary.plan['reference']}`" if ratios else line


def _interval(interval: Interval) -> str:
    return f"{_number(interval.value)} [{_number(interval.low)}, {_number(interval.high)}]"


def _with_difference(figure: FigureSummary) -> str:
    """Return `0.612 (−0.041 [−0.060, −0.022])`."""
    text, change = _number(figure.mean), figure.difference
    if change.value is None or change.low is None or change.high is None:
        return text
    behind = f"({_signed(change.value)} [{_signed(change.low)}, {_signed(change.high)}])"
    return f"{text} **{behind}**" if change.low > 0 or change.high < 0 else f"{text} {behind}"


def _number(value: float | None) -> str:
    return _MISSING if value is None else f"{value:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _mean(values: Any) -> float | None:
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else None


def _rounded(value: Any) -> Any:
    """Return a document with its numbers rounded to what they mean."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value
