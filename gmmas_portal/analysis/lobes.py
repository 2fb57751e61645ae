"""Which lobe a point of MNI space lies in, by planes and boxes: a coarse estimate, told as such.

No lobar atlas is packaged whose licence lets a hospital use it freely, so lobes are cut by landmarks of the average brain that any atlas
shows (Talairach and Tournoux, "Co-Planar Stereotaxic Atlas of the Human Brain", Thieme 1988): with a = |x|, mm, RAS+,

    central sulcus           y + 0.42 max(z, 0) = 0                     frontal in front of it, parietal behind
    Sylvian fissure          z = -5 - 0.62 y                            temporal below it, on the outer side
    parieto-occipital sulcus y = -57 - 0.67 (z - 10), z > 10            occipital behind it; below, y = -64 (outer) or -45 (inner side)
    tentorium                z = -10 - 0.45 max(a - 10, 0), y < -38     cerebellum below it
    boxes                    brainstem, deep grey matter (with the capsules between), insula

White matter counts to the lobe whose part of the brain it lies in, the cingulate gyrus to the lobe it borders. Tests hold the planes
against the named centres of Dosenbach et al. (Science 2010), which nilearn packages. Near a plane, and where a tumour has pushed the
brain aside, a neighbouring lobe may be told.
"""

from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

METHOD: Final = "atlas-estimated, by planes in MNI space"
"""How a label names the method."""


class Lobe(StrEnum):
    """A part of the brain, as told."""

    FRONTAL = "frontal lobe"
    PARIETAL = "parietal lobe"
    TEMPORAL = "temporal lobe"
    OCCIPITAL = "occipital lobe"
    INSULA = "insula"
    DEEP = "deep grey matter"
    BRAINSTEM = "brainstem"
    CEREBELLUM = "cerebellum"


_PAIRED = tuple(lobe for lobe in Lobe if lobe is not Lobe.BRAINSTEM)


def lobe_numbers(points: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return for MNI points (N, 3) in mm the place of each one's lobe in the order of Lobe."""
    a, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    behind = y < -35
    temporal_edge = np.where(behind & (z > -8), 30.0, 16 + 0.9 * np.clip(y, 0, None))
    occipital_front = np.where(z > 10, -57 - 0.67 * (z - 10), np.where(a > 30, -64.0, -45.0))
    # Of several that hold, the first counts.
    rules = (
        (Lobe.CEREBELLUM, (y < -38) & (z < -10 - 0.45 * np.clip(a - 10, 0, None)) & ((y > -85) | (z < -25))),
        (Lobe.BRAINSTEM, (a < 16) & (y > -45) & (y < -8) & (z < -8)),
        (Lobe.DEEP, (a < 30) & (y > -32) & (y < 20) & (z > -8) & (z < 20)),
        (Lobe.INSULA, (a >= 30) & (a < 43) & (y > -24) & (y < 26) & (z > -10) & (z < 18)),
        (Lobe.OCCIPITAL, (y < occipital_front) & ((z > -8) | (a > 30) | (y < -64))),
        (Lobe.TEMPORAL, (a > temporal_edge) & (y < 24) & (z < -5 - 0.62 * y) & (z < 26)),
        (Lobe.FRONTAL, y + 0.42 * np.clip(z, 0, None) > 0),
    )
    order = list(Lobe)
    return np.select([holds for _, holds in rules], [order.index(lobe) for lobe, _ in rules], default=order.index(Lobe.PARIETAL)).astype(
        np.intp
    )


def lobe_of(x: float, y: float, z: float) -> Lobe:
    """Return the lobe of one MNI point, mm."""
    return list(Lobe)[int(lobe_numbers(np.array([[x, y, z]], dtype=np.float64))[0])]


def share_lobes(points: NDArray[np.float64]) -> list[tuple[str, float]]:
    """Return where a cloud of MNI points lies, as (`left frontal lobe`, share in [0, 1]), the largest share first.

    Args:
        points: (N, 3), mm, N > 0.
    """
    numbers = lobe_numbers(points)
    shares: dict[str, float] = {}
    for number, lobe in enumerate(Lobe):
        inside = numbers == number
        if not inside.any():
            continue
        left = float(np.count_nonzero(points[inside, 0] < 0)) / len(points)
        right = float(np.count_nonzero(points[inside, 0] >= 0)) / len(points)
        if lobe not in _PAIRED:
            shares[str(lobe)] = left + right
            continue
        shares |= {f"{side} {lobe}": share for side, share in (("left", left), ("right", right)) if share > 0}
    return sorted(shares.items(), key=lambda found: (-found[1], found[0]))
