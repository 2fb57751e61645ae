import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_schema.federation import LOSS_FLOOR
from gmmas_schema.vocabulary import Task
from strategies.uncertainty import closed_form

LOSS = st.floats(0, 4)


def test_a_task_that_nobody_trained_is_left_alone():
    assert closed_form([({Task.IDH: 0.3}, {Task.IDH: 0}), ({}, {Task.SEGMENTATION: 4})]) == {}


def test_sites_count_by_their_labels():
    found = closed_form([({Task.IDH: 0.2}, {Task.IDH: 30}), ({Task.IDH: 1.0}, {Task.IDH: 10})])
    assert found == {Task.IDH: pytest.approx(math.log(0.4 + LOSS_FLOOR))}


def test_nobody_switches_a_task_off_for_all():
    (found,) = closed_form([({Task.IDH: 0.2}, {Task.IDH: 30}), ({Task.IDH: 1e15}, {Task.IDH: 10**9})]).values()
    assert math.exp(-found) > 0.2


@given(LOSS, LOSS, st.integers(1, 99), st.floats(-0.5, 0.5))
def test_it_minimises_the_weighed_loss(first, second, cases, step):
    (found,) = closed_form([({Task.IDH: first}, {Task.IDH: cases}), ({Task.IDH: second}, {Task.IDH: 10})]).values()
    loss = (first * cases + second * 10) / (cases + 10) + LOSS_FLOOR

    def weighed(log_variance):
        return 0.5 * (math.exp(-log_variance) * loss + log_variance)

    assert weighed(found) <= weighed(found + step) + 1e-12
