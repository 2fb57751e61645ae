import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from gmmas_model.network import GmmasNetwork
from gmmas_schema.errors import DataError, GmmasError, ModelError, ProtocolError, ReasonCode
from gmmas_schema.groups import COMPLETION, group_of, groups_received, groups_sent
from gmmas_schema.model import ModelDefinition, NetworkConfig
from gmmas_schema.vocabulary import MODALITIES, TASKS, Modality, Region, Split, Task
from gmmas_workflows.training import LocalTrainer
from strategies.exchange import tensors_down

WITHOUT_T1CE = (Modality.T1, Modality.T2, Modality.FLAIR)


def received(start: dict[str, np.ndarray], modalities) -> dict[str, np.ndarray]:
    return {name: value for name, value in start.items() if group_of(name) in groups_received(modalities)}


@pytest.fixture
def make_trainer(definition, make_sample) -> Callable[..., LocalTrainer]:
    def make(*, modalities=MODALITIES, samples=None, cases: int = 6, site: str = "north") -> LocalTrainer:
        if samples is None:
            samples = {
                Split.TRAIN: [make_sample(n, modalities=modalities) for n in range(cases)],
                Split.VALIDATION: [make_sample(n, modalities=modalities) for n in range(100, 104)],
            }
        return LocalTrainer(definition, samples, modalities=modalities, site=site, device="cpu", threads=1)

    return make


def test_training_learns_an_easy_task(make_trainer, make_request, start) -> None:
    trainer = make_trainer(cases=8)
    plan = {"local_steps": 50, "warmup_steps": 5, "learning_rate": 2e-2, "modality_dropout": 0, "augmentation": False}
    request = make_request(rounds=1, evaluate=Split.VALIDATION, **plan)
    outcome = trainer.train(start, request)
    before = outcome.report.evaluation
    after = trainer.evaluate(start | outcome.tensors, request)
    assert before is not None
    assert before.cases == after.cases == 4
    assert after.loss[Task.SEGMENTATION] < 0.7 * before.loss[Task.SEGMENTATION]
    assert after.dice[Region.WT].value > max(0.6, 2 * before.dice[Region.WT].value)
    assert after.auc[Task.IDH].value == 1


def test_the_same_request_gives_the_same_bits_whatever_ran_before(make_trainer, make_request, start) -> None:
    trainer = make_trainer()
    first = trainer.train(start, make_request(number=2))
    trainer.train(start, make_request(number=1))
    again = make_trainer().train(start, make_request(number=2))
    repeated = trainer.train(start, make_request(number=2))
    for name, value in first.tensors.items():
        assert value.tobytes() == again.tensors[name].tobytes() == repeated.tensors[name].tobytes(), name
    assert first.report.losses == again.report.losses


def test_a_case_with_an_outline_of_its_own_stays_among_the_labelled_whatever_else_is_guessed_of_it(make_trainer, make_sample) -> None:
    samples = [make_sample(0, idh=math.nan), make_sample(1, segmentation=False, idh=math.nan), make_sample(2, segmentation=False, idh=1.0)]
    trainer = make_trainer(samples={Split.TRAIN: samples})
    guessed = [replace(sample, idh=0.0, marker_weight={Task.IDH: 0.5}) for sample in samples[:2]]
    own, others = trainer._pools(guessed)
    assert [(sample.case_id, sample.idh) for sample in own] == [("case-0", 0.0), ("case-2", 1.0)]
    assert [sample.case_id for sample in others] == ["case-1"]
    assert [[sample.case_id for sample in pool] for pool in trainer._pools()] == [["case-0", "case-2"], []]


