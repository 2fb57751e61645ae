"""Holders-only weighting: a group is averaged over the sites that hold it, by the square root of their effective case count.

For group g and site k with n_k,t labelled training cases of task t:

    w_k,g = sqrt(n_k,t)          head.t, uncertainty.t, and the decoder (t = segmentation)
    w_k,g = sqrt(max_t n_k,t)    encoders, gates, fusion, bottleneck

    theta_g = sum_k w_k,g theta_k,g / sum_k w_k,g    over the sites k that sent g; unchanged where none did

A site without a modality or without labels of a task has weight 0 in the groups that rest on them. Averaging each parameter over its
holders only: Diao, Ding and Tarokh, "HeteroFL", ICLR 2021. The square root, between equal weights and FedAvg's n, keeps one large
hospital from drowning the small ones.
"""

import math

from gmmas_schema.groups import groups_sent
from gmmas_schema.messages import SiteReport
from gmmas_schema.vocabulary import Task


def weigh_holders(report: SiteReport) -> dict[str, float]:
    """Return the site's positive weight in every group it may send; a group that is missing has weight 0."""
    largest = max(report.labelled.values(), default=0)
    counts = {group: _count(group, report, largest) for group in groups_sent(report.modalities, report.labelled)}
    return {group: math.sqrt(count) for group, count in counts.items() if count > 0}


def _count(group: str, report: SiteReport, largest: int) -> int:
    """Return the effective case count behind a group; `largest` is the count of the best-labelled task."""
    kind, _, name = group.partition(".")
    if kind == "decoder":
        return report.labelled.get(Task.SEGMENTATION, 0)
    return report.labelled.get(Task(name), 0) if kind in {"head", "uncertainty"} else largest
