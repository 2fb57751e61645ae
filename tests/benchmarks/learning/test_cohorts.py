import numpy as np
import pytest

from benchmarks.learning.cohorts import COPIES, zero_fill, zero_filled_copies
from gmmas_schema.vocabulary import MODALITIES, Modality
from tests.benchmarks.learning.samples import make_sample

NO_T1CE = tuple(m for m in MODALITIES if m is not Modality.T1CE)


def seen(sample) -> frozenset[Modality]:
    """Return the sequences that are not blank."""
    return frozenset(m for m, image_XYZ in zip(MODALITIES, sample.image_MXYZ, strict=True) if image_XYZ.any())


def test_what_is_not_shown_is_zero_and_counts_as_present() -> None:
    sample = make_sample(1, NO_T1CE)
    filled = zero_fill(sample, [Modality.T2, Modality.T1CE])
    assert filled.present_M.all()
    assert seen(filled) == {Modality.T2}
    np.testing.assert_array_equal(filled.image_MXYZ[2], sample.image_MXYZ[2])
    assert seen(sample) == set(NO_T1CE), "the sample itself stays as it is"
    assert seen(zero_fill(sample)) == set(NO_T1CE)


@pytest.mark.parametrize(("dropout", "dropped"), [(0.0, 0), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_copies_hold_the_share_of_draws_that_see_a_subset(dropout, dropped) -> None:
    samples = [make_sample(number, NO_T1CE) for number in range(20)]
    copies = zero_filled_copies(samples, dropout=dropout, seed=("s", 1))
    assert len(copies) == COPIES * len(samples)
    assert all(copy.present_M.all() for copy in copies)
    of_case = [copies[COPIES * place : COPIES * (place + 1)] for place in range(len(samples))]
    for sample, own in zip(samples, of_case, strict=True):
        assert {copy.case_id for copy in own} == {sample.case_id}
        assert all(seen(copy) == set(NO_T1CE) for copy in own[: COPIES - dropped])
    drawn = {seen(copy) for own in of_case for copy in own[COPIES - dropped :]}
    assert frozenset() not in drawn
    if dropped > 1:  # 40 draws and more of the 7 subsets
        assert len(drawn) == 7


def test_copies_follow_from_their_seed() -> None:
    samples = [make_sample(number) for number in range(4)]

    def drawn(*seed: object) -> list[frozenset[Modality]]:
        return [seen(copy) for copy in zero_filled_copies(samples, dropout=0.5, seed=seed)]

    assert drawn(1, "a") == drawn(1, "a")
    assert drawn(1, "a") != drawn(2, "a")
