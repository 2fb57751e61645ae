"""A tiny model with something to say: every region appears on the case of tests/data, and no marker's probability is near 0 or 1."""

from pathlib import Path

import pytest
import torch

from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import Weights, load_weights, save_weights
from gmmas_schema.model import GridConfig, ModelDefinition
from gmmas_schema.vocabulary import Task


@pytest.fixture(scope="session")
def weights_folder(definition, tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = ModelDefinition(network=definition.network, grid=GridConfig(spacing_mm=8.0, shape=(24, 24, 24)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = GmmasNetwork(own.network)
    with torch.no_grad():
        network.heads[Task.SEGMENTATION].bias.fill_(1.5)
        network.heads[Task.SEGMENTATION].weight.mul_(3)
    folder = tmp_path_factory.mktemp("weights")
    tensors = {name: value.detach().numpy().copy() for name, value in network.state_dict().items()}
    save_weights(folder, tensors, own, metadata={"run": "trial", "round": "3"})
    return folder


@pytest.fixture(scope="session")
def weights(weights_folder: Path) -> Weights:
    return load_weights(weights_folder)
