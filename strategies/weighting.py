"""The choice of a weighting by the federation's configuration. A new one is a file beside fedavg.py and a line here."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

from gmmas_schema.messages import SiteReport, Target
from gmmas_schema.strategy import HoldersStrategy, Strategy
from strategies.fedavg import weigh_cases
from strategies.holders import weigh_holders

Weighting = Callable[[SiteReport], dict[str, float]]
"""From a site's report to its weight per group; a group that is missing has weight 0."""


def choose_weighting(
    strategy: Strategy,
    *,
    pseudo: Mapping[Target, float] | None = None,
    enhancing_needs_t1ce: Literal["never", "site", "sample"] = "never",
) -> Weighting:
    """Return the weighting that `strategy.kind` names.

    Args:
        strategy: kind and settings.
        pseudo: what a pseudo-labelled case of each target counts against a labelled one; FedAvg counts every case.
        enhancing_needs_t1ce: as in TrainingPlan; decides who counts in the row of the enhancing tumour.
    """
    if isinstance(strategy, HoldersStrategy):
        return partial(weigh_holders, pseudo=pseudo or {}, strategy=strategy, enhancing_needs_t1ce=enhancing_needs_t1ce)
    return weigh_cases


def splits_rows(strategy: Strategy) -> bool:
    """Tell whether the weighting speaks of the rows of the segmentation head (strategies.rows)."""
    return isinstance(strategy, HoldersStrategy) and strategy.region_rows
