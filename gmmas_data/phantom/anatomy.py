"""A subject's head: the atlas under an affine map and a diffeomorphic warp, with atrophy by age.

The warp is the exponential of a random stationary velocity field, found by scaling and squaring (Arsigny et al., MICCAI 2006) on a coarse
grid. All maps pull back: `sources_mm(x)` is the atlas point seen at subject point x. Lengths in mm, MNI axes.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from gmmas_data.phantom.atlas import BOX_HIGH_MM, BOX_LOW_MM, Atlas
from gmmas_data.phantom.fields import Grid, Volume, random_field, resample, smoothstep

COARSE = Grid.covering(BOX_LOW_MM, BOX_HIGH_MM, 3.0)
"""Grid of growth, mass effect and other smooth fields."""

WARP = Grid.covering(BOX_LOW_MM, BOX_HIGH_MM, 8.0)
"""Grid on which the velocity field is integrated."""

CENTRE_MM = np.array([0.0, -18.0, 8.0], dtype=np.float32)
SQUARINGS = 4
FALX_HALF_WIDTH_MM = 2.6


@dataclass(frozen=True)
class Head:
    """The map from subject to atlas.

    Attributes:
        linear: 3x3 part of the affine map.
        mirrored: whether left and right are exchanged.
        displacement_mm: what is added after the affine map, per axis, on COARSE.
    """

    linear: Volume
    mirrored: bool
    displacement_mm: tuple[Volume, Volume, Volume]

    def sources_mm(self, grid: Grid) -> list[Volume]:
        """Return the atlas coordinates (mm) of every voxel of `grid`."""
        centred = [axis - c for axis, c in zip(grid.axes_mm, CENTRE_MM, strict=True)]
        points = []
        for i in range(3):
            a, b, c = (np.float32(self.linear[i, j]) * centred[j] for j in range(3))
            moved = self.displacement_mm[i] if grid is COARSE else resample(self.displacement_mm[i], source=COARSE, target=grid)
            points.append(moved + (a + CENTRE_MM[i]) + (b + c))
        if self.mirrored:
            points[0] = -points[0]
        return points

    def pushed_by(self, push_mm: tuple[Volume, Volume, Volume]) -> "Head":
        """Return the head whose tissue was pushed by `push_mm` (on COARSE): x now shows what lay at x - push.

        The random warp is taken at x, not at x - push: it is smooth, and three interpolations are saved.
        """
        pulled = tuple(d - sum(np.float32(self.linear[i, j]) * push_mm[j] for j in range(3)) for i, d in enumerate(self.displacement_mm))
        return replace(self, displacement_mm=(pulled[0], pulled[1], pulled[2]))

    def place(self, atlas_points_mm: Volume) -> Volume:
        """Return where atlas points (N, 3) lie in the subject: the inverse map, by fixed-point iteration."""
        target: Volume = atlas_points_mm * np.array([-1 if self.mirrored else 1, 1, 1], dtype=np.float32)
        inverse = np.linalg.inv(self.linear).astype(np.float32)
        points: Volume = target
        for _ in range(6):
            moved = np.stack([sample(d, COARSE, points) for d in self.displacement_mm], axis=1)
            points = np.asarray((target - CENTRE_MM - moved) @ inverse.T + CENTRE_MM, dtype=np.float32)
        return points


@dataclass(frozen=True)
class Tissue:
    """Tissue shares on one grid; csf + grey + white is 1 inside the brain and 0 outside."""

    csf_XYZ: Volume
    grey_XYZ: Volume
    white_XYZ: Volume


@dataclass(frozen=True)
class Sulci:
    """Random fields, on the grid of the images, that give a subject folds of its own."""

    folds_XYZ: Volume
    balance_XYZ: Volume


def sample(volume_XYZ: Volume, grid: Grid, points_mm: Volume) -> Volume:
    """Return a volume's values at points (N, 3) in mm, by linear interpolation."""
    voxels = [grid.to_voxel(points_mm[:, i], axis=i) for i in range(3)]
    return np.asarray(ndimage.map_coordinates(volume_XYZ, voxels, order=1, mode="nearest"), dtype=np.float32)


