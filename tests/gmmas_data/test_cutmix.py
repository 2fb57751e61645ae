import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_data.cutmix import MARGIN, draw_box, exchange
from gmmas_data.samples import Sample
from gmmas_schema.vocabulary import Task

SIDE = 12
BOX = (slice(2, 5), slice(3, 6), slice(4, 7))


def sample(value, *, present=(True,) * 4, regions=True, **labels):
    mask = np.zeros((3, SIDE, SIDE, SIDE), np.uint8)
    mask[:, 4:8, 4:8, 4:8] = 1
    fields = {"idh": math.nan, "codeletion": math.nan} | labels
    return Sample(
        case_id=f"case-{value}",
        patient_id=f"patient-{value}",
        image_MXYZ=np.full((4, SIDE, SIDE, SIDE), value, np.float32),
        present_M=np.array(present),
        regions_RXYZ=mask if regions else None,
        affine=np.eye(4),
        native_affine=np.eye(4),
        native_shape=(SIDE,) * 3,
        **fields,
    )


def test_the_box_changes_hands_both_ways():
    first, second = sample(1), replace(sample(2), weight_RXYZ=np.full((3, SIDE, SIDE, SIDE), 0.5, np.float32))
    one, two = exchange(first, second, BOX)
    inside = (slice(None), *BOX)
    assert (one.image_MXYZ[inside] == 2).all()
    assert (two.image_MXYZ[inside] == 1).all()
    assert one.image_MXYZ.sum() + two.image_MXYZ.sum() == pytest.approx(first.image_MXYZ.sum() + second.image_MXYZ.sum())
    assert (one.weight_RXYZ[inside] == 0.5).all()
    assert one.weight_RXYZ[0, 0, 0, 0] == 1
    assert (two.weight_RXYZ[inside] == 1).all()
    assert first.image_MXYZ.min() == first.image_MXYZ.max() == 1


def test_only_sequences_of_both_stay():
    one, two = exchange(sample(1, present=(True, True, True, False)), sample(2, present=(False, True, True, True)), BOX)
    for mixed in (one, two):
        assert mixed.present_M.tolist() == [False, True, True, False]
        assert not mixed.image_MXYZ[[0, 3]].any()


def test_no_common_sequence_or_no_regions_means_no_exchange():
    assert exchange(sample(1, present=(True, False, False, False)), sample(2, present=(False, True, True, True)), BOX) is None
    assert exchange(sample(1), sample(2, regions=False), BOX) is None


def test_a_marker_stays_only_where_both_agree():
    first = sample(1, idh=1.0, codeletion=0.0)
    second = replace(sample(2, idh=1.0, codeletion=1.0), marker_weight={Task.IDH: 0.3})
    for mixed in exchange(first, second, BOX):
        assert mixed.idh == 1
        assert mixed.marker_weight[Task.IDH] == 0.3
        assert math.isnan(mixed.codeletion)


def test_a_tumour_box_holds_the_tumour_with_a_margin():
    box = draw_box(sample(1), "tumour", np.random.default_rng(0))
    assert box == (slice(4 - MARGIN, 8 + MARGIN),) * 3


@given(st.integers(0, 999), st.sampled_from(["tumour", "random"]))
def test_a_box_without_a_known_tumour_is_random_and_inside(seed, kind):
    box = draw_box(sample(1, regions=False), kind, np.random.default_rng(seed))
    assert all(0 <= side.start < side.stop <= SIDE for side in box)
    assert all(3 <= side.stop - side.start <= 6 for side in box)
