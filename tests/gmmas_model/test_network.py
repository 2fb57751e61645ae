from collections.abc import Callable, Collection
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gmmas_model.batch import Batch
from gmmas_model.inference import predict_probabilities
from gmmas_model.losses import multi_task_loss
from gmmas_model.network import GmmasNetwork
from gmmas_model.precision import native_bf16
from gmmas_model.prediction import Prediction
from gmmas_schema.errors import ModelError
from gmmas_schema.groups import by_group, group_of, groups_received
from gmmas_schema.model import SIZES, NetworkConfig
from gmmas_schema.vocabulary import MODALITIES, REQUIRED_TASKS, TASKS, Modality, Task
from tests.gmmas_model.conftest import TINY

ALL = [[True] * 4]
ROW = st.lists(st.booleans(), min_size=4, max_size=4).filter(any)
GARBAGE = [float("nan"), float("inf"), 1e30, -5.0]


def outputs(prediction: Prediction) -> list[torch.Tensor]:
    return [value for value in vars(prediction).values() if value is not None]


def count_parameters(config: NetworkConfig) -> dict[str, int]:
    tensors = GmmasNetwork(config).state_dict()
    return {group: sum(tensors[name].numel() for name in names) for group, names in by_group(tensors).items()}


@pytest.mark.parametrize(
    ("size", "total", "encoder", "shared", "some"),
    [
        ("small", 1_025_536, 222_848, 134_128, {"fusion": 11_120, "bottleneck": 35_392, "decoder": 75_488, "head.idh": 6_049}),
        ("paper", 8_846_632, 2_052_096, 638_232, {"fusion": 44_000, "bottleneck": 268_800, "decoder": 301_504, "head.idh": 11_937}),
    ],
)
def test_parameters_per_group(size: str, total: int, encoder: int, shared: int, some: dict[str, int]) -> None:
    counts = count_parameters(SIZES[size])
    own = {f"{part}.{m}" for part in ("encoder", "gate") for m in MODALITIES}
    assert {group: counts[group] for group in own} == {group: encoder if "encoder" in group else 4 for group in own}
    assert sum(n for group, n in counts.items() if group not in own) == shared
    assert counts == counts | some
    assert counts["head.idh"] == counts["head.codeletion"]
    assert [group for group in counts if group.startswith("head.")] == [f"head.{task}" for task in REQUIRED_TASKS]
    assert sum(counts.values()) == total


def test_optional_heads_come_on_top_and_change_no_other_tensor() -> None:
    tensors = {}
    for tasks in (REQUIRED_TASKS, TASKS):
        torch.manual_seed(0)
        tensors[tasks] = GmmasNetwork(TINY.model_copy(update={"tasks": tasks})).state_dict()
    plain, extended = tensors[REQUIRED_TASKS], tensors[TASKS]
    assert {group_of(name) for name in extended.keys() - plain.keys()} == {
        "head.grade",
        "head.mgmt",
        "uncertainty.grade",
        "uncertainty.mgmt",
    }
    assert all(torch.equal(value, extended[name]) for name, value in plain.items())


def test_there_are_no_buffers(network: GmmasNetwork) -> None:
    assert not list(network.buffers())
    assert set(network.state_dict()) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("modalities", [(Modality.FLAIR,), (Modality.T1, Modality.T2), tuple(Modality)])
def test_a_sites_network_is_a_subset_of_the_whole_one(network: GmmasNetwork, modalities: Collection[Modality]) -> None:
    site = GmmasNetwork(TINY, modalities=modalities)
    whole = network.state_dict()
    kept = {name: tensor for name, tensor in whole.items() if group_of(name) in groups_received(modalities)}
    assert site.state_dict().keys() == kept.keys()
    site.load_state_dict(kept, strict=True)
    image_BMXYZ = torch.randn(1, 4, 8, 8, 8)
    present_BM = torch.tensor([[m in modalities for m in MODALITIES]])
    for own, other in zip(outputs(site(image_BMXYZ, present_BM)), outputs(network(image_BMXYZ, present_BM)), strict=True):
        assert torch.equal(own, other)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=3), garbage=st.sampled_from(GARBAGE), bf16=st.booleans())
