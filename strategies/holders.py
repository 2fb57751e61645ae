"""Averaging each group over the sites that hold it, weighted by the square root of the cases behind it; the default.

    e_k,t = n_k,t + sum over pseudo-labelled cases of w_t q_k,t          effective cases of task t at site k
    w_k,g = sqrt(e_k,t)                  heads and uncertainties of task t: labels only; decoder: t = segmentation
    w_k,g = sqrt(max_t e_k,t)            encoders, gates, fusion, bottleneck, adapter

    theta_g = sum_k w_k,g theta_k,g / sum_k w_k,g    over the sites k that sent g; unchanged where none did

A site without a modality or without labels of a task has weight 0 in the groups that rest on them. Averaging each parameter over its
holders only: Diao, Ding and Tarokh, "HeteroFL", ICLR 2021. The square root, between equal weights and FedAvg's n, keeps one large
hospital from drowning the small ones. q, the accepted share times the agreement, is what the site says of itself; it cannot exceed 1.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

from gmmas_schema.groups import groups_sent
from gmmas_schema.messages import SiteReport, Target
from gmmas_schema.vocabulary import Task
from strategies.readiness import task_of

SCALES: Mapping[str, Callable[[float], float]] = MappingProxyType({"sqrt": math.sqrt, "cases": float, "uniform": lambda _: 1.0})


def weigh_holders(report: SiteReport, *, pseudo: Mapping[Target, float] = MappingProxyType({}), weights: str = "sqrt") -> dict[str, float]:
    """Return the site's positive weight in every group it may send; a group that is missing has weight 0.

    Args:
        report: the site's counts.
        pseudo: what a pseudo-labelled case of each target counts (strategies.readiness.pseudo_weights).
        weights: scale of the counts: `sqrt`, `cases` or `uniform`.
    """
    effective = effective_cases(report, pseudo)
    groups = groups_sent(report.modalities, report.labelled, pseudo=accepted_targets(report))
    counts = {group: _count(group, report, effective) for group in groups}
    return {group: SCALES[weights](count) for group, count in counts.items() if count > 0}


def accepted_targets(report: SiteReport) -> tuple[Target, ...]:
    """Return the targets of which the site accepted pseudo-labels."""
    return tuple(target for target, ledger in report.pseudo_labels.items() if ledger.accepted > 0)


def effective_cases(report: SiteReport, pseudo: Mapping[Target, float]) -> dict[Task, float]:
    """Return labelled cases plus the share that pseudo-labelled ones count, per task; of the regions the best one counts."""
    extra: dict[Task, float] = {}
    for target, ledger in report.pseudo_labels.items():
        task = task_of(target)
        mass = pseudo.get(target, 0.0) * min(1.0, ledger.share * ledger.agreement) * ledger.accepted
        extra[task] = max(extra.get(task, 0.0), mass)
    return {task: report.labelled.get(task, 0) + extra.get(task, 0.0) for task in {*report.labelled, *extra}}


def _count(group: str, report: SiteReport, effective: Mapping[Task, float]) -> float:
    """Return the effective cases behind a group; anchors carry their own counts."""
    kind, _, name = group.partition(".")
    if kind == "anchors":
        return 1.0
    if kind in {"head", "uncertainty"}:
        return report.labelled.get(Task(name), 0)
    return effective.get(Task.SEGMENTATION, 0.0) if kind == "decoder" else max(effective.values(), default=0.0)
