"""A site's own norms: where they come from, what they belong to, and the model that stays at the site."""

import numpy as np
import pytest

from gmmas_model.network import GmmasNetwork
from gmmas_model.norms import norm_names
from gmmas_model.weights import load_weights, make_network
from gmmas_schema.messages import Action
from gmmas_schema.vocabulary import MODALITIES, Modality, Split
from gmmas_workflows.inference import readable_modalities
from gmmas_workflows.personalised import FOLDER
from gmmas_workflows.scores import score_model
from gmmas_workflows.training import LocalTrainer
from strategies.exchange import tensors_down

PLAN = {"personalised": "norms", "evaluate": Split.VALIDATION, "rounds": 4}


@pytest.fixture
def make_trainer(definition, make_sample):
    def make(folder=None, *, modalities=MODALITIES):
        samples = {
            Split.TRAIN: [make_sample(n, modalities=modalities) for n in range(4)],
            Split.VALIDATION: [make_sample(n, modalities=modalities) for n in range(100, 103)],
        }
        return LocalTrainer(definition, samples, modalities=modalities, site="north", device="cpu", threads=1, folder=folder)

    return make


def norms_of(definition, tensors):
    return norm_names(GmmasNetwork(definition.network)) & tensors.keys()


def same(first, second):
    return first.keys() == second.keys() and all(value.tobytes() == second[name].tobytes() for name, value in first.items())


def test_a_round_starts_from_the_sites_own_norms_and_from_the_received_rest(definition, make_trainer, make_request, start) -> None:
    trainer = make_trainer()
    first = trainer.train(start, make_request(number=1, **PLAN))
    own = norms_of(definition, first.tensors)
    # What the others made of the norms comes back; the site does not take it.
    others = start | {name: start[name] + np.float32(0.5) for name in own}
    with_others = trainer.train(others, make_request(number=2, **PLAN))
    with_own = make_trainer().train(start | {name: first.tensors[name] for name in own}, make_request(number=2, rounds=4))
    assert same(with_others.tensors, with_own.tensors)


def test_the_first_round_and_another_run_start_from_what_came(make_trainer, make_request, start) -> None:
    trainer = make_trainer()
    plain = make_trainer().train(start, make_request(number=1, evaluate=Split.VALIDATION, rounds=4))
    first = trainer.train(start, make_request(number=1, **PLAN))
    assert same(first.tensors, plain.tensors)
    assert first.report.personalised == first.report.evaluation
    elsewhere = make_request(number=1, **PLAN).model_copy(update={"run": "run-2"})
    fresh = make_trainer().train(start, elsewhere)
    trainer.train(start | first.tensors, make_request(number=2, **PLAN))
    assert same(trainer.train(start, elsewhere).tensors, fresh.tensors)


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_round_that_is_asked_for_again_gives_the_same_bits(tmp_path, make_trainer, make_request, start, on_disk) -> None:
    trainer = make_trainer(tmp_path if on_disk else None)
    first = trainer.train(start, make_request(number=1, **PLAN))
    second = trainer.train(start | first.tensors, make_request(number=2, **PLAN))
    if on_disk:
        trainer = make_trainer(tmp_path)
    again = trainer.train(start | first.tensors, make_request(number=2, **PLAN))
    assert same(second.tensors, again.tensors)
    assert second.report.personalised == again.report.personalised


def test_norms_of_a_round_whose_answer_did_not_count_are_not_carried_on(make_trainer, make_request, start) -> None:
    trainer, twin = make_trainer(), make_trainer()
    for each in (trainer, twin):
        first = each.train(start, make_request(number=1, **PLAN))
    trainer.train(start | first.tensors, make_request(number=2, learning_rate=0.1, **PLAN).model_copy(update={"counted": 1}))
    third = make_request(number=3, **PLAN).model_copy(update={"counted": 1})
    assert same(trainer.train(start | first.tensors, third).tensors, twin.train(start | first.tensors, third).tensors)


def test_both_models_are_validated_and_told_apart(definition, make_trainer, make_request, start) -> None:
    trainer = make_trainer()
    first = trainer.train(start, make_request(number=1, learning_rate=1e-2, **PLAN))
    report = trainer.train(start, make_request(number=2, **PLAN)).report
    own = start | {name: first.tensors[name] for name in norms_of(definition, first.tensors)}
    judge = make_trainer()
    assert report.evaluation == judge.evaluate(start, make_request(evaluate=Split.VALIDATION))
    assert report.personalised == judge.evaluate(own, make_request(evaluate=Split.VALIDATION))
    assert report.evaluation != report.personalised
    assert trainer.train(start, make_request(number=2, evaluate=Split.VALIDATION)).report.personalised is None


def test_a_proximal_pull_leaves_the_norms_alone(definition, make_trainer, make_request, start) -> None:
    plan = {**PLAN, "proximal_weight": 1e4, "local_steps": 12, "warmup_steps": 0}
    ways = {}
    for personalised in ("norms", "none"):
        outcome = make_trainer().train(start, make_request(**{**plan, "personalised": personalised}))
        ways[personalised] = sum(np.abs(outcome.tensors[name] - start[name]).sum() for name in norms_of(definition, outcome.tensors))
    assert ways["norms"] > 5 * ways["none"]


def test_the_best_of_the_sites_own_models_stays_at_the_site(tmp_path, make_trainer, make_request, start) -> None:
    held = (Modality.T1, Modality.FLAIR)
    trainer, received = make_trainer(tmp_path, modalities=held), tensors_down(start, modalities=held)
    scores = {}
    for number in (1, 2, 3):
        outcome = trainer.train(received, make_request(number=number, learning_rate=1e-2, local_steps=12, **PLAN))
        received = received | outcome.tensors
        own = {"north": outcome.report.personalised}
        scores[number - 1] = score_model(own, model_round=number - 1, split=Split.VALIDATION).score
    weights = load_weights(tmp_path / FOLDER)
    best = max(scores, key=lambda number: (scores[number], -number))
    assert weights.metadata == {"site": "north", "run": "run-1", "round": str(best), "score": repr(scores[best])}
    assert readable_modalities(weights) == held
    assert make_network(weights, modalities=held).modalities == held
    assert (tmp_path / FOLDER).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("rounds", [1, 4])
def test_the_last_model_is_a_candidate_too(tmp_path, make_trainer, make_request, start, rounds) -> None:
    """Also where a spent budget ends the run before its time."""
    trainer = make_trainer(tmp_path)
    plan = {**PLAN, "rounds": rounds, "learning_rate": 2e-2, "local_steps": 40, "warmup_steps": 2, "augmentation": False}
    outcome = trainer.train(start, make_request(number=1, **plan))
    assert load_weights(tmp_path / FOLDER).metadata["round"] == "0"
    last = make_request(number=1, rounds=rounds, evaluate=Split.VALIDATION).model_copy(update={"action": Action.EVALUATE, "plan": None})
    trainer.evaluate(start | outcome.tensors, last)
    weights = load_weights(tmp_path / FOLDER)
    assert weights.metadata["round"] == "1"
    assert same({n: v for n, v in weights.tensors.items() if n in outcome.tensors}, outcome.tensors)


def test_a_run_with_one_model_for_all_leaves_nothing_at_the_site(tmp_path, make_trainer, make_request, start) -> None:
    make_trainer(tmp_path).train(start, make_request(evaluate=Split.VALIDATION))
    assert not list(tmp_path.iterdir())
