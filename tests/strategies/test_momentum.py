import numpy as np
import pytest

from gmmas_schema.strategy import MomentumStep
from strategies.momentum import step_with_momentum


def full(value):
    return np.full(3, value, np.float32)


def test_a_share_of_the_step_before_is_made_again():
    following = step_with_momentum(MomentumStep(momentum=0.5), mean=full(2.0), current=full(1.0), previous=full(-1.0))
    np.testing.assert_array_equal(following, 3)


def test_the_first_round_has_no_step_before():
    following = step_with_momentum(MomentumStep(momentum=0.9), mean=full(2.0), current=full(1.0), previous=None)
    np.testing.assert_array_equal(following, 2)


@pytest.mark.parametrize("momentum", [0.3, 0.9])
def test_a_constant_update_reaches_the_heavy_balls_speed(momentum):
    previous, current = full(0.0), full(0.0)
    for _ in range(200):
        following = step_with_momentum(MomentumStep(momentum=momentum), mean=current + np.float32(0.01), current=current, previous=previous)
        previous, current = current, following
    np.testing.assert_allclose(current - previous, 0.01 / (1 - momentum), rtol=1e-3)