@pytest.mark.slow
def test_a_network_learns_whole_volumes_from_patches(definition, make_sample, make_request, start) -> None:
    cut = definition.model_copy(update={"grid": definition.grid.model_copy(update={"patch": (8, 12, 8)})})
    samples = {Split.TRAIN: [make_sample(n) for n in range(8)], Split.VALIDATION: [make_sample(n) for n in range(100, 104)]}
    trainer = LocalTrainer(cut, samples, modalities=MODALITIES, site="north", device="cpu", threads=1)
    plan = {"local_steps": 80, "warmup_steps": 5, "learning_rate": 2e-2, "modality_dropout": 0, "augmentation": False}
    request = make_request(rounds=1, evaluate=Split.VALIDATION, **plan).model_copy(update={"model": cut})
    outcome = trainer.train(start, request)
    after = trainer.evaluate(start | outcome.tensors, request)
    assert after.dice[Region.WT].value > max(0.6, 2 * outcome.report.evaluation.dice[Region.WT].value)
    assert after.auc[Task.IDH].value == 1
    short = make_request(rounds=1).model_copy(update={"model": cut})
    first, again = (trainer.train(start, short) for _ in range(2))
    assert all(value.tobytes() == again.tensors[name].tobytes() for name, value in first.tensors.items())


@pytest.mark.parametrize("change", [{"number": 3}, {"seed": 1}])
def test_another_round_or_seed_draws_other_batches(change, make_trainer, make_request, start) -> None:
    trainer = make_trainer()
    # A constant learning rate, so that only the draws differ.
    plan = {"warmup_steps": 0, "final_learning_rate_share": 1.0}
    first, other = (trainer.train(start, make_request(**arguments, **plan)) for arguments in ({}, change))
    assert first.report.losses != other.report.losses


def test_two_sites_with_the_same_cases_draw_differently(make_trainer, make_request, start) -> None:
    losses = [make_trainer(site=site).train(start, make_request()).report.losses for site in ("north", "south")]
    assert losses[0] != losses[1]


def test_a_site_without_t1ce_neither_takes_nor_returns_its_encoder(make_trainer, make_request, start) -> None:
    trainer = make_trainer(modalities=WITHOUT_T1CE)
    outcome = trainer.train(received(start, WITHOUT_T1CE), make_request())
    assert {group_of(name) for name in outcome.tensors} == groups_sent(WITHOUT_T1CE, outcome.report.labelled) - set(COMPLETION)
    assert not any("t1ce" in name for name in outcome.tensors)
    with pytest.raises(ModelError, match=r"encoders\.t1ce"):
        trainer.train(start, make_request())


def test_a_molecular_site_sends_no_decoder_and_leaves_it_alone(make_trainer, make_request, make_sample, start, monkeypatch) -> None:
    samples = {Split.TRAIN: [make_sample(n, segmentation=False) for n in range(4)]}
    trainer = make_trainer(samples=samples)
    networks: list[GmmasNetwork] = []
    load = trainer._load
    monkeypatch.setattr(trainer, "_load", lambda tensors: networks.append(load(tensors)) or networks[-1])
    outcome = trainer.train(start, make_request(weight_decay=0.5, learning_rate=1e-2))
    sent = groups_sent(MODALITIES, {Task.IDH: 4}) - set(COMPLETION)
    assert {group_of(name) for name in outcome.tensors} == sent
    after = {name: tensor.numpy() for name, tensor in networks[0].state_dict().items()}
    frozen = [name for name in start if group_of(name) not in sent]
    kept = {"decoder", "head.segmentation", "head.codeletion", "uncertainty.segmentation", "uncertainty.codeletion"}
    assert {group_of(name) for name in frozen} == kept
    for name in frozen:
        assert after[name].tobytes() == start[name].tobytes(), name
    changed = {group_of(name) for name in outcome.tensors if not np.array_equal(outcome.tensors[name], start[name])}
    assert changed == sent


def test_a_site_of_one_sequence_keeps_its_gate(make_trainer, make_request, start) -> None:
    outcome = make_trainer(modalities=(Modality.FLAIR,)).train(received(start, (Modality.FLAIR,)), make_request())
    assert "gates.flair.bias" not in outcome.tensors
    assert "encoders.flair.stages.0.0.conv1.weight" in outcome.tensors


