import torch
from hypothesis import given
from hypothesis import strategies as st

from gmmas_model.calibration import calibrate_prediction
from gmmas_model.prediction import Prediction
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
