"""How large a network is, told from its configuration without taking the memory for it."""

import sys
from functools import lru_cache

import torch

from gmmas_model.network import GmmasNetwork
from gmmas_schema.model import NetworkConfig

_MOST_BLOCKS = 512
_KERNEL = 27


def count_parameters(config: NetworkConfig) -> int:
    """Return the numbers of a network with every encoder; for one too deep to be set up, a bound from below.

    Raises:
        ModelError: the sizes do not fit together.
    """
    if sum(config.blocks) > _MOST_BLOCKS:  # only to be set up, such a one takes minutes
        return sum(count * _KERNEL * width**2 for count, width in zip(config.blocks, config.channels, strict=False))
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GmmasNetwork(config).parameters())


@lru_cache(maxsize=4)
def count_values(config: NetworkConfig) -> int:
    """Return the numbers of all tensors of a network with every encoder, as they travel: its parameters, and anchors beside them.

    For one too deep to be set up, more than any message can hold.

    Raises:
        ModelError: the sizes do not fit together.
    """
    if sum(config.blocks) > _MOST_BLOCKS:
        return sys.maxsize
    with torch.device("meta"):
        return sum(value.numel() for value in GmmasNetwork(config).state_dict().values())
