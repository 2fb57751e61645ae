import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from gmmas_model.metrics import (
    MISSED_MM,
    auc,
    auc_by_resample,
    auc_interval,
    dice,
    hd95_mm,
    mean_by_resample,
    mean_interval,
    percentile_interval,
)
from gmmas_schema.messages import Interval


def mask(*values: int) -> np.ndarray:
    return np.array(values, bool)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        (mask(0, 0), mask(0, 0), 1.0),
        (mask(1, 0), mask(0, 0), 0.0),
        (mask(0, 0), mask(0, 1), 0.0),
        (mask(1, 1, 0), mask(0, 1, 1), 0.5),
        (mask(1, 1), mask(1, 1), 1.0),
    ],
)
def test_dice_follows_brats(predicted: np.ndarray, truth: np.ndarray, expected: float) -> None:
    assert dice(predicted, truth) == expected


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_auc_is_that_of_sklearn(cases: list[tuple[bool, int]]) -> None:
    truth, score = np.array([t for t, _ in cases]), np.array([s for _, s in cases], float)
    if truth.all() or not truth.any():
        assert auc(truth, score) is None
    else:
        assert auc(truth, score) == pytest.approx(roc_auc_score(truth, score))


def test_auc_of_one_class_has_no_value() -> None:
    assert auc_interval(mask(1, 1, 1), np.array([0.1, 0.2, 0.3]), seed=0) == Interval(n=3)
    assert auc_interval(mask(), np.array([]), seed=0) == Interval()


def test_mean_of_nothing_has_no_value() -> None:
    assert mean_interval(np.array([]), seed=0) == Interval()


def test_intervals_are_seeded_and_hold_their_value() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(40) < 0.4
    score = truth + rng.normal(size=40)
    interval = auc_interval(truth, score, seed=3)
    assert interval == auc_interval(truth, score, seed=3)
    assert interval != auc_interval(truth, score, seed=4)
    assert interval.low is not None
    assert interval.value is not None
    assert interval.high is not None
    assert 0 <= interval.low < interval.value < interval.high <= 1
    assert interval.value == pytest.approx(roc_auc_score(truth, score))


def test_mean_interval_is_near_the_normal_one() -> None:
    values = np.random.default_rng(1).normal(0.7, 0.1, size=400)
    interval = mean_interval(values, seed=0)
    error = 1.96 * values.std() / 20
    assert interval.value == pytest.approx(values.mean())
    assert interval.low == pytest.approx(values.mean() - error, abs=2e-3)
    assert interval.high == pytest.approx(values.mean() + error, abs=2e-3)


def test_cases_of_a_patient_are_drawn_together() -> None:
    values = np.random.default_rng(1).normal(size=20)
    apart = mean_interval(values, seed=0)
    together = mean_interval(np.repeat(values, 4), seed=0, patients=[f"p{k // 4:02d}" for k in range(80)])
    assert together.n == 20
    assert (together.low, together.high) == pytest.approx((apart.low, apart.high))


def test_resamples_are_the_figures_of_the_drawn_cases() -> None:
    truth, score = mask(1, 0, 1, 0), np.array([0.9, 0.8, 0.4, 0.1])
    counts = np.array([[1, 1, 1, 1], [2, 0, 1, 1], [0, 1, 3, 0], [2, 0, 2, 0]], float)
    drawn = [np.repeat(np.arange(4), row.astype(int)) for row in counts]
    assert mean_by_resample(score, counts) == pytest.approx([score[rows].mean() for rows in drawn])
    values = auc_by_resample(truth, score, counts)
    assert values[:3] == pytest.approx([roc_auc_score(truth[rows], score[rows]) for rows in drawn[:3]])
    assert np.isnan(values[3])
    interval = percentile_interval(0.5, values, n=4)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(values[:3], (0.025, 0.975))))


def test_one_patient_has_a_degenerate_interval() -> None:
    assert mean_interval(np.array([0.5]), seed=0) == Interval(value=0.5, low=0.5, high=0.5, n=1)


def test_a_thousand_cases_take_little_time() -> None:
    rng = np.random.default_rng(0)
    start = time.process_time()
    auc_interval(rng.random(1000) < 0.3, rng.random(1000), seed=0)
    assert time.process_time() - start < 5


def ball(radius: float, shift: int = 0) -> np.ndarray:
    x, y, z = np.ogrid[:24, :24, :24]
    return (x - 12 - shift) ** 2 + (y - 12) ** 2 + (z - 12) ** 2 <= radius**2


def test_hd95_of_a_shifted_ball_is_the_shift_in_millimetres() -> None:
    assert hd95_mm(ball(6), ball(6), spacing_mm=2.5) == 0
    assert hd95_mm(ball(6), ball(6, shift=3), spacing_mm=2.5) == pytest.approx(7.5, rel=0.05)
    assert hd95_mm(ball(4), ball(8), spacing_mm=1.0) == pytest.approx(4, rel=0.15)


def test_hd95_passes_over_a_few_far_voxels_and_the_maximum_does_not() -> None:
    speck = ball(6)
    speck[0, 0, 0] = True
    assert hd95_mm(speck, ball(6), spacing_mm=1.0) == 0
    assert hd95_mm(ball(6), speck, spacing_mm=1.0) == hd95_mm(speck, ball(6), spacing_mm=1.0)


@pytest.mark.parametrize(("predicted", "truth", "expected"), [(0, 0, 0.0), (0, 6, MISSED_MM), (6, 0, MISSED_MM)])
def test_hd95_of_empty_masks_follows_brats(predicted: float, truth: float, expected: float) -> None:
    masks = (ball(radius) if radius else np.zeros((24, 24, 24), bool) for radius in (predicted, truth))
    assert hd95_mm(*masks, spacing_mm=1.0) == expected
    assert pytest.approx(np.linalg.norm([240, 240, 155]), abs=0.01) == MISSED_MM
