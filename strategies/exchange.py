"""Which tensors leave the coordinator for a site, and which may leave a site: decided by group, from what the site described.

A site receives every group but the encoders and gates of sequences it lacks; it sends the groups it can train (gmmas_schema.groups).
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Literal, TypeVar

from gmmas_schema.groups import group_of, groups_received, groups_sent
from gmmas_schema.messages import Target
from gmmas_schema.vocabulary import Modality, Task

ValueT = TypeVar("ValueT")


def select_groups(tensors: Mapping[str, ValueT], groups: Collection[str]) -> dict[str, ValueT]:
    """Return the tensors whose group is among `groups`, in their order."""
    return {name: value for name, value in tensors.items() if group_of(name) in groups}


def tensors_down(tensors: Mapping[str, ValueT], *, modalities: Collection[Modality]) -> dict[str, ValueT]:
    """Return the part of the global model that a site with these modalities receives."""
    return select_groups(tensors, groups_received(modalities))


def names_up(
    names: Iterable[str],
    *,
    modalities: Collection[Modality],
    labelled: Mapping[Task, int],
    pseudo: Collection[Target] = (),
    backbone: Literal["any", "regions"] = "any",
) -> tuple[str, ...]:
    """Return the tensor names that a site with these modalities, labels and pseudo-labels trains and sends."""
    groups = groups_sent(modalities, labelled, pseudo=pseudo, backbone=backbone)
    return tuple(name for name in names if group_of(name) in groups)
