import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from gmmas_model.batch import Batch
from gmmas_model.losses import (
    LOSS_FLOOR,
    POSITIVE_SHARE,
    LossTerms,
    codeletion_loss,
    focal_loss,
    grade_loss,
    idh_loss,
    mgmt_loss,
    multi_task_loss,
    segmentation_loss,
)
from gmmas_model.network import GmmasNetwork
from gmmas_model.prediction import Prediction
from gmmas_schema.groups import group_of
from gmmas_schema.vocabulary import MUTANT_ONLY, REQUIRED_TASKS, Task

NAN = float("nan")
LABEL = st.sampled_from([0.0, 1.0, NAN])
HUGE = st.floats(-(2.0**100), 2.0**100, width=32) | st.floats(-100, 100, width=32)
ROW = st.lists(st.booleans(), min_size=4, max_size=4).filter(any)
REGIONS_KNOWN = st.lists(st.booleans(), min_size=3, max_size=3)


def run(network: GmmasNetwork, batch: Batch, **options: object) -> LossTerms:
    return multi_task_loss(network, network(batch.image_BMXYZ, batch.present_BM), batch, **options)  # type: ignore[arg-type]


def logits(value: Tensor | float, *, size: int = 1, side: int = 4) -> Prediction:
    region_logits = torch.as_tensor(value, dtype=torch.float32).expand(size, 3, side, side, side).clone().requires_grad_()
    idh, codeletion = (torch.zeros(size, requires_grad=True) for _ in range(2))
    return Prediction(region_logits, idh, codeletion)


@st.composite
def batches(draw: st.DrawFn) -> dict[str, object]:
    size = draw(st.integers(1, 3))

    def rows(strategy: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(strategy, min_size=size, max_size=size))

    return {
        "present": rows(ROW),
        **{marker: rows(LABEL) for marker in ("idh", "codeletion", "grade", "mgmt")},
        "known": rows(REGIONS_KNOWN),
        "tumour": draw(st.booleans()),
    }


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spec=batches(),
    optional=st.sets(st.sampled_from([Task.GRADE, Task.MGMT])),
    bf16=st.booleans(),
    weighting=st.sampled_from(["learned", "fixed"]),
)
def test_any_pattern_of_labels_gives_finite_loss_and_gradient(
    networks: dict[tuple[Task, ...], GmmasNetwork],
    make_batch: Callable[..., Batch],
    spec: dict[str, object],
    optional: set[Task],
    bf16: bool,
    weighting: str,
) -> None:
    tasks = tuple(task for task in Task if task in REQUIRED_TASKS or task in optional)
    network = networks[tasks]
    network.zero_grad()
    batch = make_batch(**spec)
    # What is unknown may hold anything.
    batch.regions_BRXYZ[~batch.region_known_BR] = NAN
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        prediction = network(batch.image_BMXYZ, batch.present_BM)
    terms = multi_task_loss(network, prediction, batch, uncertainty_weighting=weighting)
    terms.total.backward()
    assert terms.total.isfinite()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert all(g.isfinite().all() for g in gradients.values())
    not_wildtype_B = batch.idh_B != 0
    every = {
        Task.SEGMENTATION: batch.region_known_BR.any(1),
        Task.IDH: ~batch.idh_B.isnan(),
        Task.CODELETION: ~batch.codeletion_B.isnan() & not_wildtype_B,
        Task.GRADE: ~batch.grade_B.isnan() & not_wildtype_B,
        Task.MGMT: ~batch.mgmt_B.isnan(),
    }
    known = {task: int(every[task].sum()) for task in tasks}
    assert terms.counted == known
    assert set(terms.per_task) == {task for task, n in known.items() if n}
    for task in tasks:
        assert (f"uncertainty.{task}" in gradients) == bool(known[task] and weighting == "learned")
        told = [task, *(MUTANT_ONLY & set(tasks) if task is Task.IDH else ())]
        if not any(known[other] for other in told):
            assert not any(group_of(name) == f"head.{task}" for name in gradients)


