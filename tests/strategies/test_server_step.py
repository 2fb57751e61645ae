import numpy as np
import pytest

from gmmas_schema.federation import ServerStep
from strategies.server_step import make_step

NAMES = ("encoders.t1.w", "uncertainty.idh", "heads.idh.w")


def model(value):
    return {name: np.full(3, value, np.float32) for name in NAMES}


MOVED = {"encoder.t1", "uncertainty.idh"}


def test_plain_averaging_is_the_mean():
    following = make_step(ServerStep(), mean=model(2.0), current=model(1.0), previous=model(0.0), moved=MOVED | {"head.idh"})
    for name in NAMES:
        np.testing.assert_array_equal(following[name], 2)


def test_momentum_repeats_a_share_of_the_step_before():
    following = make_step(ServerStep(momentum=0.5), mean=model(2.0), current=model(1.0), previous=model(-1.0), moved=MOVED)
    np.testing.assert_array_equal(following["encoders.t1.w"], 3)


def test_learning_rate_scales_the_mean_update():
    following = make_step(ServerStep(learning_rate=0.5), mean=model(2.0), current=model(1.0), previous=None, moved=MOVED)
    np.testing.assert_array_equal(following["encoders.t1.w"], 1.5)


def test_log_variances_and_groups_nobody_sent_have_no_momentum():
    mean = model(2.0) | {"heads.idh.w": np.full(3, 1.0, np.float32)}
    following = make_step(ServerStep(momentum=0.9), mean=mean, current=model(1.0), previous=model(-1.0), moved=MOVED)
    np.testing.assert_array_equal(following["uncertainty.idh"], 2)
    np.testing.assert_array_equal(following["heads.idh.w"], 1)


def test_order_and_type_stay():
    following = make_step(ServerStep(momentum=0.5), mean=model(2.0), current=model(1.0), previous=model(0.0), moved=MOVED)
    assert list(following) == list(NAMES)
    assert {value.dtype for value in following.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("momentum", [0.3, 0.9])
def test_a_constant_update_reaches_the_heavy_balls_speed(momentum):
    previous, current = model(0.0), model(0.0)
    for _ in range(200):
        mean = {name: value + np.float32(0.01) for name, value in current.items()}
        previous, current = current, make_step(ServerStep(momentum=momentum), mean=mean, current=current, previous=previous, moved=MOVED)
    step = current["encoders.t1.w"] - previous["encoders.t1.w"]
    np.testing.assert_allclose(step, 0.01 / (1 - momentum), rtol=1e-3)
