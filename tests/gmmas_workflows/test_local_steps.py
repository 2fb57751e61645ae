import numpy as np
import pytest

from gmmas_schema.vocabulary import MODALITIES, Split
from gmmas_workflows.training import LocalTrainer


@pytest.fixture
def trainer(definition, make_sample) -> LocalTrainer:
    samples = {Split.TRAIN: [make_sample(n) for n in range(6)]}
    return LocalTrainer(definition, samples, modalities=MODALITIES, site="north", device="cpu", threads=1)


def distance(start, outcome) -> float:
    return float(np.sqrt(sum(np.square(value - start[name]).sum() for name, value in outcome.tensors.items())))


def test_a_strong_proximal_pull_holds_a_round_near_the_received_model(trainer, make_request, start) -> None:
    plan = {"local_steps": 12, "warmup_steps": 0, "final_learning_rate_share": 1.0}
    ways = [distance(start, trainer.train(start, make_request(rounds=1, proximal_weight=mu, **plan))) for mu in (0, 10, 1000)]
    assert ways == sorted(ways, reverse=True)
    assert ways[-1] < 0.25 * ways[0]


def test_without_a_pull_a_round_is_what_it_was(trainer, make_request, start) -> None:
    plain, off = trainer.train(start, make_request()), trainer.train(start, make_request(proximal_weight=0.0))
    assert all(value.tobytes() == off.tensors[name].tobytes() for name, value in plain.tensors.items())


def test_what_a_site_does_not_send_is_not_pulled_either(make_sample, definition, make_request, start) -> None:
    samples = {Split.TRAIN: [make_sample(n, segmentation=False) for n in range(4)]}
    trainer = LocalTrainer(definition, samples, modalities=MODALITIES, site="north", device="cpu", threads=1)
    outcome = trainer.train(start, make_request(proximal_weight=1.0))
    assert not any(name.startswith("decoder.") for name in outcome.tensors)