def test_what_stands_in_an_absent_modality_is_never_read(
    networks: dict[tuple[Task, ...], GmmasNetwork], make_batch: Callable[..., Batch], rows: list[list[bool]], garbage: float, bf16: bool
) -> None:
    network = networks[TASKS]
    batch = make_batch(present=rows)
    spoilt_BMXYZ = batch.image_BMXYZ.clone()
    spoilt_BMXYZ[~batch.present_BM] = garbage
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        clean, spoilt = network(batch.image_BMXYZ, batch.present_BM), network(spoilt_BMXYZ, batch.present_BM)
    for a, b in zip(outputs(clean), outputs(spoilt), strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(ROW, min_size=1, max_size=2), garbage=st.sampled_from(GARBAGE))
def test_what_stands_in_an_absent_modality_moves_no_weight(
    networks: dict[tuple[Task, ...], GmmasNetwork], make_batch: Callable[..., Batch], rows: list[list[bool]], garbage: float
) -> None:
    network, n = networks[TASKS], len(rows)
    batch = make_batch(present=rows, known=[[True] * 3] * n, idh=[1.0] * n, codeletion=[0.0] * n, grade=[1.0] * n, mgmt=[0.0] * n)
    spoilt = replace(batch, image_BMXYZ=batch.image_BMXYZ.clone())
    spoilt.image_BMXYZ[~batch.present_BM] = garbage
    gradients = []
    for each in (batch, spoilt):
        network.zero_grad()
        multi_task_loss(network, network(each.image_BMXYZ, each.present_BM), each).total.backward()
        gradients.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    clean, other = gradients
    assert clean.keys() == other.keys()
    assert all(torch.equal(gradient, other[name]) and gradient.isfinite().all() for name, gradient in clean.items())


def test_absent_modalities_leave_no_gradient_in_their_encoder(network: GmmasNetwork, make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(present=[[False, False, True, True], [False, False, False, True]], known=[[True] * 3] * 2, idh=[0.0, 1.0])
    multi_task_loss(network, network(batch.image_BMXYZ, batch.present_BM), batch).total.backward()
    touched = {group_of(name) for name, p in network.named_parameters() if p.grad is not None}
    assert {group for group in touched if group.startswith(("encoder", "gate"))} == {
        "encoder.t2",
        "encoder.flair",
        "gate.t2",
        "gate.flair",
    }
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


def test_molecular_loss_leaves_segmentation_alone(network: GmmasNetwork, make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(present=ALL, idh=[1.0], codeletion=[1.0])
    multi_task_loss(network, network(batch.image_BMXYZ, batch.present_BM), batch).total.backward()
    touched = {group_of(name) for name, p in network.named_parameters() if p.grad is not None}
    assert touched.isdisjoint({"decoder", "head.segmentation", "uncertainty.segmentation"})
    assert {"fusion", "bottleneck", "head.idh", "head.codeletion"} <= touched


def test_two_runs_agree_to_the_bit(make_batch: Callable[..., Batch]) -> None:
    def train() -> list[torch.Tensor]:
        torch.manual_seed(1)
        network = GmmasNetwork(TINY)
        batch = make_batch(present=[[True] * 4, [True, False, False, True]], known=[[True] * 3] * 2, idh=[0.0, 1.0])
        optimiser = torch.optim.AdamW(network.parameters(), 1e-3)
        for _ in range(3):
            optimiser.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                prediction = network(batch.image_BMXYZ, batch.present_BM)
            multi_task_loss(network, prediction, batch).total.backward()
            optimiser.step()
        return list(network.state_dict().values())

    for a, b in zip(train(), train(), strict=True):
        assert torch.equal(a, b)


NATIVE_ONLY = pytest.mark.skipif(not native_bf16("cpu"), reason="no bf16 instructions in this processor; emulation takes half a minute")


@pytest.mark.slow  # gmmas_workflows/test_training.py learns in the short suite
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=NATIVE_ONLY)])
def test_a_few_steps_fit_one_small_volume(make_batch: Callable[..., Batch], precision: str) -> None:
    torch.manual_seed(0)
    network = GmmasNetwork(NetworkConfig(channels=(8, 16, 32), blocks=(1, 1, 1), tasks=TASKS))
    batch = make_batch(
        present=[[True] * 4, [False, False, True, True]],
        known=[[True] * 3] * 2,
        idh=[0.0, 1.0],
        codeletion=[0.0, 1.0],
        grade=[1.0, 0.0],
        mgmt=[1.0, 0.0],
        side=16,
    )
    optimiser = torch.optim.AdamW(network.parameters(), 5e-3)
    history = []
    for _ in range(40):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            prediction = network(batch.image_BMXYZ, batch.present_BM)
        terms = multi_task_loss(network, prediction, batch)
        terms.total.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        history.append({task: float(loss) for task, loss in terms.per_task.items()})
    assert tuple(history[0]) == TASKS
    assert all(history[-1][task] < 0.4 * history[0][task] for task in TASKS), (history[0], history[-1])


