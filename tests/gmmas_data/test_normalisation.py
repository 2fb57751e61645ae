import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_data.normalisation import CLIP, brain_of, foreground, normalise
from gmmas_data.volumes import Volume
from gmmas_schema.errors import DataError
from gmmas_schema.vocabulary import Modality
from tests.gmmas_data.scans import LPS, brain

SCAN = brain(Modality.T1).astype(np.float32)
MASK = SCAN != 0


def test_inside_has_mean_zero_and_deviation_one_and_outside_is_zero() -> None:
    scores = normalise(SCAN, MASK)
    assert scores.dtype == np.float32
    assert scores[MASK].mean() == pytest.approx(0, abs=1e-5)
    assert scores[MASK].std() == pytest.approx(1, abs=1e-5)
    assert not scores[~MASK].any()


@given(scale=st.floats(1e-3, 1e6), shift=st.floats(-1e3, 1e3))
def test_scanner_units_do_not_matter(scale: float, shift: float) -> None:
    """Scale alone, and scale with an offset everywhere, leave foreground and scores as they are."""
    other = (SCAN * scale + shift * scale).astype(np.float32)
    mask = foreground(other)
    np.testing.assert_array_equal(mask, MASK)
    np.testing.assert_allclose(normalise(other, mask), normalise(SCAN, MASK), atol=2e-3)


def test_outliers_are_clipped() -> None:
    spoiled = SCAN.copy()
    spoiled[15, 18, 14] = 1e6
    assert normalise(spoiled, MASK).max() == CLIP


def test_a_brain_without_surroundings_is_its_own_foreground() -> None:
    values = np.random.default_rng(0).uniform(100, 200, (8, 8, 8)).astype(np.float32)
    assert foreground(values).all()


@pytest.mark.parametrize("values", [np.zeros((8, 8, 8)), np.full((8, 8, 8), 3.5)])
def test_nothing_is_no_brain(values: np.ndarray) -> None:
    assert not foreground(values.astype(np.float32)).any()
    with pytest.raises(DataError, match="shows nothing"):
        brain_of(Volume(values.astype(np.float32), LPS, "x"))