def test_a_site_without_labels_evaluates_and_sends_nothing(make_trainer, make_request, make_sample, start) -> None:
    samples = {
        Split.TRAIN: [make_sample(n, segmentation=False, idh=math.nan) for n in range(2)],
        Split.VALIDATION: [make_sample(9)],
    }
    outcome = make_trainer(samples=samples).train(start, make_request(evaluate=Split.VALIDATION))
    assert outcome.tensors == {}
    assert outcome.report.steps == outcome.report.cases == 0
    assert outcome.report.evaluation is not None
    assert outcome.report.evaluation.cases == 1


def test_the_report_counts_what_was_done(make_trainer, make_request, make_sample, start) -> None:
    samples = {
        Split.TRAIN: [
            make_sample(1),
            make_sample(2, segmentation=False),
            make_sample(3, idh=math.nan),
            make_sample(4, segmentation=False, idh=math.nan),
        ]
    }
    trainer = make_trainer(samples=samples)
    done: list[tuple[int, int]] = []
    outcome = trainer.train(start, make_request(local_steps=4), on_progress=lambda *at: done.append(at))
    report = outcome.report
    assert report.cases == 3
    assert report.labelled == {Task.SEGMENTATION: 2, Task.IDH: 2, Task.CODELETION: 0}
    assert trainer.describe().labelled == report.labelled
    assert trainer.describe().cases == 4
    assert set(report.losses) == {Task.SEGMENTATION, Task.IDH}
    assert report.steps == 4
    assert done == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert {"load", "train"} == set(report.seconds)
    assert report.peak_memory_mib > 50
    assert 0 < report.cpu_seconds < 60
    assert all(value.dtype == np.float32 and value.flags.c_contiguous for value in outcome.tensors.values())
    assert {name: value.shape for name, value in outcome.tensors.items()} == {name: start[name].shape for name in outcome.tensors}


def test_the_received_arrays_are_not_written_to(make_trainer, make_request, start) -> None:
    copies = {name: value.copy() for name, value in start.items()}
    for value in start.values():
        value.setflags(write=False)
    make_trainer().train(start, make_request())
    for name, value in copies.items():
        np.testing.assert_array_equal(start[name], value)


def test_sequences_that_no_training_case_has_are_not_held(definition, make_sample) -> None:
    samples = {Split.TRAIN: [make_sample(1, modalities=WITHOUT_T1CE)], Split.TEST: [make_sample(2)]}
    trainer = LocalTrainer(definition, samples, modalities=MODALITIES, site="x", threads=1)
    assert trainer.modalities == trainer.describe().modalities == WITHOUT_T1CE
    only_test = LocalTrainer(definition, {Split.TEST: [make_sample(2)]}, modalities=MODALITIES, site="x", threads=1)
    assert only_test.modalities == MODALITIES
    with pytest.raises(DataError, match="no case has a sequence"):
        LocalTrainer(definition, {Split.TRAIN: [make_sample(1, modalities=WITHOUT_T1CE)]}, modalities=(Modality.T1CE,), site="x")


def test_cancelling_ends_the_task_with_its_code(make_trainer, make_request, start) -> None:
    asked = iter([False, False, True])
    with pytest.raises(GmmasError, match="step 2") as caught:
        make_trainer().train(start, make_request(local_steps=4), should_stop=lambda: next(asked))
    assert caught.value.code is ReasonCode.CANCELLED
    with pytest.raises(GmmasError, match="case 1"):
        make_trainer().train(start, make_request(evaluate=Split.VALIDATION), should_stop=lambda: True)


def test_diverging_training_is_refused_before_it_reaches_the_weights(make_trainer, make_request, make_sample, start) -> None:
    spoilt = dict(start)
    spoilt["heads.segmentation.bias"] = np.full_like(start["heads.segmentation.bias"], np.nan)
    with pytest.raises(ModelError, match="training diverged"):
        make_trainer().train(spoilt, make_request())


