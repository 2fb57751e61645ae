import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gmmas_model.distillation import bernoulli_divergence, distillation_loss, follow
from gmmas_schema.federation import DistillationConfig

CONFIG = DistillationConfig(temperature=2.0, confidence=0.8, prediction_weight=1.0, feature_weight=0.5)
LOGIT = st.floats(-80, 80, width=32)


def loss(student, teacher, *, config=CONFIG, features=None, taught=(True, True, True)):
    shape = (len(student), 4, 2, 2, 2)
    ones = torch.ones(shape)
    return distillation_loss(
        student,
        teacher,
        student_features_BCXYZ=ones if features is None else features,
        teacher_features_BCXYZ=ones,
        taught_BR=torch.tensor([taught] * len(student), dtype=torch.bool).reshape(len(student), 3),
        config=config,
    )


def logits(*values):
    return torch.tensor(values)[None, :, None, None, None].expand(1, 3, 4, 4, 4).clone()


@given(LOGIT, LOGIT)
def test_the_divergence_is_finite_never_negative_and_zero_for_equals(teacher, student):
    pair = torch.tensor([teacher, student])
    divergence = bernoulli_divergence(pair[0], pair[1])
    assert math.isfinite(divergence)
    assert divergence >= 0
    assert bernoulli_divergence(pair[0], pair[0]) == 0


def test_the_divergence_is_that_of_two_coins():
    p, q = 0.9, 0.3
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert bernoulli_divergence(torch.tensor(p).logit(), torch.tensor(q).logit()).item() == pytest.approx(expected, rel=1e-5)


def test_a_student_like_its_teacher_costs_nothing():
    same = logits(3.0, -2.0, 1.5)
    assert loss(same, same).item() == pytest.approx(0, abs=1e-6)


def test_voxels_the_teacher_is_unsure_of_do_not_count():
    assert loss(logits(5.0, 0.0, 0.0), logits(0.5, 0.0, 0.0)).item() == pytest.approx(0, abs=1e-6)


def test_inner_regions_do_not_count_where_there_is_no_tumour():
    no_tumour = loss(logits(-9.0, 5.0, 5.0), logits(-9.0, -5.0, -5.0)).item()
    tumour = loss(logits(9.0, 5.0, 5.0), logits(9.0, -5.0, -5.0)).item()
    assert no_tumour < 0.01 * tumour


def test_a_region_that_is_not_taught_moves_nothing():
    student, teacher = logits(3.0, 3.0, 3.0).requires_grad_(), logits(-3.0, -3.0, -3.0) + logits(6.0, 6.0, 0.0)
    assert loss(student, teacher, taught=(True, True, False)).item() == pytest.approx(0, abs=1e-6)
    loss(student, teacher, taught=(True, True, False)).backward()
    assert not student.grad[:, 2].any()
    assert loss(student, teacher).item() > 1


def test_turned_features_cost_their_cosine():
    opposite = loss(logits(1.0, 1.0, 1.0), logits(0.0, 0.0, 0.0), features=-torch.ones(1, 4, 2, 2, 2))
    assert opposite.item() == pytest.approx(0.5 * 2, abs=1e-5)


def test_only_the_student_is_moved():
    student, teacher = logits(1.0, 1.0, 1.0).requires_grad_(), logits(3.0, 3.0, 3.0).requires_grad_()
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert (student.grad < 0).all()


def test_no_cases_cost_nothing():
    nothing = torch.zeros(0, 3, 4, 4, 4, requires_grad=True)
    assert loss(nothing, nothing).item() == 0


def test_the_teacher_follows_by_its_decay():
    teacher, student = nn.Linear(1, 1), nn.Linear(1, 1)
    for module, value in ((teacher, 0.0), (student, 1.0)):
        nn.init.constant_(module.weight, value)
    follow(teacher, student, decay=0.9)
    follow(teacher, student, decay=0.9)
    assert teacher.weight.item() == pytest.approx(1 - 0.81)
