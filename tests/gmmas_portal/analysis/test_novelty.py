import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_portal.analysis.novelty import DEFAULT_THRESHOLD, FEWEST_KNOWN, choose_threshold, entropy_score, judge_novelty
from gmmas_schema.errors import DataError
from tests.gmmas_portal.analysis.bodies import SHAPE, ball


def _probability(inside: float, mask: np.ndarray) -> np.ndarray:
    return np.stack([np.where(mask, np.float32(inside), np.float32(0.01))] * 3)


@given(st.floats(0.501, 1))
def test_the_score_is_the_entropy_of_a_constant_probability(p: float) -> None:
    p = float(np.float32(p))
    expected = -(p * np.log2(p) + ((1 - p) * np.log2(1 - p) if p < 1 else 0))
    assert entropy_score(_probability(p, np.ones((4, 4, 4), dtype=bool))) == pytest.approx(expected, abs=1e-6)


@given(st.floats(0.6, 0.999), st.floats(1.0, 5.0))
def test_a_calibration_does_not_change_the_score(p: float, temperature: float) -> None:
    whole = np.ones((4, 4, 4), dtype=bool)
    calibrated = 1 / (1 + ((1 - p) / p) ** (1 / temperature))
    score = entropy_score(_probability(calibrated, whole), temperature=temperature)
    assert score == pytest.approx(entropy_score(_probability(p, whole)), abs=1e-3)


def test_what_is_not_outlined_has_no_say() -> None:
    mask = ball((-40, 20, 20), 15.0)
    sure = _probability(0.99, mask)
    unsure_outside = sure.copy()
    unsure_outside[:, ~mask] = 0.5
    assert entropy_score(sure) == entropy_score(unsure_outside)


def test_an_unsure_outline_is_unlike_a_glioma_and_a_sure_one_is_not() -> None:
    mask = ball((-40, 20, 20), 15.0)
    sure, unsure = (judge_novelty(_probability(p, mask), mask) for p in (0.98, 0.55))
    assert sure.reason == ""
    assert unsure.reason
    assert sure.score is not None
    assert unsure.score is not None
    assert sure.score < DEFAULT_THRESHOLD < unsure.score


def test_the_hospitals_own_threshold_decides() -> None:
    mask = ball((-40, 20, 20), 15.0)
    assert judge_novelty(_probability(0.98, mask), mask, threshold=0.05).reason
    assert not judge_novelty(_probability(0.55, mask), mask, threshold=1.0).reason


def test_many_lesions_are_unlike_one_glioma() -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    for x in (-40, -10, 20, 45):
        mask |= ball((x, 10, 20), 6.0)
    found = judge_novelty(_probability(0.999, mask), mask)
    assert "scattered" in found.reason


def test_two_foci_of_one_glioma_are_no_scatter() -> None:
    mask = ball((-40, 20, 20), 15.0) | ball((-40, -40, 20), 8.0)
    assert judge_novelty(_probability(0.999, mask), mask).reason == ""


def test_nothing_outlined_has_no_score() -> None:
    nothing = np.zeros(SHAPE, dtype=bool)
    assert judge_novelty(_probability(0.9, nothing), nothing) == judge_novelty(_probability(0.1, nothing), nothing)
    assert judge_novelty(_probability(0.1, nothing), nothing).score is None


def test_a_threshold_lets_known_gliomas_pass() -> None:
    scores = np.random.default_rng(1).uniform(0.1, 0.3, 200).tolist()
    threshold = choose_threshold(scores)
    assert np.mean(np.array(scores) <= threshold) >= 0.95
    assert threshold in scores
    with pytest.raises(DataError, match="too few"):
        choose_threshold(scores[: FEWEST_KNOWN - 1])
