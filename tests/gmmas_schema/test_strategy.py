import pytest

from gmmas_schema.errors import ConfigError
from gmmas_schema.federation import FederationConfig
from gmmas_schema.strategy import AdamStep, AverageStep, MomentumStep


def parse(**changes) -> FederationConfig:
    return FederationConfig.parse(changes, where="test")


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ({}, AverageStep()),
        ({"learning_rate": 1.0, "momentum": 0.0}, AverageStep()),
        ({"learning_rate": 0.5}, AverageStep(learning_rate=0.5)),
        ({"learning_rate": 1.0, "momentum": 0.5}, MomentumStep(momentum=0.5)),
        ({"kind": "adam"}, AdamStep()),
    ],
)
def test_a_step_from_before_there_were_kinds_is_read_as_it_was_meant(raw, expected):
    assert parse(server_step=raw).server_step == expected
    assert parse().server_step == AverageStep()


@pytest.mark.parametrize(("kind", "reason"), [("adam", "first_decay"), ("yogi", "first_decay"), ("average", "kind momentum has it")])
def test_momentum_beside_another_kind_is_refused_by_both_keys(kind, reason):
    with pytest.raises(ConfigError) as caught:
        parse(server_step={"kind": kind, "momentum": 0.5})
    assert "server_step.momentum" in str(caught.value.got)
    assert f"server_step.kind {kind}" in str(caught.value.got)
    assert reason in str(caught.value.got)


def test_a_resolved_configuration_reads_as_itself():
    config = parse(server_step={"kind": "yogi", "adaptivity": 0.01})
    assert FederationConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({"strategy": {"kind": "fedavg", "fairness": 1.0}}, ("strategy.fairness", "strategy.kind fedavg")),
        ({"strategy": {"kind": "fedavg", "region_rows": True}}, ("strategy.region_rows", "strategy.kind fedavg")),
        (
            {"strategy": {"fairness": 1.0, "kind": "holders"}, "robustness": {"combine": {"kind": "median"}}},
            ("strategy.fairness", "robustness.combine median"),
        ),
        (
            {"strategy": {"fairness": 1.0, "kind": "holders"}, "privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0, "epsilon": 8.0}},
            ("strategy.fairness", "privacy"),
        ),
        ({"training": {"proximal_weight": 0.1, "local_steps": 1}}, ("training.proximal_weight", "training.local_steps 1")),
    ],
)
def test_combinations_that_make_no_sense_are_refused_by_both_keys_and_the_reason(changes, keys):
    with pytest.raises(ConfigError) as caught:
        parse(**changes)
    assert all(key in str(caught.value.got) for key in keys)
    assert "does not go with" in str(caught.value.got)


def test_no_site_is_told_to_train_without_end():
    with pytest.raises(ConfigError, match=r"training\.local_steps"):
        parse(training={"local_steps": 10**9})
