"""What enhances besides tumour: arteries, veins and choroid plexus, drawn as tubes.

Large vessels and plexus follow centre lines given in MNI coordinates and are carried into the subject by its own map, so they bend
with mass effect. Cortical veins are walks along the brain's surface from the midline downwards, different in every subject.
"""

from dataclasses import dataclass

import numpy as np

from gmmas_data.phantom.anatomy import COARSE, Head, sample
from gmmas_data.phantom.fields import Grid, Volume

Line = tuple[tuple[float, float, float], ...]

MIDLINE: tuple[tuple[float, Line], ...] = (
    (1.3, ((0, -8, -30), (0, -16, -34), (0, -26, -30), (0, -30, -18))),  # basilar artery
    (1.2, ((2, 34, -10), (2, 44, 4), (2, 38, 24), (2, 18, 36), (2, -4, 40))),  # pericallosal arteries
    (1.4, ((0, -24, 8), (0, -36, 10), (0, -44, 10))),  # internal cerebral veins, vein of Galen
    (1.8, ((0, -44, 10), (0, -58, 6), (0, -76, -2), (0, -92, -8))),  # straight sinus
    (1.6, ((0, 52, 38), (0, 36, 56), (0, 8, 70), (0, -26, 76), (0, -56, 64), (0, -84, 36), (0, -100, 4))),  # superior sagittal sinus
)
PAIRED: tuple[tuple[float, Line], ...] = (
    (1.5, ((12, 2, -26), (13, 6, -16), (24, 5, -16), (38, 4, -12))),  # internal carotid, M1
    (1.2, ((38, 4, -12), (42, -6, -2), (44, -22, 10), (48, -38, 18))),  # insular M2, posterior
    (1.0, ((38, 4, -12), (42, 12, 0), (42, 14, 12), (50, 10, 20))),  # insular M2, anterior
    (1.0, ((6, -28, -14), (20, -30, -8), (24, -48, -4), (18, -72, 2))),  # posterior cerebral artery
    (1.0, ((8, 16, 4), (13, -2, 20), (8, -18, 14))),  # thalamostriate vein
)
PLEXUS: tuple[tuple[float, Line], ...] = (
    (1.4, ((6, -6, 16), (12, -18, 18), (20, -32, 14))),  # body of the lateral ventricle
    (2.6, ((22, -36, 10), (26, -40, 4))),  # glomus in the trigone
    (1.2, ((26, -40, 4), (32, -32, -8), (32, -22, -14))),  # temporal horn
)
CORTICAL_VEINS = 26
VEIN_DEPTH_MM = 2.5
VEIN_STEPS = 34


@dataclass(frozen=True)
class Vessels:
    """Shares of a voxel filled by vessels and by choroid plexus, in [0, 1]."""

    blood_XYZ: Volume
    plexus_XYZ: Volume


def draw_vessels(rng: np.random.Generator, head: Head, depth_mm: Volume, grid: Grid) -> Vessels:
    """Draw the vessels of a subject on `grid`; `depth_mm` is the depth below the brain's surface on COARSE."""
    points, radii = _trace(rng, MIDLINE, PAIRED)
    veins = _cortical_veins(rng, depth_mm)
    blood = _fill(rng, np.concatenate([head.place(points), veins]), np.concatenate([radii, np.full(len(veins), 0.8, np.float32)]), grid)
    points, radii = _trace(rng, (), PLEXUS)
    return Vessels(blood, _fill(rng, head.place(points), radii, grid))


def _trace(
    rng: np.random.Generator, single: tuple[tuple[float, Line], ...], paired: tuple[tuple[float, Line], ...]
) -> tuple[Volume, Volume]:
    """Return points (N, 3) every millimetre along the lines, mirrored lines twice, and their radii (mm)."""
    points, radii = [], []
    for mirrored, lines in ((1, single), (1, paired), (-1, paired)):
        for radius, line in lines:
            nodes = np.array(line) + rng.normal(0, 1.2, (len(line), 3))
            nodes[:, 0] *= mirrored
            along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(nodes, axis=0), axis=1))])
            at = np.arange(0, along[-1], 1.0)
            points.append(np.stack([np.interp(at, along, nodes[:, i]) for i in range(3)], axis=1))
            radii.append(np.full(len(at), radius * rng.uniform(0.75, 1.2)))
    return np.concatenate(points).astype(np.float32), np.concatenate(radii).astype(np.float32)


def _cortical_veins(rng: np.random.Generator, depth_mm: Volume) -> Volume:
    """Return points (N, 3) of veins that run from beside the midline over the convexity, `VEIN_DEPTH_MM` below the surface."""
    slope = [np.asarray(s, dtype=np.float32) for s in np.gradient(depth_mm, COARSE.spacing_mm)]
    side = rng.choice([-1.0, 1.0], CORTICAL_VEINS)
    walker = np.stack(
        [side * rng.uniform(5, 45, CORTICAL_VEINS), rng.uniform(-85, 50, CORTICAL_VEINS), np.full(CORTICAL_VEINS, 82.0)], axis=1
    )
    heading = np.stack([side, rng.normal(0, 0.6, CORTICAL_VEINS), np.full(CORTICAL_VEINS, -0.5)], axis=1)
    trail = []
    for step in range(VEIN_STEPS + 8):
        at = walker.astype(np.float32)
        inward = np.stack([sample(s, COARSE, at) for s in slope], axis=1)
        inward /= np.linalg.norm(inward, axis=1, keepdims=True) + 1e-3
        walker = walker + inward * np.clip(VEIN_DEPTH_MM - sample(depth_mm, COARSE, at), -6, 6)[:, None]
        if step < 8:  # first fall onto the surface
            continue
        heading += rng.normal(0, 0.25, heading.shape)
        heading -= inward * (heading * inward).sum(1, keepdims=True)
        heading /= np.linalg.norm(heading, axis=1, keepdims=True) + 1e-6
        trail.append(walker.copy())
        walker = walker + 1.6 * heading
    return np.concatenate(trail).astype(np.float32)


def _fill(rng: np.random.Generator, points_mm: Volume, radii_mm: Volume, grid: Grid, *, samples: int = 6) -> Volume:
    """Return the share of each voxel within tubes of the given radii, by scattering points in their cross-section."""
    cloud = np.repeat(points_mm, samples, axis=0)
    cloud = cloud + rng.standard_normal(cloud.shape, dtype=np.float32) * np.repeat(radii_mm, samples)[:, None] * np.float32(0.6)
    voxel = np.stack([grid.to_voxel(cloud[:, i], axis=i) for i in range(3)], axis=1)
    base = np.floor(voxel).astype(int)
    part = voxel - base
    # One sample stands for 1 mm of tube; a voxel crossed by a tube of radius 1 mm is about half full at 2 mm.
    weight = np.repeat(np.pi * radii_mm**2, samples) / samples / np.float32(grid.spacing_mm**3)
    out = np.zeros(grid.shape, np.float32)
    for corner in np.ndindex(2, 2, 2):
        index = base + corner
        share = weight * np.prod(np.where(np.array(corner) == 1, part, 1 - part), axis=1)
        inside = np.all((index >= 0) & (index < grid.shape), axis=1)
        np.add.at(out, tuple(index[inside].T), share[inside])
    return np.asarray(np.clip(1.3 * out, 0, 1), dtype=np.float32)
