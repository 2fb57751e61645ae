"""The choice of a weighting by the federation's configuration. A new one is a file beside fedavg.py and a line here."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from gmmas_schema.federation import Strategy
from gmmas_schema.messages import SiteReport
from strategies.fedavg import weigh_cases
from strategies.holders import weigh_holders

Weighting = Callable[[SiteReport], dict[str, float]]
"""From a site's report to its weight per group; a group that is missing has weight 0."""

WEIGHTINGS: Mapping[str, Weighting] = MappingProxyType({"holders": weigh_holders, "fedavg": weigh_cases})


def choose_weighting(strategy: Strategy) -> Weighting:
    """Return the weighting that `strategy.kind` names."""
    return WEIGHTINGS[strategy.kind]
