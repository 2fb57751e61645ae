"""The model definition: network size, input grid and heads. Its digest must agree on every side before anything is trained."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, Self

from pydantic import Field, PositiveInt, field_validator, model_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.vocabulary import REQUIRED_TASKS, TASKS, Task

MODEL_DEFINITION_VERSION: Final = 1
"""Raised with any change to the network's code that changes names, shapes or meaning of its tensors."""


class NetworkConfig(FrozenModel):
    """Network of gmmas_model.network; `small` or `paper` (see SIZES) stands for all values of that size.

    In YAML: `network: paper`, or single values beside a size, `network: {size: paper, tasks: [segmentation, idh, codeletion, mgmt]}`,
    or every value. Without a size, what is not named is as in `small`.

    Attributes:
        channels: feature channels per level, finest first; every level halves the resolution.
        blocks: residual blocks per level.
        transformer_layers: layers of the bottleneck transformer over the fused coarsest features.
        transformer_heads: attention heads per layer; must divide the coarsest channel count.
        prototypes: anchors of each tissue class for the distillation adapter (gmmas_model.adapter); 0 leaves the adapter out. A site makes
            one for every 5 of its training patients who have the class, all four sequences and a segmentation (MIN_ANCHOR_PATIENTS), so
            4 need a site with 20; what no site can make stays unused.
        tasks: what the network has a head for; all of REQUIRED_TASKS, and any others of TASKS.
    """

    channels: tuple[PositiveInt, ...] = Field(default=(8, 16, 32, 64), min_length=2, max_length=6)
    blocks: tuple[PositiveInt, ...] = Field(default=(1, 1, 1, 1), min_length=2, max_length=6)
    transformer_layers: int = Field(default=1, ge=0, le=8)
    transformer_heads: PositiveInt = 4
    prototypes: int = Field(default=0, ge=0, le=8)
    tasks: tuple[Task, ...] = REQUIRED_TASKS

    @model_validator(mode="before")
    @classmethod
    def _from_size(cls, value: Any) -> Any:
        named = {"size": value} if isinstance(value, str) else value
        if not isinstance(named, Mapping) or "size" not in named:
            return value
        if named["size"] not in tuple(SIZES):
            raise ValueError(f"unknown size; sizes are {', '.join(SIZES)}")
        return SIZES[named["size"]].model_dump() | {key: own for key, own in named.items() if key != "size"}

    @model_validator(mode="after")
    def _sizes_that_fit(self) -> Self:
        if len(self.blocks) != len(self.channels):
            raise ValueError(f"{len(self.channels)} channel counts and {len(self.blocks)} block counts; every level has one of each")
        if self.channels[-1] % self.transformer_heads:
            raise ValueError(
                f"transformer_heads must divide the last channel count; {self.transformer_heads} does not divide {self.channels[-1]}"
            )
        return self

    @field_validator("tasks")
    @classmethod
    def _complete_and_ordered(cls, value: tuple[Task, ...]) -> tuple[Task, ...]:
        if len(set(value)) != len(value):
            raise ValueError("a task is named twice")
        if missing := [task for task in REQUIRED_TASKS if task not in value]:
            raise ValueError(f"every network has the tasks {', '.join(REQUIRED_TASKS)}; missing {', '.join(missing)}")
        return tuple(task for task in TASKS if task in value)


SIZES: Final[Mapping[str, NetworkConfig]] = MappingProxyType(
    {
        "small": NetworkConfig(),
        "paper": NetworkConfig(channels=(16, 32, 64, 128), blocks=(1, 2, 2, 2), transformer_layers=2),
    }
)
"""`small` for a CPU, `paper` for a GPU. Trained parameters without optional tasks:

            all          one encoder    all but encoders and gates
    small   1 025 536    222 848        134 128
    paper   8 846 632    2 052 096      638 232
"""


class GridConfig(FrozenModel):
    """The brain box, RAS+, resampled to `spacing_mm` and padded or cropped to `shape`, and how much of it the network sees at a time.

    Attributes:
        spacing_mm: edge of a voxel.
        shape: voxels of the box, which is centred on the brain; what reaches beyond it is cut off. Brains of adults take up to about
            160 x 200 x 176 mm.
        patch: voxels of the patches that the network is trained on, and of the overlapping windows that it predicts a case with; None
            trains and predicts the whole box at once.
    """

    spacing_mm: float = Field(default=4.0, gt=0.3, le=8.0)
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (48, 48, 48)
    patch: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None

    @property
    def window(self) -> tuple[int, int, int]:
        """Return the voxels that the network sees at a time."""
        return self.shape if self.patch is None else self.patch

    @model_validator(mode="after")
    def _patch_within_box(self) -> Self:
        if any(n > whole for n, whole in zip(self.window, self.shape, strict=True)):
            raise ValueError(f"patch {self.window} must not exceed the box, shape {self.shape}")
        return self


class ModelDefinition(FrozenModel):
    """All that must be equal on every side for tensors to mean the same."""

    version: Literal[1] = MODEL_DEFINITION_VERSION
    network: NetworkConfig = NetworkConfig()
    grid: GridConfig = GridConfig()

    @model_validator(mode="after")
    def _window_fits_network(self) -> Self:
        factor = 2 ** (len(self.network.channels) - 1)
        if any(n % factor or n < 2 * factor for n in self.grid.window):
            what = "shape" if self.grid.patch is None else "patch"
            raise ValueError(f"grid.{what} {self.grid.window}: each axis must be a multiple of {factor} and at least {2 * factor}")
        return self
