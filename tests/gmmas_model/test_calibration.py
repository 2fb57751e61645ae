import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gmmas_model.calibration import calibrate_prediction, likelihood_curve, region_curves, reliability_sums, voxels_at_stake
from gmmas_model.prediction import Prediction
from gmmas_model.temperature_fit import fit_temperature
from gmmas_schema.calibration import TEMPERATURES, bin_edges
from gmmas_schema.vocabulary import REGIONS, Region, Task

HEADS = (*REGIONS, Task.IDH, Task.CODELETION)
logits = st.floats(-60, 60, width=32)
temperatures = st.dictionaries(st.sampled_from(HEADS), st.floats(0.125, 8), max_size=5)


def prediction(regions, idh, codeletion) -> Prediction:
    return Prediction(torch.tensor(regions).reshape(1, 3, 1, 1, 1), torch.tensor([idh]), torch.tensor([codeletion]))


@given(st.lists(logits, min_size=3, max_size=3), logits, logits, temperatures)
def test_no_temperature_makes_a_contradiction(regions, idh, codeletion, chosen) -> None:
    calibrated = calibrate_prediction(prediction(regions, idh, codeletion), chosen)
    wt, tc, et = calibrated.region_probability().flatten().tolist()
    assert wt >= tc >= et
    subtype_S = calibrated.subtype_probability()[0]
    assert abs(float(subtype_S.sum()) - 1) < 1e-6
    assert float(calibrated.codeletion_probability()) <= float(calibrated.idh_probability()) + 1e-6
    assert abs(float(subtype_S[2]) - float(calibrated.codeletion_probability())) < 1e-6


@given(st.lists(logits, min_size=3, max_size=3), logits, logits)
def test_without_temperatures_nothing_changes(regions, idh, codeletion) -> None:
    before = prediction(regions, idh, codeletion)
    after = calibrate_prediction(before, {})
    assert torch.equal(before.region_logits_BRXYZ, after.region_logits_BRXYZ)
    assert torch.equal(before.idh_logit_B, after.idh_logit_B)
    assert torch.equal(before.codeletion_logit_B, after.codeletion_logit_B)


def test_each_head_has_its_own_temperature() -> None:
    before = prediction([1.0, 2.0, 3.0], 4.0, 5.0)
    after = calibrate_prediction(before, {Region.TC: 2.0, Task.CODELETION: 5.0})
    assert after.region_logits_BRXYZ.flatten().tolist() == [1.0, 1.0, 3.0]
    assert (after.idh_logit_B.item(), after.codeletion_logit_B.item()) == (4.0, 1.0)


def test_half_precision_is_calibrated_in_fp32() -> None:
    half = Prediction(torch.full((1, 3, 1, 1, 1), 1.0, dtype=torch.bfloat16), torch.ones(1), torch.ones(1))
    assert calibrate_prediction(half, {Region.WT: 3.0}).region_logits_BRXYZ[0, 0].item() == torch.tensor(1 / 3).item()


