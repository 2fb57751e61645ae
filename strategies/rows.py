"""The segmentation head row by row: each region's row of weights is averaged over the sites whose outlines teach that region.

    heads.segmentation.weight (R, C, 1, 1, 1), .bias (R)   ->   heads.segmentation.<region>.weight (1, C, 1, 1, 1), .bias (1)

A site without T1ce may be told to leave the enhancing tumour out of its loss (TrainingPlan.enhancing_needs_t1ce): enhancement is what
contrast agent makes visible. And some cohorts draw the whole tumour only. Such a site still sends the whole head, and a row that it never
trained holds the others' back as it came. Split into rows, each with a group of its own (`head.segmentation.et`), that row has weight 0
where nothing taught it, like the head of a task without labels; mean, robust aggregation and server step work on rows as on any group.
Only the averaging knows rows: what travels and what is kept is the whole head.

Averaging parts of a layer over those who trained them: Diao, Ding and Tarokh, "HeteroFL", ICLR 2021.
"""

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.messages import LabelCounts
from gmmas_schema.vocabulary import REGIONS, Modality, Region, Task

Float32 = NDArray[np.float32]

HEAD = "heads.segmentation"
ROWED = ("weight", "bias")


def cases_teaching(counts: LabelCounts, modalities: Collection[Modality], rule: Literal["never", "site", "sample"]) -> dict[Region, int]:
    """Return the cases whose outlines teach each region.

    Args:
        counts: the site's labels.
        modalities: its sequences.
        rule: TrainingPlan.enhancing_needs_t1ce; under any but `never` a case teaches the enhancing tumour as far as it has T1ce.
    """
    taught = {region: counts.telling(region) for region in REGIONS}
    if rule != "never":
        with_t1ce = counts.showing(Modality.T1CE, Task.SEGMENTATION) if Modality.T1CE in modalities else 0
        # The most that can be both: a site tells how many, not which.
        taught[Region.ET] = min(taught[Region.ET], with_t1ce)
    return taught


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
