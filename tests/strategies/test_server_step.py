import numpy as np
import pytest

from gmmas_schema.strategy import AdamStep, AverageStep, MomentumStep, YogiStep
from strategies.server_step import make_step

NAMES = ("encoders.t1.w", "uncertainty.idh", "heads.idh.w")
KINDS = [AverageStep(learning_rate=0.7), MomentumStep(), AdamStep(), YogiStep()]


def model(value):
    return {name: np.full(3, value, np.float32) for name in NAMES}


MOVED = {"encoder.t1", "uncertainty.idh"}


def test_plain_averaging_is_the_mean():
    step = make_step(AverageStep(), mean=model(2.0), current=model(1.0), previous=model(0.0), moved=MOVED | {"head.idh"})
    for name in NAMES:
        np.testing.assert_array_equal(step.tensors[name], 2)
    assert not step.state


def test_learning_rate_scales_the_mean_update():
    step = make_step(AverageStep(learning_rate=0.5), mean=model(2.0), current=model(1.0), previous=None, moved=MOVED)
    np.testing.assert_array_equal(step.tensors["encoders.t1.w"], 1.5)


@pytest.mark.parametrize("config", KINDS, ids=lambda config: config.kind)
def test_log_variances_are_averaged_plainly_and_groups_nobody_sent_stay(config):
    mean = model(2.0) | {"heads.idh.w": np.full(3, 1.0, np.float32)}
    step = make_step(config, mean=mean, current=model(1.0), previous=model(-1.0), moved=MOVED)
    np.testing.assert_array_equal(step.tensors["uncertainty.idh"], 2)
    assert step.tensors["heads.idh.w"].tobytes() == model(1.0)["heads.idh.w"].tobytes()
    assert not np.array_equal(step.tensors["encoders.t1.w"], model(1.0)["encoders.t1.w"])


@pytest.mark.parametrize("config", [AdamStep(), YogiStep()], ids=lambda config: config.kind)
def test_the_memory_of_a_group_waits_while_nobody_sends_it(config):
    first = make_step(config, mean=model(2.0), current=model(1.0), previous=None, moved=MOVED)
    second = make_step(config, mean=first.tensors, current=first.tensors, previous=None, moved={"head.idh"}, state=first.state)
    assert set(second.state) > set(first.state)
    for name, value in first.state.items():
        assert second.state[name].tobytes() == value.tobytes()
    third = make_step(config, mean=model(2.0), current=first.tensors, previous=None, moved=MOVED, state=second.state)
    without = make_step(config, mean=model(2.0), current=first.tensors, previous=None, moved=MOVED, state=first.state)
    assert third.tensors["encoders.t1.w"].tobytes() == without.tensors["encoders.t1.w"].tobytes()


@pytest.mark.parametrize("config", KINDS, ids=lambda config: config.kind)
def test_order_and_type_stay(config):
    step = make_step(config, mean=model(2.0), current=model(1.0), previous=model(0.0), moved=MOVED)
    assert list(step.tensors) == list(NAMES)
    assert {value.dtype for value in (*step.tensors.values(), *step.state.values())} == {np.dtype(np.float32)}
    assert {value.shape for value in (*step.tensors.values(), *step.state.values())} == {(3,)}
