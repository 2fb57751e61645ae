import numpy as np
import pytest

from gmmas_model.initialisation import initial_tensors
from gmmas_schema.federation import LOSS_FLOOR, TrainingPlan
from gmmas_schema.groups import group_of, groups_received
from gmmas_schema.messages import Action, TaskRequest
from gmmas_schema.vocabulary import Modality, Split, Task
from gmmas_workflows.local_rounds import local_rounds
from gmmas_workflows.training import LocalTrainer
from strategies.anchors import COUNTS, SUMS, settle_anchors

PLAN = TrainingPlan(local_steps=2, batch_size=2, warmup_steps=1, precision="fp32")
HELD = (Modality.T2, Modality.FLAIR)


@pytest.fixture
def trainer(definition, make_sample) -> LocalTrainer:
    samples = {Split.TRAIN: [make_sample(n) for n in range(3)], Split.VALIDATION: [make_sample(9)]}
    return LocalTrainer(definition, samples, modalities=HELD, site="east", device="cpu", threads=1)


def test_rounds_chain_like_those_of_a_federation_of_one_site(trainer, definition, start) -> None:
    steps: list[tuple[int, int]] = []
    made = list(
        local_rounds(
            trainer,
            start,
            PLAN,
            rounds=2,
            seed=5,
            run="alone",
            evaluate=Split.VALIDATION,
            on_progress=lambda *at: steps.append(at),
        )
    )
    final, reports = made[-1].tensors, [each.report for each in made]
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [report.round for report in reports] == [1, 2]
    assert all(report.evaluation is not None for report in reports)

    by_hand = {name: value for name, value in start.items() if group_of(name) in groups_received(HELD)}
    for number in (1, 2):
        request = TaskRequest(action=Action.TRAIN, run="alone", round=number, rounds=2, seed=5, model=definition, plan=PLAN)
        by_hand |= trainer.train(by_hand, request).tensors
    assert set(final) == set(by_hand)
    for name, value in by_hand.items():
        np.testing.assert_array_equal(final[name], value)


def test_the_start_is_left_as_it_was(trainer, start) -> None:
    before = {name: value.copy() for name, value in start.items()}
    (made,) = local_rounds(trainer, start, PLAN, rounds=1, seed=0)
    assert not any("t1" in name.split(".")[1] for name in made.tensors if name.startswith("encoders."))
    for name, value in before.items():
        np.testing.assert_array_equal(start[name], value)


def test_rounds_that_go_on_from_a_model_are_those_of_an_unbroken_run(trainer, start) -> None:
    whole = [each.tensors for each in local_rounds(trainer, start, PLAN, rounds=3, seed=5)]
    steps: list[tuple[int, int]] = []
    rest = local_rounds(trainer, whole[0], PLAN, rounds=3, seed=5, done=1, on_progress=lambda *at: steps.append(at))
    for expected, found in zip(whole[1:], rest, strict=True):
        for name, value in expected.items():
            np.testing.assert_array_equal(found.tensors[name], value)
    assert steps[0] == (3, 6)


def test_a_run_can_be_left_after_any_round(trainer, start) -> None:
    rounds = local_rounds(trainer, start, PLAN, rounds=100, seed=0)
    assert next(rounds).report.round == 1


def test_closed_form_task_weights_are_set_between_the_rounds(trainer, start) -> None:
    plan = PLAN.model_copy(update={"uncertainty_weighting": "closed_form"})
    first = next(local_rounds(trainer, start, plan, rounds=2, seed=0))
    expected = np.log(first.report.losses[Task.SEGMENTATION] + LOSS_FLOOR)
    assert first.tensors["uncertainty.segmentation"] == pytest.approx(expected, rel=1e-6)


def test_anchors_settle_between_the_rounds_as_at_a_coordinator(definition, make_sample, start) -> None:
    """A prototype that a round had too few patients for stays, and the others move slowly."""
    with_anchors = definition.model_copy(update={"network": definition.network.model_copy(update={"prototypes": 1})})
    samples = {Split.TRAIN: [make_sample(n) for n in range(6)]}
    trainer = LocalTrainer(with_anchors, samples, modalities=tuple(Modality), site="east", device="cpu", threads=1)
    before = initial_tensors(with_anchors.network, seed=0)
    before[SUMS][:], before[COUNTS][:] = 14.0, 7.0
    (made,) = local_rounds(trainer, before, PLAN, rounds=1, seed=5)
    request = TaskRequest(action=Action.TRAIN, run="local", round=1, rounds=1, seed=5, model=with_anchors, plan=PLAN)
    measured = trainer.train(before, request).tensors
    assert measured[COUNTS].max() == 6
    for name, value in settle_anchors(mean=measured, current=before, sites=1).items():
        np.testing.assert_array_equal(made.tensors[name], value)