def test_a_request_for_another_definition_or_without_a_plan_is_refused(make_trainer, make_request, start) -> None:
    request = make_request()
    other = request.model_copy(update={"model": ModelDefinition(network=NetworkConfig(channels=(4, 16), blocks=(1, 1)))})
    with pytest.raises(ProtocolError) as caught:
        make_trainer().train(start, other)
    assert caught.value.code is ReasonCode.MODEL_DEFINITION
    with pytest.raises(ProtocolError, match="no plan"):
        make_trainer().train(start, request.model_copy(update={"plan": None}))
    with pytest.raises(ProtocolError, match="names no split"):
        make_trainer().evaluate(start, request)


@pytest.mark.parametrize(
    "failure",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")],
)
def test_running_out_of_memory_has_its_code(failure, make_trainer, make_request, start, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(GmmasNetwork, "encode", fail)
    trainer = make_trainer()
    for work in (lambda: trainer.train(start, make_request()), lambda: trainer.evaluate(start, make_request(evaluate=Split.VALIDATION))):
        with pytest.raises(GmmasError, match="memory ran out") as caught:
            work()
        assert caught.value.code is ReasonCode.OUT_OF_MEMORY


def test_another_runtime_error_is_left_as_it_is(make_trainer, make_request, start, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(GmmasNetwork, "encode", fail)
    with pytest.raises(RuntimeError, match="a fault of ours") as caught:
        make_trainer().train(start, make_request())
    assert not isinstance(caught.value, GmmasError)


def test_bf16_trains_finite_fp32_tensors_deterministically(make_trainer, make_request, start) -> None:
    first, again = (make_trainer().train(start, make_request(precision="bf16")) for _ in range(2))
    assert all(np.isfinite(value).all() and value.dtype == np.float32 for value in first.tensors.values())
    assert all(value.tobytes() == again.tensors[name].tobytes() for name, value in first.tensors.items())


def test_fixed_weighting_leaves_the_uncertainties_alone(make_trainer, make_request, start) -> None:
    tensors = make_trainer().train(start, make_request(uncertainty_weighting="fixed")).tensors
    for task in (t for t in TASKS if f"uncertainty.{t}" in tensors):
        np.testing.assert_array_equal(tensors[f"uncertainty.{task}"], start[f"uncertainty.{task}"])


@pytest.fixture
def with_anchors(definition):
    """A definition with an adapter, and its start."""
    wider = definition.model_copy(update={"network": definition.network.model_copy(update={"prototypes": 1})})
    torch.manual_seed(0)
    tensors = {name: tensor.detach().numpy().copy() for name, tensor in GmmasNetwork(wider.network).state_dict().items()}
    return wider, tensors


def test_complete_sites_send_what_their_cases_look_like(with_anchors, make_sample, make_request) -> None:
    definition, tensors = with_anchors
    request = make_request().model_copy(update={"model": definition})

    def send(cases, modalities=MODALITIES):
        samples = {Split.TRAIN: [make_sample(n, modalities=modalities) for n in range(cases)]}
        trainer = LocalTrainer(definition, samples, modalities=modalities, site="s", device="cpu", threads=1)
        received = tensors_down(tensors, modalities=trainer.modalities)
        return trainer.train(received, request).tensors

    enough = send(6)
    assert enough["anchors.counts_KP"].tolist() == [[6.0]] * 4
    assert np.abs(enough["anchors.sums_KPC"]).sum() > 0
    assert send(6)["anchors.sums_KPC"].tobytes() == enough["anchors.sums_KPC"].tobytes()
    few = send(4)
    assert not few["anchors.counts_KP"].any()
    assert not few["anchors.sums_KPC"].any()
    incomplete = send(6, WITHOUT_T1CE)
    assert not [name for name in incomplete if name.startswith("anchors")]
    assert "adapter.gamma" in incomplete
    assert not [name for name in send(6, (Modality.T2,)) if name.startswith("adapter")]