def test_odd_grids_and_more_levels() -> None:
    network = GmmasNetwork(NetworkConfig(channels=(4, 4, 8), blocks=(1, 2, 1), transformer_layers=0))
    prediction = network(torch.randn(1, 4, 8, 16, 24), torch.tensor(ALL))
    assert prediction.region_logits_BRXYZ.shape == (1, 3, 8, 16, 24)


def test_prediction_without_gradient_keeps_the_mode(network: GmmasNetwork) -> None:
    network.train()
    prediction = predict_probabilities(network, torch.randn(1, 4, 8, 8, 8), torch.tensor(ALL))
    assert network.training
    assert not prediction.region_logits_BRXYZ.requires_grad
    assert prediction.region_logits_BRXYZ.dtype == torch.float32


def test_a_loss_can_be_taken_of_a_prediction_without_gradient(network: GmmasNetwork, make_batch: Callable[..., Batch]) -> None:
    batch = make_batch(present=ALL, known=[[True] * 3], idh=[1.0], codeletion=[0.0])
    prediction = predict_probabilities(network, batch.image_BMXYZ, batch.present_BM)
    expected = multi_task_loss(network, network(batch.image_BMXYZ, batch.present_BM), batch)
    torch.testing.assert_close(multi_task_loss(network, prediction, batch).total, expected.total)


def test_gate_weights_per_level_follow_the_biases(network: GmmasNetwork) -> None:
    image, present = torch.randn(2, 4, 8, 8, 8), torch.tensor([[True] * 4, [False, True, True, True]])
    with torch.no_grad():
        network.gates[Modality.T2].bias.copy_(torch.tensor([0.0, 30.0]))
    fine, coarse = network.weigh(network.encode(image, present), present)
    assert fine.shape == (2, 4, 8, 8, 8)
    assert coarse.shape == (2, 4, 4, 4, 4)
    assert torch.equal(fine[1, 0], torch.zeros(8, 8, 8))
    torch.testing.assert_close(coarse[:, MODALITIES.index(Modality.T2)], torch.ones(2, 4, 4, 4))


@pytest.mark.parametrize(
    ("shape", "present"),
    [
        ((1, 4, 9, 8, 8), ALL),
        ((1, 4, 2, 8, 8), ALL),
        ((1, 3, 8, 8, 8), [[True] * 3]),
        ((4, 8, 8, 8), ALL),
        ((2, 4, 8, 8, 8), ALL),
        ((1, 4, 8, 8, 8), [[False] * 4]),
    ],
)
def test_inputs_that_do_not_fit_are_refused(network: GmmasNetwork, shape: tuple[int, ...], present: list[list[bool]]) -> None:
    with pytest.raises(ModelError) as caught:
        network(torch.zeros(shape), torch.tensor(present))
    assert caught.value.expected
    assert caught.value.remedy


def test_a_sample_with_only_unreadable_modalities_is_refused() -> None:
    network = GmmasNetwork(TINY, modalities=(Modality.FLAIR,))
    with pytest.raises(ModelError, match="no modality"):
        network(torch.zeros(1, 4, 8, 8, 8), torch.tensor([[True, False, False, False]]))


def test_no_modality_is_refused() -> None:
    with pytest.raises(ModelError):
        GmmasNetwork(TINY, modalities=())
