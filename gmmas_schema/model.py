"""The model definition: network size, input grid and heads. Its digest must agree on every side before anything is trained."""

from typing import Final, Literal

from pydantic import Field, PositiveInt

from gmmas_schema.base import FrozenModel

MODEL_DEFINITION_VERSION: Final = 1
"""Raised with any change to the network's code that changes names, shapes or meaning of its tensors."""


class NetworkConfig(FrozenModel):
    """Network of gmmas_model.network.

    Attributes:
        channels: feature channels per level, finest first; every level halves the resolution.
        blocks: residual blocks per level.
        transformer_layers: layers of the bottleneck transformer over the fused coarsest features.
        transformer_heads: attention heads per layer; must divide the coarsest channel count.
    """

    channels: tuple[PositiveInt, ...] = Field(default=(8, 16, 32, 64), min_length=2, max_length=6)
    blocks: tuple[PositiveInt, ...] = Field(default=(1, 1, 1, 1), min_length=2, max_length=6)
    transformer_layers: int = Field(default=1, ge=0, le=8)
    transformer_heads: PositiveInt = 4


class GridConfig(FrozenModel):
    """The network's input grid: the brain box, RAS+, resampled to `spacing_mm` and padded or cropped to `shape` voxels."""

    spacing_mm: float = Field(default=4.0, gt=0.3, le=8.0)
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (48, 48, 48)


class ModelDefinition(FrozenModel):
    """All that must be equal on every side for tensors to mean the same."""

    version: Literal[1] = MODEL_DEFINITION_VERSION
    network: NetworkConfig = NetworkConfig()
    grid: GridConfig = GridConfig()
