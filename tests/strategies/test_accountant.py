import dp_accounting
import pytest
from dp_accounting import pld, rdp
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from strategies.accountant import MOST_RELEASES, affordable_releases, epsilon_of, keeps_within

DELTA = 1e-5


@pytest.mark.parametrize(("noise_multiplier", "releases"), [(1.0, 1), (1.0, 20), (4.0, 32), (20.0, 100)])
def test_epsilon_is_that_of_the_librarys_accountants(noise_multiplier, releases):
    event = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(noise_multiplier), releases)
    found = epsilon_of(releases, noise_multiplier=noise_multiplier, delta=DELTA)
    tight, loose = pld.PLDAccountant(), rdp.RdpAccountant()
    tight.compose(event)
    loose.compose(event)
    assert found == pytest.approx(tight.get_epsilon(DELTA), rel=1e-4)
    assert found < loose.get_epsilon(DELTA) < 1.3 * found


def test_nothing_released_costs_nothing_and_every_release_costs_more():
    spent = [epsilon_of(releases, noise_multiplier=2.0, delta=DELTA) for releases in range(6)]
    assert spent[0] == 0
    assert spent == sorted(set(spent))


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0, 300.0])
def test_the_budget_affords_just_so_many_releases(epsilon):
    count = affordable_releases(noise_multiplier=3.0, delta=DELTA, epsilon=epsilon)
    if count:
        assert epsilon_of(count, noise_multiplier=3.0, delta=DELTA) <= epsilon
    assert epsilon_of(count + 1, noise_multiplier=3.0, delta=DELTA) > epsilon


def test_a_budget_without_end_has_an_end():
    assert MOST_RELEASES // 2 <= affordable_releases(noise_multiplier=1e6, delta=DELTA, epsilon=1e6) <= MOST_RELEASES


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    noise_multiplier=st.floats(0.05, 200),
    epsilon=st.floats(0.01, 500),
    releases=st.integers(1, 5000),
    delta=st.sampled_from([1e-9, 1e-5, 1e-2]),
)
def test_hospitals_judge_a_budget_as_the_accountant_does(noise_multiplier, epsilon, releases, delta):
    spent = epsilon_of(releases, noise_multiplier=noise_multiplier, delta=delta)
    assume(abs(spent - epsilon) > 1e-6 * epsilon)
    assert keeps_within(releases, noise_multiplier=noise_multiplier, epsilon=epsilon, delta=delta) is (spent <= epsilon)
