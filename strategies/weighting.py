"""The choice of a weighting by the federation's configuration. A new one is a file beside fedavg.py and a line here."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.federation import TrainingPlan
from gmmas_schema.messages import SiteReport
from gmmas_schema.strategy import HoldersStrategy, PseudoTerms, Strategy
from strategies.fedavg import weigh_cases
from strategies.holders import weigh_holders
from strategies.rows import split_rows

Float32 = NDArray[np.float32]
Weighting = Callable[[SiteReport], dict[str, float]]
"""From a site's report to its weight per group; a group that is missing has weight 0."""


def choose_weighting(
    strategy: Strategy,
    *,
    plan: TrainingPlan = TrainingPlan(),  # noqa: B008 - frozen
    pseudo: PseudoTerms = PseudoTerms(),  # noqa: B008 - frozen
) -> Weighting:
    """Return the weighting that `strategy.kind` names.

    Args:
        strategy: kind and settings.
        plan: what the sites train; FedAvg does not look at it.
        pseudo: what pseudo-labelled cases count; FedAvg counts every case.
    """
    if isinstance(strategy, HoldersStrategy):
        return partial(weigh_holders, plan=plan, pseudo=pseudo, strategy=strategy)
    return weigh_cases


def as_averaged(tensors: Mapping[str, Float32], strategy: Strategy) -> Mapping[str, Float32]:
    """Return the tensors as the weighting speaks of them: the segmentation head whole, or row by row (strategies.rows)."""
    return split_rows(tensors) if isinstance(strategy, HoldersStrategy) and strategy.region_rows else tensors
