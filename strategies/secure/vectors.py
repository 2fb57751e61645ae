"""Named tensors as one flat vector a group, in an order that needs no agreement: names in alphabetical order."""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.groups import group_of
from strategies.content_hash import hash_tensors
from strategies.secure.documents import ALL_GROUPS

Float32 = NDArray[np.float32]


def group_names(tensors: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the tensor names of each group, sorted; groups in the order of ALL_GROUPS."""
    found: dict[str, list[str]] = {}
    for name in tensors:
        found.setdefault(group_of(name), []).append(name)
    return {group: tuple(sorted(found[group])) for group in ALL_GROUPS if group in found}


def group_sizes(tensors: Mapping[str, Float32]) -> dict[str, int]:
    """Return the number of elements of each group."""
    return {group: sum(tensors[name].size for name in names) for group, names in group_names(tensors).items()}


def group_hashes(tensors: Mapping[str, Float32]) -> dict[str, str]:
    """Return the content hash of each group (strategies.content_hash)."""
    return {group: hash_tensors({name: tensors[name] for name in names}) for group, names in group_names(tensors).items()}


def flatten_update(trained: Mapping[str, Float32], received: Mapping[str, Float32]) -> dict[str, Float32]:
    """Return the change of each group that was trained, flat."""
    return {
        group: np.concatenate([(trained[name] - received[name]).reshape(-1) for name in names])
        for group, names in group_names(trained).items()
    }


def add_update(tensors: Mapping[str, Float32], group: str, delta_E: Float32) -> dict[str, Float32]:
    """Return one group's tensors with a flat change added to them."""
    moved, start = {}, 0
    for name in group_names(tensors)[group]:
        value = tensors[name]
        moved[name] = (value + delta_E[start : start + value.size].reshape(value.shape)).astype(np.float32)
        start += value.size
    return moved
