import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gmmas_model.network import GmmasNetwork
from gmmas_schema.federation import TrainingPlan
from gmmas_workflows.optimisation import learning_rate, make_optimizer


def test_learning_rate_warms_up_peaks_and_ends_at_its_share() -> None:
    plan = TrainingPlan(learning_rate=1e-3, warmup_steps=10, final_learning_rate_share=0.1)
    assert learning_rate(plan, step=0, steps=100) == pytest.approx(1e-4)
    assert learning_rate(plan, step=9, steps=100) == pytest.approx(1e-3)
    assert learning_rate(plan, step=10, steps=100) == pytest.approx(1e-3)
    assert learning_rate(plan, step=55, steps=100) == pytest.approx(1e-3 * (0.1 + 0.9 / 2))
    assert learning_rate(plan, step=100, steps=100) == pytest.approx(1e-4)


@given(
    steps=st.integers(1, 500),
    warmup=st.integers(0, 600),
    share=st.floats(0, 1),
    step=st.integers(0, 1000),
)
def test_learning_rate_stays_within_its_bounds_and_falls_after_warm_up(steps: int, warmup: int, share: float, step: int) -> None:
    plan = TrainingPlan(learning_rate=1.0, warmup_steps=warmup, final_learning_rate_share=share)
    now, then = (learning_rate(plan, step=s, steps=steps) for s in (step, step + 1))
    assert 0 <= now <= 1 + 1e-12
    if step >= warmup:
        assert now >= share - 1e-12
        assert then <= now + 1e-12


def test_only_trainable_matrices_are_decayed(definition) -> None:
    network = GmmasNetwork(definition.network)
    for parameter in network.heads.parameters():
        parameter.requires_grad_(False)
    decayed, plain = make_optimizer(network, TrainingPlan(weight_decay=0.1)).param_groups
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0
    assert all(names[id(p)].endswith("weight") for p in decayed["params"])
    assert {"uncertainty.idh", "gates.t1.bias"} <= {names[id(p)] for p in plain["params"]}
    assert not any(names[id(p)].startswith("heads.") for p in (*decayed["params"], *plain["params"]))
    count = sum(p.requires_grad for p in network.parameters())
    assert len(decayed["params"]) + len(plain["params"]) == count


def test_a_network_of_vectors_has_no_empty_group() -> None:
    optimizer = make_optimizer(nn.LayerNorm(4), TrainingPlan())
    assert [len(group["params"]) for group in optimizer.param_groups] == [2]
    assert math.isclose(optimizer.param_groups[0]["lr"], TrainingPlan().learning_rate)
