import pytest

from benchmarks.learning.cohorts import leave_undrawn
from tests.benchmarks.learning.samples import make_sample


@pytest.mark.parametrize(("share", "left"), [(1.0, 5), (0.41, 3), (0.4, 2), (0.01, 1)])
def test_a_share_of_the_outlines_is_left_and_all_else(share, left) -> None:
    samples = [make_sample(0, segmentation=False)] + [make_sample(number) for number in range(1, 6)]
    found = leave_undrawn(samples, share)
    assert [sample.regions_RXYZ is not None for sample in found] == [False] + [True] * left + [False] * (5 - left)
    assert [(sample.case_id, sample.idh) for sample in found] == [(sample.case_id, sample.idh) for sample in samples]


def test_nothing_is_drawn_where_nothing_was() -> None:
    assert leave_undrawn([make_sample(0, segmentation=False)], 0.2)[0].regions_RXYZ is None
