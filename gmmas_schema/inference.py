"""How a case is predicted: windows, mirror images and Monte-Carlo passes."""

from enum import StrEnum
from typing import Final

from pydantic import Field, model_validator

from gmmas_schema.base import FrozenModel

OVERLAP: Final = 0.5
"""Share of a window's side that the next window covers again."""

MONTE_CARLO_PASSES: Final = 8


class Flip(StrEnum):
    """Mirror images of a case that are predicted as well; the probabilities are averaged."""

    NONE = "none"
    LEFT_RIGHT = "lr"
    ALL = "all"

    @property
    def axes(self) -> tuple[tuple[int, ...], ...]:
        """Return for every image the axes along which it is mirrored: 0 left-right, 1 back-front, 2 bottom-top."""
        if self is Flip.NONE:
            return ((),)
        if self is Flip.LEFT_RIGHT:
            return ((), (0,))
        return tuple(tuple(axis for axis in range(3) if code >> axis & 1) for code in range(8))


class InferencePlan(FrozenModel):
    """How one case is predicted.

    Attributes:
        flip: mirror images that are averaged; `all` has eight.
        overlap: share of a window's side that the next window covers again; without a meaning where the grid has no patch.
        passes: Monte-Carlo passes per mirror image from which the uncertainty is taken; 0 leaves it out.
        dropout: share of fused feature channels dropped in each pass.
        seed: of the passes.
    """

    flip: Flip = Flip.NONE
    overlap: float = Field(default=OVERLAP, ge=0, lt=1)
    passes: int = Field(default=0, ge=0, le=64)
    dropout: float = Field(default=0.2, gt=0, lt=1)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _passes_have_a_spread(self) -> "InferencePlan":
        if self.passes == 1:
            raise ValueError("one Monte-Carlo pass has no spread: take 0, or 2 and more")
        return self
