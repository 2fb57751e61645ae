import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gmmas_model.prediction import Prediction, chain_log_probability
from gmmas_schema.vocabulary import MARKERS, SUBTYPES, Subtype, Task

LOGITS = st.floats(-200, 200, width=32) | st.floats(width=32, allow_nan=False)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


def predict(idh: float, codeletion: float, regions: tuple[float, float, float] = (0, 0, 0)) -> Prediction:
    return Prediction(torch.tensor(regions).view(1, 3, 1, 1, 1), torch.tensor([idh]), torch.tensor([codeletion]))


@given(LOGITS, LOGITS, DTYPES)
def test_molecular_classes_obey_who_cns5(idh: float, codeletion: float, dtype: torch.dtype) -> None:
    prediction = Prediction(torch.zeros(1, 3, 1, 1, 1), torch.tensor([idh]).to(dtype), torch.tensor([codeletion]).to(dtype))
    subtype = dict(zip(SUBTYPES, prediction.subtype_probability()[0].tolist(), strict=True))
    p_idh, p_codeletion = prediction.idh_probability().item(), prediction.codeletion_probability().item()
    given_mutant = prediction.codeletion_logit_B.float().sigmoid().item()
    assert abs(sum(subtype.values()) - 1) <= 1e-6
    assert abs(subtype[Subtype.GLIOBLASTOMA] - (1 - p_idh)) <= 1e-6
    assert abs(subtype[Subtype.ASTROCYTOMA] + subtype[Subtype.OLIGODENDROGLIOMA] - p_idh) <= 1e-6
    assert abs(subtype[Subtype.OLIGODENDROGLIOMA] - p_codeletion) <= 1e-6
    assert abs(subtype[Subtype.ASTROCYTOMA] - p_idh * (1 - given_mutant)) <= 1e-6
    assert p_codeletion <= p_idh
    assert all(0 <= p <= 1 for p in subtype.values())


@given(LOGITS, LOGITS, LOGITS, LOGITS)
def test_optional_markers_obey_who_cns5(idh: float, codeletion: float, grade: float, mgmt: float) -> None:
    prediction = replace(predict(idh, codeletion), grade_logit_B=torch.tensor([grade]), mgmt_logit_B=torch.tensor([mgmt]))
    found = {task: probability_B.item() for task, probability_B in prediction.marker_probabilities().items()}
    assert tuple(found) == MARKERS
    assert all(0 <= p <= 1 for p in found.values())
    high = torch.tensor(grade).sigmoid().item()
    assert abs(found[Task.GRADE] - (1 - found[Task.IDH] * (1 - high))) <= 1e-6
    # A glioblastoma is of grade 4, so nothing may be more probable than a high grade and a glioblastoma at once.
    assert found[Task.GRADE] >= prediction.subtype_probability()[0, SUBTYPES.index(Subtype.GLIOBLASTOMA)].item()
    assert found[Task.MGMT] == torch.tensor(mgmt).sigmoid().item()


def test_a_network_without_optional_heads_says_nothing_of_them() -> None:
    prediction = predict(0.3, 0.2)
    assert prediction.grade_probability() is prediction.mgmt_probability() is None
    assert tuple(prediction.marker_probabilities()) == (Task.IDH, Task.CODELETION)


@given(st.tuples(LOGITS, LOGITS, LOGITS))
def test_regions_are_nested(logits: tuple[float, float, float]) -> None:
    wt, tc, et = predict(0, 0, logits).region_probability().flatten().tolist()
    assert 0 <= et <= tc <= wt <= 1


@given(st.lists(st.floats(-300, 300, width=32), min_size=1, max_size=3))
def test_chain_is_exact_and_its_gradient_finite(logits: list[float]) -> None:
    logits_1R = torch.tensor([logits], requires_grad=True)
    log_p_1R, log_not_p_1R = chain_log_probability(logits_1R, dim=1)
    exact_1R = torch.tensor([logits], dtype=torch.float64).sigmoid().cumprod(1)
    torch.testing.assert_close(log_p_1R.exp().double(), exact_1R, atol=1e-6, rtol=1e-4)
    torch.testing.assert_close((log_p_1R.exp() + log_not_p_1R.exp()), torch.ones_like(logits_1R), atol=1e-5, rtol=0)
    (log_p_1R + log_not_p_1R).sum().backward()
    assert logits_1R.grad is not None
    assert logits_1R.grad.isfinite().all()
    assert log_not_p_1R.isfinite().all()


def test_log_of_a_tiny_complement_is_kept() -> None:
    _, log_not_p = chain_log_probability(torch.tensor([[30.0, 30.0]]), dim=1)
    # 1 - s(30)^2 = 2 exp(-30) to first order, which 1 - p in fp32 would round to 0.
    assert log_not_p[0, 1].item() == pytest.approx(math.log(2) - 30, abs=1e-4)
