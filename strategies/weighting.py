"""The choice of a weighting by the federation's configuration. A new one is a file beside fedavg.py and a line here."""

from collections.abc import Callable, Mapping
from functools import partial

from gmmas_schema.messages import SiteReport, Target
from gmmas_schema.strategy import HoldersStrategy, Strategy
from strategies.fedavg import weigh_cases
from strategies.holders import weigh_holders

Weighting = Callable[[SiteReport], dict[str, float]]
"""From a site's report to its weight per group; a group that is missing has weight 0."""


def choose_weighting(strategy: Strategy, *, pseudo: Mapping[Target, float] | None = None) -> Weighting:
    """Return the weighting that `strategy.kind` names.

    Args:
        strategy: kind and settings.
        pseudo: what a pseudo-labelled case of each target counts against a labelled one; FedAvg counts every case.
    """
    if isinstance(strategy, HoldersStrategy):
        return partial(weigh_holders, pseudo=pseudo or {}, weights=strategy.weights)
    return weigh_cases