def noisy_case(side: int = 24, *, seed: int = 0, sureness: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Conditional logits of a soft ball, and regions drawn voxel by voxel from the very probabilities that the logits say at sureness 1."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.arange(side) - side / 2 + 0.5
    radius_XYZ = (axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2).sqrt()
    logits_RXYZ = torch.stack([(size - radius_XYZ) * 1.2 for size in (side / 4, side / 6, side / 9)])
    draws_RXYZ = torch.rand(logits_RXYZ.shape, generator=generator) < logits_RXYZ.sigmoid()
    return logits_RXYZ * sureness, draws_RXYZ.long().cumprod(0).bool()


def lowest(curve) -> float:
    return fit_temperature(curve.tolist(), TEMPERATURES)


@pytest.mark.parametrize("sureness", [0.5, 1.0, 3.0])
def test_regions_drawn_from_a_networks_own_probabilities_ask_for_its_own_sureness(sureness) -> None:
    curves = []
    for seed in range(6):
        logits_RXYZ, truth_RXYZ = noisy_case(seed=seed, sureness=sureness)
        brain_XYZ = torch.ones(24, 24, 24, dtype=torch.bool)
        stake_XYZ = voxels_at_stake(logits_RXYZ[0].sigmoid(), brain_XYZ, spacing_mm=4.0)
        curves.append(region_curves(logits_RXYZ, truth_RXYZ, stake_XYZ, TEMPERATURES))
    for region in range(3):
        assert lowest(sum(curve[region] for curve in curves)) == pytest.approx(sureness, rel=0.08)


def test_voxels_chosen_by_the_truth_would_make_a_calibrated_network_look_too_sure() -> None:
    """Why the truth has no say in what is at stake."""
    logits_RXYZ, truth_RXYZ = noisy_case(seed=1)
    doubtful_XYZ = truth_RXYZ[0] | (logits_RXYZ[0].sigmoid() > 0.5)
    curve = likelihood_curve(logits_RXYZ[0][doubtful_XYZ], truth_RXYZ[0][doubtful_XYZ], TEMPERATURES)
    assert lowest(curve) > 1.15


def test_the_far_background_is_not_at_stake_and_a_blind_network_answers_for_the_whole_brain() -> None:
    brain_XYZ = torch.zeros(20, 20, 20, dtype=torch.bool)
    brain_XYZ[2:18, 2:18, 2:18] = True
    seen_XYZ = torch.zeros(20, 20, 20)
    seen_XYZ[4, 10, 10] = 0.06
    stake_XYZ = voxels_at_stake(seen_XYZ, brain_XYZ, spacing_mm=5.0)
    assert stake_XYZ.sum() == 5**3
    assert bool(stake_XYZ[2:7, 8:13, 8:13].all())
    assert torch.equal(voxels_at_stake(torch.zeros(20, 20, 20), brain_XYZ, spacing_mm=5.0), brain_XYZ)
    outside = torch.zeros(20, 20, 20)
    outside[0, 0, 0] = 1.0
    assert torch.equal(voxels_at_stake(outside, brain_XYZ, spacing_mm=5.0), brain_XYZ)


def test_a_region_is_judged_inside_the_region_around_it_only() -> None:
    logits_RXYZ, truth_RXYZ = noisy_case()
    stake_XYZ = torch.ones(24, 24, 24, dtype=torch.bool)
    elsewhere_RXYZ = logits_RXYZ.clone()
    elsewhere_RXYZ[1][~truth_RXYZ[0]] = 50.0
    before, after = (region_curves(x, truth_RXYZ, stake_XYZ, TEMPERATURES) for x in (logits_RXYZ, elsewhere_RXYZ))
    np.testing.assert_array_equal(before[1], after[1])
    wt, tc, et = region_curves(logits_RXYZ, torch.zeros_like(truth_RXYZ), stake_XYZ, TEMPERATURES)
    assert wt is not None
    assert tc is et is None


@given(st.lists(st.tuples(logits, st.booleans()), min_size=1, max_size=30))
def test_likelihood_is_finite_and_convex_in_the_inverse_temperature(rows) -> None:
    inverse = np.linspace(0.125, 8, 30)
    curve = likelihood_curve(torch.tensor([x for x, _ in rows]), torch.tensor([t for _, t in rows]), (1 / inverse).tolist())
    assert np.isfinite(curve).all()
    assert (curve >= 0).all()
    assert (np.diff(curve, 2) > -1e-3).all()


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=50))
def test_reliability_sums_are_shares_of_a_case(rows) -> None:
    share_K, confidence_K, correct_K = reliability_sums(torch.tensor([p for p, _ in rows]), torch.tensor([t for _, t in rows]))
    assert share_K.sum() == pytest.approx(1)
    assert (correct_K <= share_K + 1e-12).all()
    edges = np.array(bin_edges())
    assert (confidence_K >= share_K * edges[:-1] - 1e-9).all()
    assert (confidence_K <= share_K * edges[1:] + 1e-9).all()


def test_a_decision_is_positive_above_one_half() -> None:
    _, _, correct_K = reliability_sums(torch.tensor([0.5, 0.5, 0.95, 0.05]), torch.tensor([False, True, True, True]))
    assert correct_K.tolist() == [0.25, *[0.0] * 12, 0.25, 0.0]
