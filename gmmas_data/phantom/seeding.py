"""Where a tumour starts: foci by lobe and depth, each a cluster of nodules.

Voxels are those of COARSE; positions are MNI millimetres.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gmmas_data.phantom.anatomy import COARSE, Tissue
from gmmas_data.phantom.fields import Grid, Volume
from gmmas_data.phantom.subjects import Signs

Voxel = tuple[int, int, int]

HABITABLE = 0.5
"""Least share of grey and white matter where a tumour starts."""

NODULES = 6
NODULE_SPREAD_MM = 3.0
NODULE_MM2 = 14.0
CLUSTER_MM = 20.0
DAUGHTER_MM = (15.0, 34.0)
"""Distance of further foci from the first."""


def draw_seeds(rng: np.random.Generator, tissue: Tissue, depth_mm: Volume, signs: Signs) -> list[Voxel]:
    """Draw the voxels of COARSE where the foci start: supratentorial, in the lobes and at the depth the signs prefer."""
    x, y, z = COARSE.axes_mm
    side = np.abs(x)
    infratentorial = ((y < -34) & (z < -14)) | ((z < -22) & (side < 16) & (y < -8))
    lobes = (
        (y > 5) & (z > -20) & (side > 5),
        (side > 28) & (z < 5) & (y < 12) & (y > -50),
        (y < -20) & (y > -68) & (z > 10) & (side > 6),
        (y < -68) & (side > 6),
        (side > 26) & (side < 44) & (np.abs(z) < 14) & (y > -20) & (y < 25),
    )
    lobe = np.broadcast_to(lobes[rng.choice(5, p=signs.lobes)], COARSE.shape)
    wanted_mm = 25 - 14 * signs.cortical
    allowed = ~infratentorial & (tissue.white_XYZ + tissue.grey_XYZ > HABITABLE) & (depth_mm > 5)
    soil = tissue.white_XYZ + np.float32(0.15 + 0.6 * signs.cortical) * tissue.grey_XYZ
    first = _draw_voxel(rng, soil * np.exp(-(((depth_mm - np.float32(wanted_mm)) / 6) ** 2)) * (allowed & lobe))
    seeds = [first]
    at = voxel_to_mm(first)
    squared = sum((axis - c) ** 2 for axis, c in zip((x, y, z), at, strict=True))
    near = tissue.white_XYZ * ((squared > DAUGHTER_MM[0] ** 2) & (squared < DAUGHTER_MM[1] ** 2) & allowed)
    seeds += [_draw_voxel(rng, near) for _ in range(signs.foci - 1)]
    return seeds


def _draw_voxel(rng: np.random.Generator, weight: Volume) -> Voxel:
    cumulative = np.cumsum(weight.ravel(), dtype=np.float64)
    assert cumulative[-1] > 0, "every head has room for a tumour"
    index = int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right"))
    i, j, k = np.unravel_index(min(index, weight.size - 1), weight.shape)
    return int(i), int(j), int(k)


def plant(rng: np.random.Generator, seeds: Sequence[Voxel], grid: Grid, *, habitat: NDArray[np.bool_], irregularity: float) -> Volume:
    """Return the cell density at the beginning, on `grid`, a box of COARSE.

    A focus is a handful of nodules, so that what grows from it is lobed rather than round. They lie in the part of `habitat` near and
    connected to its centre, so none starts beyond the falx.
    """
    start = np.zeros(grid.shape, np.float32)
    for k, seed in enumerate(seeds):
        centre_mm = np.array(voxel_to_mm(seed), np.float32)
        parts, _ = ndimage.label(habitat & (_squared_mm(grid, centre_mm) < CLUSTER_MM**2))
        i, j, m = (int(grid.to_voxel(centre_mm[axis], axis=axis).round()) for axis in range(3))
        assert parts[i, j, m] > 0, "seeds are drawn where tissue is"
        home = parts == parts[i, j, m]
        for nodule in range(NODULES):
            at_mm = centre_mm + (nodule > 0) * rng.normal(0, NODULE_SPREAD_MM * (1 + irregularity), 3)
            height = np.float32((1.0 if k == 0 else 0.4) * rng.uniform(0.3, 1))
            start = np.maximum(start, height * np.exp(-_squared_mm(grid, at_mm) / NODULE_MM2) * home)
    return start.astype(np.float32)


def _squared_mm(grid: Grid, point_mm: NDArray[np.floating]) -> Volume:
    x, y, z = ((axis - np.float32(c)) ** 2 for axis, c in zip(grid.axes_mm, point_mm, strict=True))
    return np.asarray(x + y + z, dtype=np.float32)


def voxel_to_mm(voxel: Voxel) -> tuple[float, float, float]:
    """Return the centre of a voxel of COARSE."""
    x, y, z = (float(COARSE.axes_mm[i].ravel()[voxel[i]]) for i in range(3))
    return x, y, z
