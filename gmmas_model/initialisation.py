"""Model 0 of a run: the network's own initialisation under the run's seed."""

import numpy as np
import torch
from numpy.typing import NDArray

from gmmas_model.network import GmmasNetwork
from gmmas_schema.model import NetworkConfig


def initial_tensors(config: NetworkConfig, *, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return the seeded start as float32 arrays by tensor name; the same for the same seed, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = GmmasNetwork(config)
    return {name: np.array(tensor.detach().numpy(), np.float32, order="C") for name, tensor in sorted(network.state_dict().items())}
