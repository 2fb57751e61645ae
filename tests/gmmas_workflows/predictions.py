"""The small real case, and random weights under which every region appears on it."""

from dataclasses import replace
from pathlib import Path

import torch

from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import Weights
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import Modality, Task

CASE = Path(__file__).parents[1] / "data" / "BraTS2021_00006"


def weights_of(network: GmmasNetwork, definition: ModelDefinition) -> Weights:
    tensors = {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}
    return Weights(tensors, definition, sha256="ab" * 32)


def without_encoders(weights: Weights, *modalities: Modality) -> Weights:
    """Return the weights of a model that never had an encoder of these sequences."""
    absent = [f".{modality}." for modality in modalities]
    return replace(weights, tensors={name: value for name, value in weights.tensors.items() if not any(part in name for part in absent)})


def random_weights(definition: ModelDefinition) -> Weights:
    """Return random weights with a prior that lets every region appear."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = GmmasNetwork(definition.network)
    with torch.no_grad():
        network.heads[Task.SEGMENTATION].bias.fill_(1.5)
        network.heads[Task.SEGMENTATION].weight.mul_(3)
    return weights_of(network, definition)
