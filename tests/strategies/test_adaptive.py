"""Against the paper's recursion in float64, written out coordinate by coordinate, and its known limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_schema.strategy import AdamStep, YogiStep
from strategies.adaptive import initial_moments, step_adaptively

updates = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=12)
configs = st.builds(
    lambda kind, first, second, tau: kind(first_decay=first, second_decay=second, adaptivity=tau),
    st.sampled_from([AdamStep, YogiStep]),
    st.sampled_from([0.0, 0.9]),
    st.sampled_from([0.5, 0.99]),
    st.sampled_from([1e-3, 0.1]),
)


def follow(config, steps, start=0.0):
    current = np.full(2, start, np.float32)
    moments = initial_moments(config, current)
    for update in steps:
        current, moments = step_adaptively(config, mean=current + np.float32(update), current=current, moments=moments)
    return current, moments


def recursion(config, steps):
    """Algorithm 2 in double precision; the update is what float32 keeps of it."""
    x, m, v = np.float32(0), 0.0, config.adaptivity**2
    for step in steps:
        d = float(np.float32(x + np.float32(step)) - x)
        m = config.first_decay * m + (1 - config.first_decay) * d
        change = d * d if config.kind == "yogi" else 0.0
        if config.kind == "yogi":
            v -= (1 - config.second_decay) * change * np.sign(v - change)
        else:
            v = config.second_decay * v + (1 - config.second_decay) * d * d
        x = np.float32(float(x) + config.learning_rate * m / (v**0.5 + config.adaptivity))
    return x


@given(configs, updates)
def test_it_is_the_papers_recursion(config, steps):
    current, _ = follow(config, steps)
    np.testing.assert_allclose(current, recursion(config, steps), rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("kind", [AdamStep, YogiStep])
@pytest.mark.parametrize("update", [0.003, 3.0])
def test_a_steady_update_makes_steps_of_the_learning_rate_whatever_its_size(kind, update):
    config = kind(adaptivity=1e-6, second_decay=0.9)
    before, _ = follow(config, [update] * 199)
    after, _ = follow(config, [update] * 200)
    np.testing.assert_allclose(after - before, config.learning_rate, rtol=0.02)


@pytest.mark.parametrize("kind", [AdamStep, YogiStep])
def test_the_first_step_is_not_corrected_for_the_start_of_the_means(kind):
    config = kind(first_decay=0.9, second_decay=0.99, adaptivity=0.01, learning_rate=1.0)
    current, _ = follow(config, [0.5])
    second = {"adam": 0.99 * 0.01**2 + 0.01 * 0.25, "yogi": 0.01**2 + 0.01 * 0.25}[config.kind]
    np.testing.assert_allclose(current, 0.1 * 0.5 / (second**0.5 + 0.01), rtol=1e-5)


@given(configs.filter(lambda config: config.kind == "yogi"), updates)
def test_yogis_second_moment_is_never_negative(config, steps):
    assert (follow(config, steps)[1].second >= 0).all()


def test_no_update_from_rest_moves_nothing():
    for config in (AdamStep(), YogiStep()):
        current, _ = follow(config, [0.0] * 3, start=1.5)
        np.testing.assert_array_equal(current, 1.5)
