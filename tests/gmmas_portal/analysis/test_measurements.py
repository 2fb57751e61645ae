import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_portal.analysis import fact_ids as ids
from gmmas_portal.analysis.measurements import has_tumour, measure
from gmmas_schema.case_record import AbstainCode, Fact, FactStatus
from gmmas_schema.vocabulary import NECROSIS, OEDEMA, Side
from tests.gmmas_portal.analysis.bodies import MNI_AFFINE, SHAPE, ball, frame_of, tumour

FLIPPED = np.array([[-2.0, 0, 0, 68], [0, -2.0, 0, 62], [0, 0, 2.0, -46], [0, 0, 0, 1]])


def _facts(labels: np.ndarray, **frame: object) -> dict[str, Fact]:
    return {fact.id: fact for fact in measure(labels, frame_of(**frame))}


def _sphere_ml(radius_mm: float) -> float:
    return 4 / 3 * np.pi * radius_mm**3 / 1000


def test_volumes_and_shares_are_those_of_the_bodies() -> None:
    facts = _facts(tumour((-40, 20, 20)))
    assert facts[ids.VOLUME_WT].value == pytest.approx(_sphere_ml(20), rel=0.03)
    assert facts[ids.VOLUME_TC].value == pytest.approx(_sphere_ml(12), rel=0.05)
    assert facts[ids.VOLUME_ET].value == pytest.approx(_sphere_ml(12) - _sphere_ml(6), rel=0.08)
    assert facts[ids.VOLUME_OEDEMA].value == pytest.approx(facts[ids.VOLUME_WT].value - facts[ids.VOLUME_TC].value)
    assert facts[ids.VOLUME_NECROSIS].value == pytest.approx(facts[ids.VOLUME_TC].value - facts[ids.VOLUME_ET].value)
    assert facts[ids.SHARE_WT].value == pytest.approx(100 * facts[ids.VOLUME_WT].value / 1400)
    assert facts[ids.VOLUME_WT].unit == "ml"
    assert has_tumour(tuple(facts.values()))


def test_diameters_are_those_of_the_largest_focus() -> None:
    labels = tumour((-40, 20, 20))
    labels[ball((50, -70, 20), 8.0)] = OEDEMA
    facts = _facts(labels)
    assert facts[ids.DIAMETER_WT].value == pytest.approx(40, abs=2)
    assert facts[ids.DIAMETER_ET].value == pytest.approx(24, abs=2)
    assert facts[ids.DIAMETER_ET_AXIAL].value == pytest.approx(24, abs=2)
    assert facts[ids.DIAMETER_ET_PERPENDICULAR].value <= facts[ids.DIAMETER_ET_AXIAL].value
    assert (facts[ids.FOCI_WT].value, facts[ids.FOCI_ET].value) == (2, 1)


@pytest.mark.parametrize("affine", [MNI_AFFINE, FLIPPED])
@pytest.mark.parametrize(
    ("x", "side", "crossing"),
    [(-40, Side.LEFT, False), (40, Side.RIGHT, False), (-12, Side.LEFT, True), (-5, Side.MIDLINE, True)],
)
def test_sides_are_the_patients_whatever_the_voxels_order(affine: np.ndarray, x: float, side: Side, crossing: bool) -> None:
    facts = {fact.id: fact for fact in measure(tumour((x, 20, 20), affine), frame_of(affine))}
    assert facts[ids.SIDE].value == side
    assert facts[ids.MIDLINE_CROSSING].value is crossing
    assert (facts[ids.SHARE_LEFT].value > 50) is (x < 0)


def test_tumour_in_both_halves_away_from_the_plane_is_bilateral() -> None:
    labels = tumour((-35, 20, 20))
    labels[ball((35, 20, 20), 15.0)] = OEDEMA
    facts = _facts(labels)
    assert facts[ids.SIDE].value == Side.BILATERAL
    assert facts[ids.MIDLINE_CROSSING].value is True
    assert facts[ids.SHARE_LEFT].value == pytest.approx(100 * 20**3 / (20**3 + 15**3), abs=1)


def test_a_small_tumour_on_the_plane_lies_in_the_midline() -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[ball((0, -28, -20), 10.0)] = OEDEMA
    facts = _facts(labels)
    assert facts[ids.SIDE].value == Side.MIDLINE
    assert facts[ids.LOBES[0]].value == "brainstem"


def test_lobes_and_centre_are_told_in_order_of_their_share() -> None:
    facts = _facts(tumour((-40, 20, 40)))
    assert facts[ids.LOBES[0]].value == "left frontal lobe"
    assert [facts[name].value for name in ids.CENTROID] == pytest.approx([-40, 20, 40], abs=1)
    shares = [facts[name].value for name in ids.LOBE_SHARES if name in facts]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 100 + 1e-9
    assert all("atlas-estimated" in facts[name].label for name in ids.LOBES if name in facts)


def test_without_an_atlas_there_is_no_location_and_it_is_said() -> None:
    facts = _facts(tumour((-40, 20, 40)), in_mni=False)
    for name in (ids.LOBES[0], *ids.CENTROID):
        assert facts[name].status is FactStatus.ABSENT
        assert facts[name].codes == (AbstainCode.NOT_MEASURED,)
    assert facts[ids.SIDE].value == Side.LEFT


def test_nothing_outlined_has_a_volume_of_nothing_and_no_other_measure() -> None:
    facts = _facts(np.zeros(SHAPE, dtype=np.uint8))
    assert facts[ids.VOLUME_WT].value == facts[ids.VOLUME_ET].value == 0
    assert facts[ids.FOCI_WT].value == 0
    for name in (ids.DIAMETER_WT, ids.DIAMETER_ET, ids.SIDE, ids.SHARE_LEFT, ids.MIDLINE_CROSSING, ids.LOBES[0]):
        assert (facts[name].status, facts[name].codes) == (FactStatus.ABSENT, (AbstainCode.NO_TUMOUR,))
    assert not has_tumour(tuple(facts.values()))


def test_a_tumour_without_enhancement_has_no_enhancing_diameter() -> None:
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[ball((-40, 20, 20), 15.0)] = NECROSIS
    facts = _facts(labels)
    assert facts[ids.DIAMETER_WT].value == pytest.approx(30, abs=2)
    assert facts[ids.DIAMETER_ET].status is facts[ids.DIAMETER_ET_AXIAL].status is FactStatus.ABSENT


def test_without_a_brain_there_is_no_share() -> None:
    assert _facts(tumour((-40, 20, 20)), brain_ml=0.0)[ids.SHARE_WT].status is FactStatus.ABSENT


@settings(max_examples=6)
@given(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_no_fact_depends_on_the_order_in_which_voxels_are_stored(order: list[int], flips: tuple[bool, ...]) -> None:
    labels = tumour((-14, 20, 40))
    labels[ball((30, -60, 20), 9.0)] = OEDEMA
    stored, affine = labels, MNI_AFFINE
    for axis, flip in enumerate(flips):
        if flip:
            turn = np.eye(4)
            turn[axis, axis], turn[axis, 3] = -1, labels.shape[axis] - 1
            stored, affine = np.flip(stored, axis), affine @ turn
    stored, affine = stored.transpose(order), affine[:, [*order, 3]]
    frame = frame_of(affine).model_copy(update={"shape": stored.shape})
    assert frame.superior_axis == order.index(2)
    for ours, theirs in zip(measure(stored, frame), measure(labels, frame_of()), strict=True):
        assert ours.id == theirs.id
        assert ours.value == (pytest.approx(theirs.value) if isinstance(theirs.value, float) else theirs.value)
