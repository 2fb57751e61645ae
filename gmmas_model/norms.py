"""Which parameters of a network belong to its normalisation layers; found by the kind of the layer, not by the parameter's name."""

from typing import Final

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from gmmas_model.blocks import InstanceNorm

NORMS: Final = (InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, _NormBase)


def norm_names(network: nn.Module) -> frozenset[str]:
    """Return the names of the learned scales and shifts of all normalisation layers, as in `network.named_parameters()`."""
    layers = ((name, module) for name, module in network.named_modules() if isinstance(module, NORMS))
    return frozenset(f"{layer}.{name}" for layer, module in layers for name, _ in module.named_parameters(recurse=False))
