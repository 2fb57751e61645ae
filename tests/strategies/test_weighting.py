from typing import get_args

from gmmas_schema.federation import FedAvgStrategy, FederationConfig, Strategy
from strategies.fedavg import weigh_cases
from strategies.holders import weigh_holders
from strategies.weighting import WEIGHTINGS, choose_weighting


def test_every_strategy_that_can_be_configured_has_a_weighting():
    configurable = {kind().kind for kind in get_args(get_args(Strategy)[0])}
    assert configurable == set(WEIGHTINGS)


def test_the_configuration_decides():
    assert choose_weighting(FederationConfig().strategy) is weigh_holders
    assert choose_weighting(FedAvgStrategy()) is weigh_cases
