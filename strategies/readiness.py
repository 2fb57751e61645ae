"""When unlabelled scans may join: per target, once the labelled ones have taught it.

    streak_t = rounds in a row, up to now, in which the sites' validation of target t reached its threshold
    ready_t  = streak_t >= R,    ramp_t = exp(-5 (1 - x)^2),  x = min(1, (streak_t - R + 1) / L)

A target that falls below its threshold is taken back, so that pseudo-labels cannot go on feeding a collapse. The ramp is that of Laine
and Aila, ICLR 2017. Pseudo-labels of a class that is not learned yet destroy it (docs/decisions).
"""

import math
from collections.abc import Mapping, Sequence

from gmmas_schema.federation import SemiSupervisedConfig
from gmmas_schema.messages import Target
from gmmas_schema.vocabulary import REGIONS, TASKS, Task

_STEEPNESS = 5.0


def targets_ready(history: Sequence[Mapping[str, float]], config: SemiSupervisedConfig | None) -> dict[Target, float]:
    """Return the ramp in (0, 1] of every target that is ready.

    Args:
        history: validation metrics over the sites (`dice_<region>`, `auc_<task>`) of the models so far, oldest first.
        config: thresholds; None for no semi-supervised training.
    """
    if config is None:
        return {}
    thresholds: dict[Target, tuple[str, float]] = {region: (f"dice_{region}", config.ready_dice) for region in REGIONS}
    thresholds |= {task: (f"auc_{task}", config.ready_auc) for task in TASKS if task is not Task.SEGMENTATION}
    ready: dict[Target, float] = {}
    for target, (metric, threshold) in thresholds.items():
        streak = _streak([metrics.get(metric, -math.inf) for metrics in history], threshold)
        if streak >= config.ready_rounds:
            progress = min(1.0, (streak - config.ready_rounds + 1) / config.ramp_rounds)
            ready[target] = math.exp(-_STEEPNESS * (1 - progress) ** 2)
    return ready


def _streak(values: Sequence[float], threshold: float) -> int:
    """Count the values at the end that reach the threshold without a gap."""
    count = 0
    for value in reversed(values):
        if not value >= threshold:
            break
        count += 1
    return count