def draw_head(rng: np.random.Generator) -> Head:
    """Draw a head: tilt of some 3 degrees, size within 3.5 %, folds displaced by some 4 mm."""
    angles = np.clip(rng.normal(0, 3, 3), -7, 7)
    scale = 1 + np.clip(rng.normal(0, 0.03, 3), -0.055, 0.055)
    linear = (Rotation.from_euler("xyz", angles, degrees=True).as_matrix() @ np.diag(1 / scale)).astype(np.float32)
    velocity_mm = [3.0 * random_field(rng, WARP, length_mm=24) + 1.1 * random_field(rng, WARP, length_mm=13) for _ in range(3)]
    flow = [v / np.float32(WARP.spacing_mm * 2**SQUARINGS) for v in velocity_mm]
    here = np.indices(WARP.shape, dtype=np.float32)
    for _ in range(SQUARINGS):
        at = [here[i] + flow[i] for i in range(3)]
        flow = [f + ndimage.map_coordinates(f, at, order=1, mode="nearest") for f in flow]
    moved = [resample((f * WARP.spacing_mm).astype(np.float32), source=WARP, target=COARSE) for f in flow]
    return Head(linear, bool(rng.random() < 0.5), (moved[0], moved[1], moved[2]))


def draw_sulci(rng: np.random.Generator, grid: Grid) -> Sulci:
    """Draw the folds of one subject."""
    return Sulci(random_field(rng, grid, length_mm=5.0), random_field(rng, grid, length_mm=9))


def pull_volumes(atlas: Atlas, volumes: list[Volume], sources_mm: list[Volume], inside_XYZ: np.ndarray) -> list[Volume]:
    """Return atlas volumes at `sources_mm`, interpolated inside the brain alone and 0 elsewhere."""
    at = [atlas.grid.to_voxel(s[inside_XYZ], axis=i) for i, s in enumerate(sources_mm)]
    pulled = []
    for volume in volumes:
        out = np.zeros(inside_XYZ.shape, np.float32)
        out[inside_XYZ] = ndimage.map_coordinates(volume, at, order=1, mode="constant")
        pulled.append(out)
    return pulled


def coarse_tissue(atlas: Atlas, head: Head) -> tuple[Tissue, Volume, Volume]:
    """Return tissue shares, depth below the surface (mm) and the smoothed ventricles on COARSE.

    No grey or white matter is left in the falx, through which tumours do not grow.
    """
    sources_mm = head.sources_mm(COARSE)
    at = [atlas.grid.to_voxel(s, axis=i) for i, s in enumerate(sources_mm)]
    depth_mm = np.asarray(ndimage.map_coordinates(atlas.depth_mm_XYZ, at, order=1, mode="nearest"), dtype=np.float32)
    inside = depth_mm > 0
    grey, white, ventricle = pull_volumes(atlas, [atlas.grey_XYZ, atlas.white_XYZ, atlas.ventricle_XYZ], sources_mm, inside)
    csf = np.clip(1 - grey - white, 0, 1) * inside
    # Two voxels at most lie between the hemispheres, so the template's blur would let tumours cross the falx. Corpus callosum stays open.
    open_midline = ~((np.abs(sources_mm[0]) < FALX_HALF_WIDTH_MM) & (white < 0.6))
    return Tissue(csf, grey * open_midline, white * open_midline), depth_mm, ventricle


def fine_tissue(grey_XYZ: Volume, white_XYZ: Volume, depth_mm_XYZ: Volume, sulci: Sulci, *, age_years: float) -> Tissue:
    """Return tissue shares with the subject's own folds and the atrophy of its age.

    Atrophy and folds act on the log-odds of CSF; folds are the zero set of a smooth random field, hence thin curved sheets.
    """
    inside = depth_mm_XYZ > 0
    csf = np.clip(1 - grey_XYZ - white_XYZ, 0, 1)
    cortical = 1 - smoothstep(depth_mm_XYZ, 12, 24)
    sheet = np.exp(-((sulci.folds_XYZ / 0.28) ** 2))
    log_csf = np.log(csf + 2e-3) + 0.016 * (age_years - 48) + cortical * grey_XYZ * (2.6 * sheet - 0.9)
    log_white = np.log(white_XYZ + 2e-3) + 0.2 * sulci.balance_XYZ + 0.9 * cortical * (np.abs(sulci.folds_XYZ) - 0.75)
    odds = np.stack([np.exp(log_csf), grey_XYZ + 2e-3, np.exp(log_white)])
    odds *= inside / odds.sum(0)
    return Tissue(odds[0], odds[1], odds[2])
