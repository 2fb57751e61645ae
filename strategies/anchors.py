"""Merging the anchors of the distillation adapter: sums and numbers of patients add up over hospitals.

    prototype = (sum_k s_k) / (sum_k n_k)          p <- d p + (1 - d) prototype where p was known, d = 0.9

which is the M-step of k-means over all patients of all hospitals, seen by nobody. Because it only adds, it composes with secure
aggregation. A prototype that too few patients stood behind this round stays as it was. Prototypes move slowly because the features
they summarise do: exponential moving averages of class features, as in MoCo's dictionary (He et al., CVPR 2020).
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.groups import MIN_ANCHOR_PATIENTS

Float32 = NDArray[np.float32]

SUMS, COUNTS = "anchors.sums_KPC", "anchors.counts_KP"
DECAY = 0.9


def settle_anchors(*, mean: Mapping[str, Float32], current: Mapping[str, Float32], sites: int) -> dict[str, Float32]:
    """Return the next anchors.

    Args:
        mean: equally weighted mean of the sites' sums and counts.
        current: the anchors that the sites received.
        sites: number of sites behind the mean; 0 leaves the anchors as they are.
    """
    if SUMS not in current or sites == 0:
        return {}
    # Patients are whole: 5 of them in a mean over 3 sites are 4.9999999 in float32.
    sums_KPC, counts_KP = mean[SUMS].astype(np.float64) * sites, np.rint(mean[COUNTS].astype(np.float64) * sites)
    enough_KP = counts_KP >= MIN_ANCHOR_PATIENTS
    fresh_KPC = sums_KPC / np.maximum(counts_KP, 1)[..., None]
    known_KP = current[COUNTS] >= MIN_ANCHOR_PATIENTS
    old_KPC = current[SUMS] / np.maximum(current[COUNTS], 1)[..., None]
    moved_KPC = np.where(known_KP[..., None], DECAY * old_KPC + (1 - DECAY) * fresh_KPC, fresh_KPC)
    next_counts_KP = np.where(enough_KP, counts_KP, current[COUNTS])
    next_KPC = np.where(enough_KP[..., None], moved_KPC, old_KPC)
    return {SUMS: (next_KPC * next_counts_KP[..., None]).astype(np.float32), COUNTS: next_counts_KP.astype(np.float32)}


def counts_fit(tensors: Mapping[str, Float32], *, patients: int) -> bool:
    """Tell whether a site's anchors stand on patients it can have: whole numbers from 0, of a class no more than it has segmented.

    A site that counted below 0 would have all others' sums divided by too few, however small its own are.

    Args:
        tensors: of a checked reply.
        patients: segmented cases that it reports.
    """
    counts_KP = tensors.get(COUNTS)
    if counts_KP is None:
        return True
    return bool((counts_KP >= 0).all() and (counts_KP == np.rint(counts_KP)).all() and counts_KP.sum(axis=1).max(initial=0) <= patients)
