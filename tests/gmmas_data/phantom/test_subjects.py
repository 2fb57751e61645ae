"""Patients and signs: possible everywhere, and leaning as the subtype does."""

import numpy as np
import pytest

from gmmas_data.phantom.subjects import Signs, draw_signs, draw_subject
from gmmas_schema.vocabulary import SUBTYPES, Subtype

MANY = 300


def draw_many(subtype: Subtype) -> tuple[list[Signs], np.ndarray]:
    rng = np.random.default_rng(0)
    subjects = [draw_subject(rng, subtype) for _ in range(MANY)]
    return [draw_signs(rng, subject) for subject in subjects], np.array([(s.age_years, s.grade) for s in subjects])


@pytest.mark.parametrize("subtype", SUBTYPES)
def test_signs_stay_within_bounds(subtype: Subtype) -> None:
    signs, ages_grades = draw_many(subtype)
    assert set(ages_grades[:, 1]) == {"glioblastoma": {4}, "astrocytoma": {2, 3, 4}, "oligodendroglioma": {2, 3}}[subtype]
    assert 18 <= ages_grades[:, 0].min() <= ages_grades[:, 0].max() <= 88
    for s in signs:
        assert sum(s.lobes) == pytest.approx(1)
        assert 5 < s.core_ml < 100
        assert s.oedema_ratio > 1
        assert s.margin_mm > 0
        assert all(0 <= share <= 1 for share in (s.cortical, s.ring_gaps, s.patches, s.patch_strength, s.mismatch, s.calcification))


def test_molecular_markers_follow_who() -> None:
    rng = np.random.default_rng(0)
    found = {s: (draw_subject(rng, s).idh_mutant, draw_subject(rng, s).codeleted) for s in SUBTYPES}
    assert found == {Subtype.GLIOBLASTOMA: (False, False), Subtype.ASTROCYTOMA: (True, False), Subtype.OLIGODENDROGLIOMA: (True, True)}


def test_signs_lean_to_their_subtype_but_are_not_proof() -> None:
    signs = {s: draw_many(s)[0] for s in SUBTYPES}
    ring, mismatch, calcified = (
        {s: np.mean([getattr(x, name) > 0 for x in signs[s]]) for s in SUBTYPES} for name in ("ring_mm", "mismatch", "calcification")
    )
    assert ring[Subtype.GLIOBLASTOMA] > 3 * ring[Subtype.ASTROCYTOMA] > 0
    assert mismatch[Subtype.ASTROCYTOMA] > 1.3 * mismatch[Subtype.OLIGODENDROGLIOMA] > 0
    assert calcified[Subtype.OLIGODENDROGLIOMA] > 2 * calcified[Subtype.ASTROCYTOMA] > 0
    for shares in (ring, mismatch, calcified):
        assert max(shares.values()) < 0.9
