"""Model 0 of a run: the network's own initialisation under the run's seed."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gmmas_schema.federation import FederationConfig


def make_initial_model(config: "FederationConfig") -> "dict[str, NDArray[np.float32]]":
    """Return the seeded start as float32 arrays by tensor name; the same for the same seed, whatever was drawn before."""
    # Only a run's first minute needs torch; a resumed coordinator stays without its 200 MB.
    import torch

    from gmmas_model.network import GmmasNetwork

    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = GmmasNetwork(config.model.network)
    return {name: np.array(tensor.detach().numpy(), np.float32, order="C") for name, tensor in sorted(network.state_dict().items())}
