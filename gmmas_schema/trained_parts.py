"""Which parts of a model anybody ever trained (model.json): the encoders of sequences, and the heads of regions and markers.

An encoder whose sequence no labelled case had, and a head of which nobody had labels, are published as they were drawn at the start.
Whoever uses the model leaves such a sequence out, and does not tell such an answer:

    P(TC) = P(WT) q,  P(ET) = P(TC) q'          a region rests on the heads of those around it
    P(codeleted) = P(mutant) q                  1p/19q and grade rest on the head of IDH
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, Self

from gmmas_schema.base import FrozenModel
from gmmas_schema.calibration import Head
from gmmas_schema.vocabulary import MARKERS, MODALITIES, MUTANT_ONLY, REGIONS, Modality, Region, Task

HEADS: Final[tuple[Region | Task, ...]] = (*REGIONS, *MARKERS)

_RESTS_ON: Final[Mapping[Region | Task, tuple[Region | Task, ...]]] = MappingProxyType(
    {Region.TC: (Region.WT,), Region.ET: (Region.WT, Region.TC)} | dict.fromkeys(MUTANT_ONLY, (Task.IDH,))
)


class TrainedParts(FrozenModel):
    """What at least one round moved.

    Attributes:
        modalities: sequences with such an encoder.
        heads: regions and markers with such a head.
    """

    modalities: tuple[Modality, ...] = ()
    heads: tuple[Head, ...] = ()

    @classmethod
    def of(cls, groups: Iterable[str]) -> Self:
        """Return the parts that groups of tensors are (gmmas_schema.groups); the segmentation head as a whole is that of all regions."""
        moved = set(groups)
        if f"head.{Task.SEGMENTATION}" in moved:
            moved |= {_group(region) for region in REGIONS}
        return cls(
            modalities=tuple(m for m in MODALITIES if f"encoder.{m}" in moved), heads=tuple(head for head in HEADS if _group(head) in moved)
        )

    def __or__(self, other: "TrainedParts") -> "TrainedParts":
        """Return what either has."""
        return TrainedParts(
            modalities=tuple(m for m in MODALITIES if m in {*self.modalities, *other.modalities}),
            heads=tuple(head for head in HEADS if head in {*self.heads, *other.heads}),
        )

    def tells(self, head: Region | Task) -> bool:
        """Return whether an answer rests on trained heads alone."""
        return all(part in self.heads for part in (head, *_RESTS_ON.get(head, ())))


def _group(head: Region | Task) -> str:
    return f"head.{Task.SEGMENTATION}.{head}" if isinstance(head, Region) else f"head.{head}"