def test_an_unlabelled_batch_costs_nothing_and_moves_nothing(network: GmmasNetwork, make_batch: Callable[..., Batch]) -> None:
    terms = run(network, make_batch(present=[[True] * 4]))
    terms.total.backward()
    assert terms.total.item() == 0
    assert terms.total.requires_grad
    assert all(p.grad is None for p in network.parameters())


def test_a_task_without_labels_leaves_its_uncertainty_alone(network: GmmasNetwork, make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(present=[[True] * 4] * 2, idh=[1.0, 0.0])
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2, weight_decay=0.1)
    with torch.no_grad():
        network.uncertainty[Task.SEGMENTATION].fill_(0.7)
    for _ in range(5):
        optimiser.zero_grad()
        run(network, batch).total.backward()
        optimiser.step()
    assert network.uncertainty[Task.SEGMENTATION].item() == pytest.approx(0.7)
    assert network.uncertainty[Task.IDH].item() != 0


def test_uncertainty_settles_at_the_log_of_the_loss_and_never_runs_away(network: GmmasNetwork) -> None:
    parameter = network.uncertainty[Task.SEGMENTATION]
    optimiser = torch.optim.Adam([parameter], 0.1)
    prediction = logits(torch.tensor([-40.0]))
    batch = Batch(
        torch.zeros(1, 4, 4, 4, 4),
        *[torch.ones(1, 4).bool()] * 2,
        torch.zeros(1, 3, 4, 4, 4),
        torch.ones(1, 3).bool(),
        *[torch.tensor([NAN])] * 4,
    )
    for _ in range(150):
        optimiser.zero_grad()
        terms = multi_task_loss(network, prediction, batch)
        terms.total.backward()
        optimiser.step()
    assert terms.per_task[Task.SEGMENTATION] < 1e-6
    assert parameter.item() == pytest.approx(math.log(LOSS_FLOOR), abs=0.05)


