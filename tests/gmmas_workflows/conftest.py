"""A tiny network, and synthetic cases that it learns in seconds: a cube in a noisy brain, brighter on T2 where the tumour is mutant."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from gmmas_data.samples import Sample
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import Weights
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.messages import Action, TaskRequest
from gmmas_schema.model import GridConfig, ModelDefinition, NetworkConfig
from gmmas_schema.vocabulary import MODALITIES, Modality, Split
from gmmas_workflows.inference import CasePrediction, predict_case
from tests.gmmas_workflows.predictions import CASE, random_weights

SIDE = 16


@pytest.fixture(scope="module", autouse=True)
def _one_thread_for_the_modules_fixtures() -> None:
    # Sums differ in the last bits with the number of threads, and predictions of fixtures and tests are compared bit for bit.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def definition() -> ModelDefinition:
    network = NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_layers=1, transformer_heads=2)
    return ModelDefinition(network=network, grid=GridConfig(spacing_mm=8.0, shape=(SIDE, SIDE, SIDE)))


@pytest.fixture(scope="module")
def weights(definition: ModelDefinition) -> Weights:
    """Random weights for the small real case."""
    return random_weights(definition.model_copy(update={"grid": GridConfig(spacing_mm=8.0, shape=(24, 24, 24))}))


@pytest.fixture(scope="module")
def prediction(weights: Weights) -> CasePrediction:
    return predict_case(CASE, weights, device="cpu")


@pytest.fixture(scope="session")
def make_sample() -> Callable[..., Sample]:
    def make(
        number: int,
        *,
        modalities: tuple[Modality, ...] = MODALITIES,
        segmentation: bool = True,
        idh: float | None = None,
        codeletion: float = math.nan,
        grade: float = math.nan,
        mgmt: float = math.nan,
    ) -> Sample:
        rng = np.random.default_rng(number)
        mutant = float(number % 2) if idh is None else idh
        corner = rng.integers(2, 7, size=3)
        regions_RXYZ = np.zeros((3, SIDE, SIDE, SIDE), dtype=np.uint8)
        for region, (low, high) in enumerate([(0, 7), (1, 6), (2, 5)]):
            regions_RXYZ[(region, *(slice(c + low, c + high) for c in corner))] = 1
        image_MXYZ = rng.normal(0, 0.3, (4, SIDE, SIDE, SIDE)).astype(np.float32)
        image_MXYZ += np.float32([0.7, 0.7, 2.5 if mutant == 1 else 0.7, 1.0])[:, None, None, None] * regions_RXYZ.sum(0)
        present_M = np.array([m in modalities for m in MODALITIES])
        image_MXYZ[~present_M] = 0
        return Sample(
            case_id=f"case-{number}",
            patient_id=f"patient-{number}",
            image_MXYZ=image_MXYZ,
            present_M=present_M,
            regions_RXYZ=regions_RXYZ if segmentation else None,
            idh=mutant,
            codeletion=codeletion,
            grade=grade,
            mgmt=mgmt,
            affine=np.diag([8.0, 8, 8, 1]),
            native_affine=np.diag([8.0, 8, 8, 1]),
            native_shape=(SIDE, SIDE, SIDE),
        )

    return make


@pytest.fixture(scope="session")
def start(definition: ModelDefinition) -> dict[str, np.ndarray]:
    """The tensors of a seeded network of all modalities."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = GmmasNetwork(definition.network)
    return {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}


@pytest.fixture(scope="session")
def make_request(definition: ModelDefinition) -> Callable[..., TaskRequest]:
    def make(*, number: int = 1, rounds: int = 3, seed: int = 0, evaluate: Split | None = None, **plan: object) -> TaskRequest:
        options: dict[str, object] = {"local_steps": 2, "batch_size": 2, "warmup_steps": 2, "precision": "fp32"} | plan
        return TaskRequest(
            action=Action.TRAIN,
            run="run-1",
            round=number,
            rounds=rounds,
            seed=seed,
            model=definition,
            plan=TrainingPlan.model_validate(options),
            evaluate=evaluate,
        )

    return make
