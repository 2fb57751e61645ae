"""Averaging each group over the sites that hold it, weighted by the square root of the cases behind it; the default.

    e_k,t = v_t q_k,t u_k,t                        u cases of site k that were offered for pseudo-labels of task t, each counting v_t
    w_k,g = S(n_k,g) + c_g (S(n_k,g + e_k,g) - S(n_k,g))         S the square root, n labelled cases, c <= 1 (strategies.unlabelled)

    behind g: of a head and its uncertainty the labels of its task, and no pseudo-labels; of the decoder the task segmentation; of encoders,
    gates, fusion, bottleneck and adapter the task with most cases, or segmentation where the plan's backbone is that of regions; of a
    sequence's encoder and gate, the labelled cases that have the sequence

    theta_g = sum_k w_k,g theta_k,g / sum_k w_k,g    over the sites k that sent g; unchanged where none did

Where the strategy splits the segmentation head into rows (strategies.rows), a row counts the cases whose outlines teach its region, and
not at all where there are none. Weights may be made fair by the sites' losses (strategies.fairness).

A site without a modality or without labels of a task has weight 0 in the groups that rest on them. Averaging each parameter over its
holders only: Diao, Ding and Tarokh, "HeteroFL", ICLR 2021. The square root, between equal weights and FedAvg's n, keeps one large
hospital from drowning the small ones. q, the accepted share times the agreement, is what the site says of itself; it cannot exceed 1.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from gmmas_schema.federation import TrainingPlan
from gmmas_schema.groups import groups_sent
from gmmas_schema.messages import LabelCounts, SiteReport, Target, task_of
from gmmas_schema.strategy import HoldersStrategy, PseudoTerms
from gmmas_schema.vocabulary import TASKS, Modality, Task
from strategies.fairness import fairness_factor
from strategies.rows import cases_teaching

_SCALES: Mapping[str, Callable[[float], float]] = MappingProxyType({"sqrt": math.sqrt, "cases": float, "uniform": lambda _: 1.0})

_HEAD = f"head.{Task.SEGMENTATION}"


def weigh_holders(
    report: SiteReport,
    *,
    plan: TrainingPlan = TrainingPlan(),  # noqa: B008 - frozen
    pseudo: PseudoTerms = PseudoTerms(),  # noqa: B008 - frozen
    strategy: HoldersStrategy = HoldersStrategy(),  # noqa: B008 - frozen
) -> dict[str, float]:
    """Return the site's positive weight in every group it may send; a group that is missing has weight 0.

    Args:
        report: the site's counts.
        plan: whose labels train the backbone and the enhancing tumour.
        pseudo: what pseudo-labelled cases count.
        strategy: scale of the counts, rows, fairness.
    """
    effective = effective_cases(report.labelled, _counted(report, pseudo.weights))
    weights: dict[str, float] = {}
    for group in groups_sent(report.modalities, report.labelled, pseudo=accepted_targets(report), backbone=plan.backbone):
        if group == "anchors":
            weights[group] = scaled(1, strategy)  # they carry their own counts
            continue
        task, labelled, all_told = cases_behind(group, report, effective, plan)
        own = scaled(labelled, strategy)
        weight = own + pseudo.limits.get(group, 1.0) * (scaled(all_told, strategy) - own)
        if weight > 0:
            weights[group] = weight * fairness_factor(report, task, q=strategy.fairness)
    if strategy.region_rows and _HEAD in weights:
        del weights[_HEAD]
        fair = fairness_factor(report, Task.SEGMENTATION, q=strategy.fairness)
        for region, cases in cases_teaching(report, report.modalities, plan.enhancing_needs_t1ce).items():
            if cases > 0:
                weights[f"{_HEAD}.{region}"] = scaled(cases, strategy) * fair
    return weights


def scaled(cases: float, strategy: HoldersStrategy) -> float:
    """Return what a count of cases weighs; none weigh nothing."""
    return _SCALES[strategy.weights](cases) if cases > 0 else 0.0


def accepted_targets(report: SiteReport) -> tuple[Target, ...]:
    """Return the targets of which the site accepted pseudo-labels."""
    return tuple(target for target, ledger in report.pseudo_labels.items() if ledger.accepted > 0)


def effective_cases(labelled: Mapping[Task, int], pseudo: Mapping[Target, float]) -> dict[Task, float]:
    """Return labelled cases plus what the others count for their pseudo-labels of each target, per task; of regions the best counts."""
    effective = {task: float(count) for task, count in labelled.items()}
    for target, counted in pseudo.items():
        task = task_of(target)
        effective[task] = max(effective.get(task, 0.0), labelled.get(task, 0) + counted)
    return effective


def _counted(report: SiteReport, weights: Mapping[Target, float]) -> dict[Target, float]:
    """Return what the cases that were offered for pseudo-labels of each target count at a site."""
    ledgers = {target: own for target, own in report.pseudo_labels.items() if own.accepted > 0}
    return {target: weights.get(target, 0.0) * min(1.0, own.share * own.agreement) * own.offered for target, own in ledgers.items()}


def cases_behind(group: str, counts: LabelCounts, effective: Mapping[Task, float], plan: TrainingPlan) -> tuple[Task, float, float]:
    """Return the task that a group rests on at a site, of several the one with most cases; its labelled cases; and its effective ones.

    Args:
        group: one that the site may send.
        counts: the site's labels.
        effective: as of effective_cases.
        plan: whose labels train the backbone.
    """
    kind, _, name = group.partition(".")

    def labelled(task: Task) -> float:
        return counts.showing(Modality(name), task) if kind in {"encoder", "gate"} else counts.labelled.get(task, 0)

    if kind in {"head", "uncertainty"}:
        return Task(name), labelled(Task(name)), labelled(Task(name))
    tasks = (Task.SEGMENTATION,) if kind == "decoder" or plan.backbone == "regions" else TASKS
    all_told = {task: labelled(task) + effective.get(task, 0.0) - counts.labelled.get(task, 0) for task in tasks}
    task = max(tasks, key=all_told.__getitem__)
    return task, max(map(labelled, tasks)), all_told[task]
