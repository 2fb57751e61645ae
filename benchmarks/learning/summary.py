"""What the tables say: one row an arm, with its figures, their differences to another arm on the same patients, and what is missing.

Everything in a row is of the same seeds: those that both the arm and what it is compared with have. So the mean of what it is compared with
over these seeds (`compared`), and not the mean in that arm's own row, is what the difference adds up to.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import Field

from benchmarks.learning.plan import Arm, LearningPlan
from benchmarks.learning.results import ArmResult, Missing
from benchmarks.learning.statistics import FIGURES, CaseTable, Figure, agree_on_regions, compare, outlining_nothing, value_of
from gmmas_schema.base import FrozenModel
from gmmas_schema.messages import Interval, Target
from gmmas_schema.vocabulary import REGIONS, Region, Split, Task

Results = Mapping[str, Mapping[int, ArmResult]]
"""Results by arm and seed."""
Tables = Mapping[int, CaseTable]
"""Held-out patients of one arm by seed."""


class FigureSummary(FrozenModel):
    """One figure of one arm; None where it is not defined in every seed of the row.

    Attributes:
        mean: over the row's seeds.
        compared: mean of what the arm is compared with, over the same seeds.
        by_seed: of every seed there is.
        difference: mean - compared.
    """

    mean: float | None
    compared: float | None
    by_seed: dict[int, float | None]
    difference: Interval


class ArmSummary(FrozenModel):
    """One row.

    Attributes:
        seeds: of everything in the row but `by_seed`: those that what it is compared with has too; all, where that has none of them.
        unpaired: other seeds that there are results of.
        software: commits that trained or scored it; `precision`, in which they did.
        figures: by name (statistics.FIGURES), at the held-out hospital of the report.
        ratio: mean 15-subset Dice over that of the upper bound, over `ratio_seeds`.
        hd95_ratio: HD95 over that of the arm it is compared with, over 15 subsets and with all four sequences; empty unless both compare
            surfaces.
        worst_site: lowest over the training hospitals of the mean Dice of their own held-out patients, mean over seeds.
        own_dice: that Dice by hospital.
        mib_down: per run; steps too.
        log_variance: smallest at the end of a run, per task, over seeds.
        joined: by seed the round in which pseudo-labels of a target first counted; None where the arm has no pseudo-labels.
        validation: mean over seeds of the validation figures by round.
    """

    arm: Arm
    seeds: tuple[int, ...]
    unpaired: tuple[int, ...] = ()
    software: tuple[str, ...]
    precision: tuple[str, ...]
    figures: dict[str, FigureSummary]
    ratio: Interval
    ratio_seeds: tuple[int, ...]
    hd95_ratio: dict[str, Interval] = Field(default_factory=dict)
    worst_site: float | None
    own_dice: dict[str, float]
    mib_down: float
    mib_up: float
    steps: int
    log_variance: dict[Task, float]
    joined: dict[int, dict[Target, int]] | None = None
    validation: dict[str, list[tuple[int, float]]]


class Floor(FrozenModel):
    """What a model that outlines nothing would score with one seed.

    Attributes:
        patients: at the held-out hospital; `enhancing` of them have an enhancing tumour.
        figures: those of outlines, by name.
    """

    patients: int
    enhancing: int
    figures: dict[str, float]


class Summary(FrozenModel):
    """The report; benchmarks/results/learning.json.

    Attributes:
        command: what made it.
        site: held-out hospital it is about.
        incomplete: a final report that lacks runs of the main arms.
        missing: runs without a result.
        floor: by seed.
        plan: the whole plan.
    """

    command: str
    machine: str
    site: str
    incomplete: bool = False
    missing: tuple[Missing, ...] = ()
    floor: dict[int, Floor]
    plan: dict[str, Any]
    arms: tuple[ArmSummary, ...]


def summarise(
    plan: LearningPlan,
    results: Results,
    *,
    final: bool,
    command: str,
    machine: str,
    missing: Sequence[Missing] = (),
    incomplete: bool = False,
) -> Summary:
    """Return the report on the development hospital, or on the test hospital if it is final.

    Args:
        plan: arms without any result have no row.
        results: by arm and seed; the reference is among them.
        final: look at the test hospital.
        command: what made it.
        machine: where.
        missing: runs without a result.
        incomplete: main arms are among them, and it is final all the same.

    Raises:
        DataError: two arms of a seed were scored on different patients.
    """
    site, split = (plan.test, Split.TEST) if final else (plan.development, Split.VALIDATION)
    tables = _tables(results, site)
    compared = {arm.name: tables.get(arm.compare_with or plan.reference, {}) for arm in plan.arms}
    bound = tables.get(plan.upper_bound, {})
    shown = [arm for arm in plan.arms if results.get(arm.name)]
    return Summary(
        command=command,
        machine=machine,
        site=site,
        incomplete=incomplete,
        missing=tuple(missing),
        floor=_floor(tables),
        plan=plan.model_dump(mode="json"),
        arms=tuple(_summarise_arm(arm, results[arm.name], tables[arm.name], compared[arm.name], bound, split) for arm in shown),
    )


def write_json(summary: Summary) -> bytes:
    """Return the report as JSON."""
    return json.dumps(_rounded(summary.model_dump(mode="json")), indent=1).encode() + b"\n"


def validation_curves(runs: Sequence[ArmResult]) -> dict[str, list[tuple[int, float]]]:
    """Return validation figures by round, as far as every seed has them; `dice` is the mean over the regions.

    The score, by which a run chooses its best model, has not always been made in the same way (gmmas_workflows.scores).
    """
    curves: dict[str, dict[int, list[float]]] = {}
    for point in (point for run in runs for point in run.curve):
        dice = [point.metrics[f"dice_{region}"] for region in REGIONS if f"dice_{region}" in point.metrics]
        for name, value in {**point.metrics, "score": point.score, "dice": float(np.mean(dice)) if dice else None}.items():
            if value is not None:
                curves.setdefault(name, {}).setdefault(point.round, []).append(value)
    return {
        name: [(number, float(np.mean(values))) for number, values in sorted(points.items()) if len(values) == len(runs)]
        for name, points in curves.items()
    }


def _tables(results: Results, site: str) -> dict[str, dict[int, CaseTable]]:
    """Return the held-out patients of every arm by seed; all arms of a seed agree on which of them have which regions."""
    tables: dict[str, dict[int, CaseTable]] = {arm: {} for arm in results}
    for seed in sorted({seed for of_arm in results.values() for seed in of_arm}):
        of_seed = {arm: CaseTable.of(of_arm[seed].held_out[site]) for arm, of_arm in results.items() if seed in of_arm}
        for arm, table in agree_on_regions(of_seed, seed=seed).items():
            tables[arm][seed] = table
    return tables


def _floor(tables: Mapping[str, Tables]) -> dict[int, Floor]:
    of_seed = {seed: table for of_arm in tables.values() for seed, table in of_arm.items()}
    outlines = [name for name in FIGURES if name.startswith(("dice", "et_"))]
    return {
        seed: Floor(
            patients=len(table.cases),
            enhancing=int(table.has_KR[:, REGIONS.index(Region.ET)].sum()),
            figures={name: value for name in outlines if np.isfinite(value := value_of(FIGURES[name], outlining_nothing(table)))},
        )
        for seed, table in sorted(of_seed.items())
    }


def _summarise_arm(
    arm: Arm, results: Mapping[int, ArmResult], tables: Tables, reference: Tables, bound: Tables, split: Split
) -> ArmSummary:
    seeds = sorted(tables.keys() & reference.keys()) or sorted(tables)
    row = {seed: tables[seed] for seed in seeds}
    others = {seed: table for seed, table in reference.items() if seed in row} if tables is not reference else {}
    runs = [results[seed] for seed in seeds]
    own = [_own_dice(run, split) for run in runs]
    ratios = {name: compare(FIGURES[name], row, others, how="ratio") for name in ("hd95", "hd95_full")}
    return ArmSummary(
        arm=arm,
        seeds=tuple(seeds),
        unpaired=tuple(sorted(tables.keys() - row.keys())),
        software=tuple(sorted({commit for run in runs for commit in run.commits})),
        precision=tuple(sorted({run.precision for run in runs})),
        figures={name: _summarise_figure(figure, tables, row, others) for name, figure in FIGURES.items()},
        ratio=compare(FIGURES["dice"], row, bound, how="ratio"),
        ratio_seeds=tuple(sorted(row.keys() & bound.keys())),
        hd95_ratio={name: ratio for name, ratio in ratios.items() if ratio.value is not None},
        worst_site=_mean(min(dice.values(), default=np.nan) for dice in own),
        own_dice={site: float(np.mean([dice[site] for dice in own])) for site in own[0]},
        mib_down=float(np.mean([run.mib_down for run in runs])),
        mib_up=float(np.mean([run.mib_up for run in runs])),
        steps=max(run.steps for run in runs),
        log_variance={task: min(run.log_variance[task] for run in runs) for task in runs[0].log_variance},
        joined={seed: results[seed].joined for seed in seeds} if _has_pseudo_labels(runs[0]) else None,
        validation=validation_curves(runs),
    )


def _summarise_figure(figure: Figure, tables: Tables, row: Tables, others: Tables) -> FigureSummary:
    """Return a figure of an arm: of all its seeds, and of the row's, beside what it is compared with."""
    values = {seed: value_of(figure, table) for seed, table in tables.items()}
    return FigureSummary(
        mean=_mean(values[seed] for seed in row),
        compared=_mean(value_of(figure, table) for table in others.values()),
        by_seed={seed: value if np.isfinite(value) else None for seed, value in values.items()},
        difference=compare(figure, row, others),
    )


def _has_pseudo_labels(run: ArmResult) -> bool:
    return run.experiment.federation.training.semi_supervised is not None


def _own_dice(result: ArmResult, split: Split) -> dict[str, float]:
    """Return the mean Dice over patients and regions of each training hospital that has segmentations in the split."""
    rows_of = {site: rows for site, parts in result.own.items() if (rows := parts.get(split))}
    return {site: float(np.mean([[*row.dice.values()] for row in rows])) for site, rows in rows_of.items()}


def _mean(values: Iterable[float]) -> float | None:
    """Return the mean; None where there is nothing, or where a value is not defined: a mean over fewer seeds would be another one."""
    known = list(values)
    return float(np.mean(known)) if known and np.isfinite(known).all() else None


def _rounded(value: Any) -> Any:
    """Return a document with its numbers rounded to what they mean."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value
