"""A folder of weights for commands that need a model: a tiny network, untrained."""

from pathlib import Path

import pytest
import torch

from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import load_weights, save_weights
from gmmas_schema.model import GridConfig, ModelDefinition, NetworkConfig
from gmmas_schema.trained_parts import TrainedParts
from gmmas_schema.vocabulary import Modality, Region, Task


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


@pytest.fixture(scope="session")
def half_trained(weights_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights, of which nobody trained the encoder of T1ce, the row of ET and the head of 1p/19q."""
    weights, folder = load_weights(weights_folder), tmp_path_factory.mktemp("half")
    trained = TrainedParts(modalities=(Modality.T1, Modality.T2, Modality.FLAIR), heads=(Region.WT, Region.TC, Task.IDH))
    save_weights(folder, weights.tensors, weights.definition, trained=trained)
    return folder
