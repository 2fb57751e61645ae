"""The rules on a real case and on phantoms of two scanners; figures for whole cohorts are in benchmarks/."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_data.canonical import place_box, tissue_priors
from gmmas_data.case_audit import audit_case
from gmmas_data.layouts import read_case
from gmmas_data.sequence_identity import Contrast, Verdict, judge_sequences, looks_like, measure_contrast
from gmmas_schema.vocabulary import Modality
from tests.gmmas_data.real_case import FOLDER
from tests.gmmas_data.scans import LPS, SHAPE, ellipsoid

T1_LIKE = {Modality.T1, Modality.T1CE}


@pytest.fixture(scope="module")
def real() -> dict[Modality, Contrast]:
    audit, _ = audit_case(read_case(FOLDER))
    return {modality: Contrast(**scan.contrast) for modality, scan in audit.scans.items()}


def test_every_scan_of_a_real_case_looks_like_its_name() -> None:
    audit, _ = audit_case(read_case(FOLDER))
    assert {modality: scan.verdict for modality, scan in audit.scans.items()} == dict.fromkeys(Modality, Verdict.AGREES)
    assert not audit.findings


@pytest.mark.parametrize(("claimed", "shown"), [pair for pair in itertools.permutations(Modality, 2) if set(pair) != T1_LIKE])
def test_no_scan_of_a_real_case_passes_under_another_name(real: dict[Modality, Contrast], claimed: Modality, shown: Modality) -> None:
    assert judge_sequences({claimed: real[shown]})[claimed] is Verdict.DISAGREES
    assert claimed not in looks_like(real[shown])


def test_t1_and_its_enhanced_twin_are_told_by_their_difference(real: dict[Modality, Contrast]) -> None:
    right = {m: real[m] for m in T1_LIKE}
    swapped = {Modality.T1: real[Modality.T1CE], Modality.T1CE: real[Modality.T1]}
    assert set(judge_sequences(right, enhancement=1.8).values()) == {Verdict.AGREES}
    assert set(judge_sequences(swapped, enhancement=-1.8).values()) == {Verdict.DISAGREES}
    assert set(judge_sequences(right, enhancement=0.0).values()) == {Verdict.UNKNOWN}


def test_a_wrong_partner_says_nothing_of_enhancement(real: dict[Modality, Contrast]) -> None:
    """A FLAIR named T1 is told; the T1ce beside it is not blamed for the difference."""
    verdicts = judge_sequences({Modality.T1: real[Modality.FLAIR], Modality.T1CE: real[Modality.T1CE]}, enhancement=-2.0)
    assert verdicts == {Modality.T1: Verdict.DISAGREES, Modality.T1CE: Verdict.AGREES}


@given(csf=st.floats(0.1, 3), grey=st.floats(0.3, 2), rank=st.floats(-1, 1), tail=st.floats(1, 5))
def test_nothing_looks_like_two_weightings(csf: float, grey: float, rank: float, tail: float) -> None:
    contrast = Contrast(csf, grey, rank, tail)
    agreeing = {m for m in Modality if judge_sequences({m: contrast})[m] is Verdict.AGREES}
    assert len(agreeing - {Modality.T1CE}) <= 1
    assert agreeing <= set(looks_like(contrast)) | T1_LIKE


@given(scale=st.floats(1e-3, 1e3))
def test_intensities_have_no_unit(scale: float) -> None:
    values = _made_of_tissue(csf=0.4, grey=0.8, white=1.0)
    box = place_box(np.ones(values.shape, bool), np.eye(4), cells=values.shape)
    one, other = measure_contrast(values, box), measure_contrast(values * np.float32(scale), box)
    assert one is not None
    assert other is not None
    assert other[0].csf == pytest.approx(one[0].csf, rel=1e-3)
    assert other[0].grey == pytest.approx(one[0].grey, rel=1e-3)


def test_made_of_tissue_gives_the_tissues_back() -> None:
    values = _made_of_tissue(csf=0.4, grey=0.8, white=1.0)
    found = measure_contrast(values, place_box(np.ones(values.shape, bool), np.eye(4), cells=values.shape))
    assert found is not None
    assert found[0].csf == pytest.approx(0.6, abs=0.1)  # no cell is CSF alone
    assert found[0].grey == pytest.approx(0.83, abs=0.05)
    assert looks_like(found[0]) == (Modality.T1, Modality.T1CE)


def test_a_blob_cannot_be_told() -> None:
    inside = ellipsoid(SHAPE, centre=(0.5,) * 3, radii=(0.1,) * 3)
    assert measure_contrast(np.zeros(SHAPE, np.float32), place_box(inside, LPS)) is None


def _made_of_tissue(*, csf: float, grey: float, white: float) -> np.ndarray:
    priors = tissue_priors()
    return (csf * priors.csf_UVW + grey * priors.grey_UVW + white * priors.white_UVW).astype(np.float32)
