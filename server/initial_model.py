"""Model 0 of a federated run."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from gmmas_schema.federation import FederationConfig


def make_initial_model(config: "FederationConfig") -> "dict[str, NDArray[np.float32]]":
    """Return the seeded start as float32 arrays by tensor name; the same for the same seed, whatever was drawn before."""
    # Only a run's first minute needs torch; a resumed coordinator stays without its 200 MB.
    import torch

    from gmmas_model.initialisation import initial_tensors

    torch.set_num_threads(1)
    return initial_tensors(config.model.network, seed=config.seed)
