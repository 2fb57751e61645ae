"""Model 0 of a run: the network's own initialisation under the run's seed.

    python -m gmmas_model.initialisation SEED < network.json > model.safetensors

is for processes that stay without torch and its memory.
"""

import sys

import numpy as np
import safetensors.numpy
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    start = initial_tensors(NetworkConfig.model_validate_json(sys.stdin.buffer.read()), seed=int(sys.argv[1]))
    sys.stdout.buffer.write(safetensors.numpy.save(start))
