"""The segmentation head row by row: each region's row of weights is averaged over the sites whose labels teach that region.

    heads.segmentation.weight (R, C, 1, 1, 1), .bias (R)   ->   heads.segmentation.<region>.weight (1, C, 1, 1, 1), .bias (1)

A site without T1ce may be told to leave the enhancing tumour out of its loss (TrainingPlan.enhancing_needs_t1ce): enhancement is what
contrast agent makes visible. It still sends the whole head, and the row that it never trained holds the others' back as it came. Split
into rows, each with a group of its own (`head.segmentation.et`), that row has weight 0 where nothing taught it, like the head of a task
without labels; mean, robust aggregation and server step work on rows as on any group. Only the averaging knows rows: what travels and
what is kept is the whole head.

Averaging parts of a layer over those who trained them: Diao, Ding and Tarokh, "HeteroFL", ICLR 2021.
"""

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.vocabulary import REGIONS, Modality, Region

Float32 = NDArray[np.float32]

HEAD = "heads.segmentation"
ROWED = ("weight", "bias")


def regions_taught(modalities: Collection[Modality], rule: Literal["never", "site", "sample"]) -> tuple[Region, ...]:
    """Return the regions that the segmentations of a site with these modalities teach under TrainingPlan.enhancing_needs_t1ce."""
    without_enhancing = rule != "never" and Modality.T1CE not in modalities
    return tuple(region for region in REGIONS if not (without_enhancing and region is Region.ET))


def split_rows(tensors: Mapping[str, Float32]) -> dict[str, Float32]:
    """Return the tensors with the segmentation head's as rows; others, and their order, stay."""
    found: dict[str, Float32] = {}
    for name, value in tensors.items():
        parent, _, part = name.rpartition(".")
        if parent == HEAD and part in ROWED:
            found |= {f"{HEAD}.{region}.{part}": value[row : row + 1] for row, region in enumerate(REGIONS)}
        else:
            found[name] = value
    return found


def join_rows(tensors: Mapping[str, Float32]) -> dict[str, Float32]:
    """Undo split_rows: the rows become the segmentation head again, where the first of them stood."""
    rows = {f"{HEAD}.{region}.{part}": f"{HEAD}.{part}" for part in ROWED for region in REGIONS}
    found: dict[str, Float32] = {}
    for name, value in tensors.items():
        whole = rows.get(name, name)
        if whole == name:
            found[name] = value
        elif whole not in found:
            part = whole.rpartition(".")[2]
            found[whole] = np.concatenate([tensors[f"{HEAD}.{region}.{part}"] for region in REGIONS])
    return found