def test_fixed_weights_and_task_weights(network: GmmasNetwork, make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(present=[[True] * 4], idh=[1.0], known=[[True] * 3])
    fixed = run(network, batch, uncertainty_weighting="fixed", task_weights={Task.IDH: 3.0})
    torch.testing.assert_close(fixed.total.detach(), fixed.per_task[Task.SEGMENTATION] + 3 * fixed.per_task[Task.IDH])


def test_learned_weights_are_kendalls(network: GmmasNetwork, make_batch: Callable[..., Batch]) -> None:
    terms = run(network, make_batch(present=[[True] * 4], idh=[1.0], known=[[True] * 3]))
    log_variance = {task: network.uncertainty[task].item() for task in terms.per_task}
    expected = sum(0.5 * (math.exp(-s) * (terms.per_task[task].item() + LOSS_FLOOR) + s) for task, s in log_variance.items())
    assert terms.total.item() == pytest.approx(expected, rel=1e-5)


def test_every_task_starts_with_about_the_same_weighed_loss(network: GmmasNetwork, make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(present=[[True] * 4] * 2, idh=[1.0, 0.0], codeletion=[1.0, NAN], known=[[True] * 3] * 2)
    terms = run(network, batch)
    for task, loss in terms.per_task.items():
        assert 0.5 < math.exp(-network.uncertainty[task].item()) * (loss.item() + LOSS_FLOOR) < 2


def seg_batch(regions_BRXYZ: Tensor, known: list[list[bool]]) -> Batch:
    size, _, *grid = regions_BRXYZ.shape
    unknown_B = torch.full((size,), NAN)
    all_BM = torch.ones(size, 4).bool()
    return Batch(torch.zeros(size, 4, *grid), all_BM, all_BM, regions_BRXYZ, torch.tensor(known), *[unknown_B] * 4)


def test_perfect_segmentation_costs_nothing() -> None:
    regions = torch.zeros(1, 3, 4, 4, 4)
    regions[:, :, :2] = 1
    loss, counted = segmentation_loss(logits(40 * (2 * regions - 1)), seg_batch(regions, [[True] * 3]))
    assert counted == 1
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_an_empty_mask_pushes_the_prediction_down() -> None:
    prediction = logits(0.0)
    loss, _ = segmentation_loss(prediction, seg_batch(torch.zeros(1, 3, 4, 4, 4), [[True] * 3]))
    loss.backward()
    gradient = prediction.region_logits_BRXYZ.grad
    assert gradient is not None
    assert (gradient > 0).all()
    assert gradient.max() < 1


@given(st.lists(HUGE, min_size=3, max_size=3), st.integers(0, 3), REGIONS_KNOWN, st.integers(1, 2))
def test_segmentation_loss_is_finite_for_any_logit_and_mask(values: list[float], depth: int, known: list[bool], size: int) -> None:
    """`depth` regions hold the one voxel of tumour; with 0 every mask is empty."""
    prediction = logits(torch.tensor(values).view(1, 3, 1, 1, 1), size=size, side=2)
    regions = torch.zeros(size, 3, 2, 2, 2)
    regions[:, :depth, 0, 0, 0] = 1
    loss, counted = segmentation_loss(prediction, seg_batch(regions, [known] * size))
    assert counted == size * any(known)
    assert loss.isfinite()
    assert loss.item() > -1e-6
    if counted:
        (gradient,) = torch.autograd.grad(loss, [prediction.region_logits_BRXYZ])
        assert gradient.isfinite().all()


def test_unknown_regions_add_nothing() -> None:
    regions = torch.zeros(2, 3, 4, 4, 4)
    regions[0, 0] = 1
    only_wt, _ = segmentation_loss(logits(0.3, size=2), seg_batch(regions, [[True, False, False], [False] * 3]))
    spoilt = regions.clone()
    spoilt[0, 1:], spoilt[1] = NAN, NAN
    same, counted = segmentation_loss(logits(0.3, size=2), seg_batch(spoilt, [[True, False, False], [False] * 3]))
    assert counted == 1
    assert same.item() == only_wt.item()
    alone, _ = segmentation_loss(logits(0.3), seg_batch(spoilt[:1], [[True, False, False]]))
    assert same.item() == pytest.approx(alone.item())


def test_region_loss_is_dice_and_cross_entropy_of_the_marginals() -> None:
    torch.manual_seed(0)
    value, regions = torch.randn(2, 3, 4, 4, 4), (torch.rand(2, 3, 4, 4, 4) < 0.4).float().cumprod(1)
    loss, _ = segmentation_loss(Prediction(value, torch.zeros(2), torch.zeros(2)), seg_batch(regions, [[True] * 3] * 2))
    p = value.double().sigmoid().cumprod(1)
    cross_entropy = torch.nn.functional.binary_cross_entropy(p, regions.double())
    overlap, size = (p * regions).sum((0, 2, 3, 4)), (p + regions).sum((0, 2, 3, 4))
    torch.testing.assert_close(loss.double(), (1 - (2 * overlap + 10) / (size + 10)).mean() + cross_entropy, atol=1e-5, rtol=1e-5)


def molecular(
    logits: tuple[float, float, float, float] = (0.2, -0.1, 0.3, -0.2),
    *,
    idh: float = NAN,
    codeletion: float = NAN,
    grade: float = NAN,
    mgmt: float = NAN,
) -> tuple[Prediction, Batch]:
    """Return a prediction with these logits of IDH, 1p/19q, grade and MGMT, and a batch of one patient with these labels."""
    prediction = Prediction(torch.zeros(1, 3, 1, 1, 1), *(torch.tensor([logit], requires_grad=True) for logit in logits))
    batch = Batch(
        torch.zeros(1, 4, 1, 1, 1),
        *[torch.ones(1, 4).bool()] * 2,
        torch.zeros(1, 3, 1, 1, 1),
        torch.zeros(1, 3).bool(),
        *(torch.tensor([label]) for label in (idh, codeletion, grade, mgmt)),
    )
    return prediction, batch


def marker_logits(prediction: Prediction) -> list[Tensor]:
    found = [prediction.idh_logit_B, prediction.codeletion_logit_B, prediction.grade_logit_B, prediction.mgmt_logit_B]
    return [logit for logit in found if logit is not None]


def signs(loss: Tensor, prediction: Prediction) -> tuple[int, ...]:
    """Return whether a step of descent raises (+1), lowers (-1) or leaves (0) each of the four logits."""
    gradients = torch.autograd.grad(loss, marker_logits(prediction), allow_unused=True)
    return tuple(0 if g is None else int(-g.sign().item()) for g in gradients)


@pytest.mark.parametrize(
    ("idh", "codeletion", "expected"),
    [
        (NAN, 1.0, (1, 1, 0, 0)),
        (NAN, 0.0, (-1, -1, 0, 0)),
        (1.0, 1.0, (0, 1, 0, 0)),
        (1.0, 0.0, (0, -1, 0, 0)),
    ],
)
def test_a_codeletion_label_trains_what_it_tells(idh: float, codeletion: float, expected: tuple[int, ...]) -> None:
    prediction, batch = molecular(idh=idh, codeletion=codeletion)
    loss, counted = codeletion_loss(prediction, batch)
    assert counted == 1
    assert signs(loss, prediction) == expected


@pytest.mark.parametrize("codeletion", [0.0, 1.0, NAN])
def test_a_wildtype_patient_is_intact_by_construction(codeletion: float) -> None:
    prediction, batch = molecular(idh=0.0, codeletion=codeletion)
    loss, counted = codeletion_loss(prediction, batch)
    assert (loss.item(), counted) == (0, 0)


@pytest.mark.parametrize(
    ("idh", "grade", "expected"),
    [
        (NAN, 1.0, (-1, 0, 1, 0)),
        (NAN, 0.0, (1, 0, -1, 0)),
        (1.0, 1.0, (0, 0, 1, 0)),
        (1.0, 0.0, (0, 0, -1, 0)),
    ],
)
def test_a_grade_trains_what_it_tells(idh: float, grade: float, expected: tuple[int, ...]) -> None:
    prediction, batch = molecular(idh=idh, grade=grade)
    loss, counted = grade_loss(prediction, batch)
    assert counted == 1
    assert signs(loss, prediction) == expected


@pytest.mark.parametrize("grade", [0.0, 1.0, NAN])
def test_a_wildtype_patient_is_high_grade_by_construction(grade: float) -> None:
    prediction, batch = molecular(idh=0.0, grade=grade)
    loss, counted = grade_loss(prediction, batch)
    assert (loss.item(), counted) == (0, 0)


@pytest.mark.parametrize("idh", [0.0, 1.0, NAN])
@pytest.mark.parametrize(("mgmt", "expected"), [(1.0, (0, 0, 0, 1)), (0.0, (0, 0, 0, -1))])
def test_mgmt_trains_its_own_head_only(idh: float, mgmt: float, expected: tuple[int, ...]) -> None:
    prediction, batch = molecular(idh=idh, mgmt=mgmt)
    loss, counted = mgmt_loss(prediction, batch)
    assert counted == 1
    assert signs(loss, prediction) == expected


def test_the_rarer_grade_of_mutants_weighs_more() -> None:
    losses = [grade_loss(*molecular((0.0, 0.0, 0.0, 0.0), idh=1.0, grade=grade))[0].item() for grade in (0.0, 1.0)]
    share = POSITIVE_SHARE[Task.GRADE]
    assert losses[0] / losses[1] == pytest.approx(share / (1 - share))


@pytest.mark.parametrize(("idh", "expected"), [(1.0, (1, 0, 0, 0)), (0.0, (-1, 0, 0, 0))])
def test_an_idh_label_trains_the_idh_head_only(idh: float, expected: tuple[int, ...]) -> None:
    prediction, batch = molecular(idh=idh)
    loss, counted = idh_loss(prediction, batch)
    assert counted == 1
    assert signs(loss, prediction) == expected


@given(st.tuples(HUGE, HUGE, HUGE, HUGE), LABEL, LABEL, LABEL, LABEL)
def test_molecular_losses_are_finite_for_any_logit(
    logits: tuple[float, float, float, float], idh: float, codeletion: float, grade: float, mgmt: float
) -> None:
    prediction, batch = molecular(logits, idh=idh, codeletion=codeletion, grade=grade, mgmt=mgmt)
    loss = torch.stack([part(prediction, batch)[0] for part in (idh_loss, codeletion_loss, grade_loss, mgmt_loss)]).sum()
    assert loss.isfinite()
    assert loss.item() >= 0
    for gradient in torch.autograd.grad(loss, marker_logits(prediction), allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


def test_class_weights_hold_at_batch_one() -> None:
    half = torch.tensor([0.5]).log()
    rare = focal_loss(half, half, torch.tensor([1.0]), positive_share=0.2)
    common = focal_loss(half, half, torch.tensor([0.0]), positive_share=0.2)
    assert (rare / common).item() == pytest.approx(4)


def test_focal_loss_is_the_formula() -> None:
    p = torch.tensor([0.9, 0.2])
    loss = focal_loss(p.log(), (1 - p).log(), torch.tensor([1.0, 0.0]), positive_share=0.5)
    easy = -(0.975 * 0.1**2 * math.log(0.9) + 0.025 * 0.9**2 * math.log(0.1))
    other = -(0.025 * 0.8**2 * math.log(0.2) + 0.975 * 0.2**2 * math.log(0.8))
    assert loss.item() == pytest.approx((easy + other) / 2, rel=1e-4)


def weighted(batch: Batch, weight_BRXYZ: Tensor | None = None, marker_weight_BK: Tensor | None = None) -> Batch:
    return replace(batch, region_weight_BRXYZ=weight_BRXYZ, marker_weight_BK=marker_weight_BK)


def test_voxels_without_weight_teach_nothing() -> None:
    truth = torch.zeros(1, 3, 4, 4, 4)
    truth[:, :, :2] = 1
    all_BM = torch.ones(1, 4).bool()
    batch = Batch(torch.zeros(1, 4, 4, 4, 4), all_BM, all_BM, truth, torch.ones(1, 3).bool(), *[torch.tensor([NAN])] * 4)
    weight = torch.ones(1, 3, 4, 4, 4)
    weight[..., 2:] = 0
    values = torch.zeros(1, 3, 4, 4, 4, requires_grad=True)
    nothing = torch.zeros(1)
    loss, counted = segmentation_loss(Prediction(values, nothing, nothing), weighted(batch, weight))
    loss.backward()
    assert counted == 1
    assert values.grad[..., 2:].abs().max() == 0
    assert values.grad[..., :2].abs().min() > 0


def test_a_weight_of_one_changes_nothing() -> None:
    truth = torch.zeros(1, 3, 4, 4, 4)
    truth[:, :, :2] = 1
    all_BM = torch.ones(1, 4).bool()
    batch = Batch(torch.zeros(1, 4, 4, 4, 4), all_BM, all_BM, truth, torch.ones(1, 3).bool(), *[torch.tensor([1.0])] * 4)
    prediction = Prediction(torch.randn(1, 3, 4, 4, 4), torch.tensor([0.3]), torch.tensor([-0.4]))
    ones = weighted(batch, torch.ones_like(truth), torch.ones(1, 4))
    assert segmentation_loss(prediction, ones)[0] == segmentation_loss(prediction, batch)[0]
    assert idh_loss(prediction, ones)[0] == idh_loss(prediction, batch)[0]
    half = weighted(batch, None, torch.full((1, 4), 0.5))
    assert codeletion_loss(prediction, half)[0].item() == pytest.approx(codeletion_loss(prediction, batch)[0].item() / 2)
