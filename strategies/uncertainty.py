"""Task weights in closed form: the log-variances that minimise the weighed loss, from the sites' mean losses.

    s_t = argmin_s 1/2 (exp(-s) (L_t + d) + s) = log(L_t + d),     L_t = sum_k n_kt L_kt / sum_k n_kt

Kendall, Gal and Cipolla, CVPR 2018, eq. 7, solved instead of learned: nothing can run away, a short run is at its optimum at once, and
no site's optimiser moves a number that means something for all. d is the floor of gmmas_schema.federation.LOSS_FLOOR.

A site says itself what its loss is: it counts at most as LARGEST_RATIO times that by chance (strategies.fairness), so that nobody can
switch a task off for all.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np

from gmmas_schema.federation import CHANCE_LOG_LOSS, LOSS_FLOOR
from gmmas_schema.vocabulary import TASKS, Task
from strategies.fairness import LARGEST_RATIO


def closed_form(losses: Iterable[tuple[Mapping[Task, float], Mapping[Task, int]]]) -> dict[Task, float]:
    """Return the log-variance of every task that a site trained.

    Args:
        losses: per site the mean loss before tasks are weighed, and the number of labelled cases, per task.
    """
    reports = list(losses)
    found: dict[Task, float] = {}
    for task in TASKS:
        most = LARGEST_RATIO * math.exp(CHANCE_LOG_LOSS[task])
        pairs = [(min(loss[task], most), counts.get(task, 0)) for loss, counts in reports if task in loss and counts.get(task, 0) > 0]
        total = sum(count for _, count in pairs)
        if total:
            found[task] = math.log(math.fsum(loss * count for loss, count in pairs) / total + LOSS_FLOOR)
    return found


def closed_form_tensors(losses: Iterable[tuple[Mapping[Task, float], Mapping[Task, int]]]) -> dict[str, np.ndarray]:
    """Return the model's tensors `uncertainty.<task>`, set to closed_form."""
    return {f"uncertainty.{task}": np.array(value, np.float32) for task, value in closed_form(losses).items()}
