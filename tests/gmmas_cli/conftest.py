"""A folder of weights for commands that need a model: a tiny network, untrained."""

from pathlib import Path

import pytest
import torch

from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import save_weights
from gmmas_schema.model import GridConfig, ModelDefinition, NetworkConfig
from gmmas_schema.vocabulary import Task


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of a tiny network under which every region appears."""
    network_config = NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_heads=2)
    definition = ModelDefinition(network=network_config, grid=GridConfig(spacing_mm=8.0, shape=(24, 24, 24)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = GmmasNetwork(definition.network)
    with torch.no_grad():
        network.heads[Task.SEGMENTATION].bias.fill_(1.5)
    folder = tmp_path_factory.mktemp("weights")
    save_weights(folder, {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}, definition)
    return folder
