"""Groups of tensors: the unit in which a model is exchanged and averaged.

A tensor's name decides its group, so both sides agree without a table. Names are those of GmmasNetwork.state_dict():

    encoders.<modality>.*               -> encoder.<modality>
    gates.<modality>.*                  -> gate.<modality>        bias of the fusion gate
    fusion.* | bottleneck.* | decoder.* -> fusion | bottleneck | decoder
    adapter.* | anchors.*               -> adapter | anchors      completion of missing modalities, and the prototypes it looks at
    heads.<task>.*                      -> head.<task>
    uncertainty.<task>                  -> uncertainty.<task>     log-variance of the task's loss

While sites' heads are averaged, the segmentation head may be split into rows (strategies.rows); these names never travel:

    heads.segmentation.<region>.*       -> head.segmentation.<region>
"""

from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Literal

from gmmas_schema.errors import ProtocolError
from gmmas_schema.vocabulary import MODALITIES, REGIONS, TASKS, Modality, Region, Task

SHARED = ("fusion", "bottleneck", "decoder")
COMPLETION = ("adapter", "anchors")

MIN_ANCHOR_PATIENTS = 5
"""Fewest patients behind a prototype that is sent or used."""

_PREFIX = {"encoders": "encoder", "gates": "gate", "heads": "head", "uncertainty": "uncertainty"}

GROUPS = (
    *(f"encoder.{m}" for m in MODALITIES),
    *(f"gate.{m}" for m in MODALITIES),
    *SHARED,
    *COMPLETION,
    *(f"head.{t}" for t in TASKS),
    *(f"uncertainty.{t}" for t in TASKS),
)
"""Every group, in a fixed order."""

REGION_ROWS = tuple(f"head.{Task.SEGMENTATION}.{r}" for r in REGIONS)
"""Parts of head.segmentation, where it is averaged region by region."""


@lru_cache(maxsize=4096)  # asked for every tensor of every reply
def group_of(tensor: str) -> str:
    """Return the group of a tensor name.

    Raises:
        ProtocolError: the name belongs to no group.
    """
    first, _, rest = tensor.partition(".")
    group = first if first in (*SHARED, *COMPLETION) else f"{_PREFIX.get(first, first)}.{rest.partition('.')[0]}"
    row = f"{_PREFIX.get(first, first)}.{rest.rpartition('.')[0]}"
    if row in REGION_ROWS:
        return row
    if group not in GROUPS:
        raise ProtocolError(
            "a tensor belongs to no group",
            got=tensor,
            expected="a name as in gmmas_schema.groups",
            remedy="run the same software version on both sides",
        )
    return group


def by_group(tensors: Iterable[str]) -> dict[str, list[str]]:
    """Sort tensor names into their groups, in the order of GROUPS; groups without tensors are left out."""
    found: dict[str, list[str]] = {}
    for name in tensors:
        found.setdefault(group_of(name), []).append(name)
    return {group: found[group] for group in GROUPS if group in found}


def groups_received(modalities: Collection[Modality]) -> frozenset[str]:
    """Return the groups a site with these modalities runs: all but the encoders and gates of sequences it lacks."""
    absent = [m for m in MODALITIES if m not in modalities]
    return frozenset(GROUPS) - {f"encoder.{m}" for m in absent} - {f"gate.{m}" for m in absent}


def groups_sent(
    modalities: Collection[Modality],
    labelled: Mapping[Task, int],
    *,
    pseudo: Collection[Region | Task] = (),
    backbone: Literal["any", "regions"] = "any",
) -> frozenset[str]:
    """Return the groups a site trains and sends.

    Backbone (encoders of the sequences it has, fusion, bottleneck; gates and adapter where it has at least two, for alone they learn
    nothing): with any label, or only where it learns regions. Decoder: with segmentations or pseudo-labels of regions. Heads and
    uncertainties: of the tasks it has labels for. Anchors: with all sequences and segmentations. A site without any label or
    pseudo-label sends nothing.

    Args:
        modalities: the site's sequences.
        labelled: labelled cases per task.
        pseudo: regions and molecular tasks it has pseudo-labels of.
        backbone: as in TrainingPlan.
    """
    tasks = [t for t in TASKS if labelled.get(t, 0) > 0]
    if not (tasks or pseudo) or not modalities:
        return frozenset()
    regions = Task.SEGMENTATION in tasks or any(isinstance(target, Region) for target in pseudo)
    sent = {f"head.{t}" for t in tasks} | {f"uncertainty.{t}" for t in tasks}
    if regions or backbone == "any":
        sent |= {"fusion", "bottleneck"} | {f"encoder.{m}" for m in modalities}
        sent |= {f"gate.{m}" for m in modalities} | {"adapter"} if len(modalities) > 1 else set()
    if regions:
        sent.add("decoder")
    if Task.SEGMENTATION in tasks and len(modalities) == len(MODALITIES):
        sent.add("anchors")
    return frozenset(sent)
