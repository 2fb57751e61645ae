"""When unlabelled scans may join: per target, once the labelled ones have taught it.

    streak_t = rounds in a row, up to now, in which the sites' validation of target t reached its threshold; rounds that did not measure it
               are passed over, but where more than R of them come together the target counts as unmeasured
    ready_t  = streak_t >= R,    ramp_t = exp(-5 (1 - x)^2),  x = min(1, (streak_t - R + 1) / L)

A target that falls below its threshold is taken back, so that pseudo-labels cannot go on feeding a collapse. The ramp is that of Laine
and Aila, ICLR 2017. Pseudo-labels of a class that is not learned yet destroy it (docs/decisions).

A region is judged by the patients in whom it is there to be seen, who have it and, for tumour core and enhancing tumour, a T1ce: by the
usual Dice, where both empty counts 1, a network that never finds enhancement would be ready wherever half of the patients have none. And
regions share a decoder: outlines of whole tumours by the model itself, before it knows enhancement, keep it from learning that. So regions
are counted together (`regions_together`), by the one that lags:

    streak_WT = streak_TC = streak_ET = min of the three
"""

import math
from collections.abc import Mapping, Sequence

from gmmas_schema.federation import SemiSupervisedConfig
from gmmas_schema.messages import Target
from gmmas_schema.vocabulary import MARKERS, REGIONS

_STEEPNESS = 5.0


def targets_ready(history: Sequence[Mapping[str, float]], config: SemiSupervisedConfig | None) -> dict[Target, float]:
    """Return the ramp in (0, 1] of every target that is ready.

    Args:
        history: validation metrics over the sites (`visible_dice_<region>`, `auc_<task>`) of the models so far, oldest first.
        config: thresholds; None for no semi-supervised training.
    """
    if config is None:
        return {}
    streaks: dict[Target, int] = {
        region: _streak(history, f"visible_dice_{region}", config.ready_dice, patience=config.ready_rounds) for region in REGIONS
    }
    if config.regions_together:
        # One that no site has patients enough to measure can become ready by no means, and does not hold up the others; nor does one
        # whose only site has left.
        recent = history[-config.ready_rounds - 1 :]
        measured = [region for region in REGIONS if any(f"visible_dice_{region}" in metrics for metrics in recent)]
        streaks = dict.fromkeys(measured, min((streaks[region] for region in measured), default=0))
    streaks |= {task: _streak(history, f"auc_{task}", config.ready_auc, patience=config.ready_rounds) for task in MARKERS}
    return {target: _ramp(streak, config) for target, streak in streaks.items() if streak >= config.ready_rounds}


def _ramp(streak: int, config: SemiSupervisedConfig) -> float:
    progress = min(1.0, (streak - config.ready_rounds + 1) / config.ramp_rounds)
    return math.exp(-_STEEPNESS * (1 - progress) ** 2)


def _streak(history: Sequence[Mapping[str, float]], metric: str, threshold: float, *, patience: int) -> int:
    """Count the models at the end in which a metric reaches the threshold; over more than `patience` that lack it, none counts."""
    count = missing = 0
    for metrics in reversed(history):
        missing = 0 if metric in metrics else missing + 1
        if missing > patience or (not missing and not metrics[metric] >= threshold):
            break
        count += not missing
    return count
