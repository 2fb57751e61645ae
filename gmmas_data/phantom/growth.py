"""Tumour growth, oedema and mass effect on the coarse grid.

Growth is Fisher-KPP, u_t = div(D grad u) + rho u (1 - u), with D higher in white than in grey matter and none in CSF (Swanson et al.,
Cell Proliferation 2000). Oedema is fluid that diffuses from the core through white matter. Mass effect is d = grad(phi) with
laplace(phi) = source - sink, the tumour as source and nearby CSF as sink: tissue keeps its volume, ventricles and sulci give way.

Time is measured in 1/rho and length in the front's width, so only the ratio D / rho matters.
"""

from dataclasses import dataclass

import numpy as np
from scipy import fft

from gmmas_data.phantom.anatomy import COARSE, Tissue
from gmmas_data.phantom.fields import Grid, Volume, random_field, smoothstep
from gmmas_data.phantom.seeding import HABITABLE, draw_seeds, plant, voxel_to_mm
from gmmas_data.phantom.subjects import Signs

REACH_MM = 57.0
"""Half width of the box around the seed in which the tumour grows."""

MAX_STEPS = 600
OEDEMA_STEPS = 100
MAX_PUSH_MM = 14.0
FRONT_REACH_MM = np.float32(12.0)


@dataclass(frozen=True)
class Growth:
    """A grown tumour on COARSE.

    Attributes:
        density_XYZ: cell density u in [0, 1].
        front_mm_XYZ: signed distance inside the front (u = 1/2), within FRONT_REACH_MM of it.
        depth_mm_XYZ: how far the front has moved on since it passed, an age in mm.
        oedema_XYZ: oedema fluid in [0, 1]; at least the core's density.
        seed_mm: centre of the first focus.
    """

    density_XYZ: Volume
    front_mm_XYZ: Volume
    depth_mm_XYZ: Volume
    oedema_XYZ: Volume
    seed_mm: Volume


def grow(rng: np.random.Generator, tissue: Tissue, depth_mm: Volume, signs: Signs) -> Growth:
    """Grow a tumour until its core (u > 1/2) has the volume that `signs` ask for, or cannot grow further."""
    seeds = draw_seeds(rng, tissue, depth_mm, signs)
    box = _box_around(seeds[0])
    low, high = voxel_to_mm((box[0].start, box[1].start, box[2].start)), voxel_to_mm((box[0].stop - 1, box[1].stop - 1, box[2].stop - 1))
    half_mm = COARSE.spacing_mm / 2
    grid = Grid.covering([c - half_mm for c in low], [c + half_mm for c in high], COARSE.spacing_mm)
    local = Tissue(tissue.csf_XYZ[box], tissue.grey_XYZ[box], tissue.white_XYZ[box])

    noise = np.clip(signs.irregularity * random_field(rng, grid, length_mm=9, octaves=2), -1.8, 1.8)
    open_to_cells = np.clip(1.15 - 1.7 * local.csf_XYZ, 0, 1) * (depth_mm[box] > 1)
    mobility = (local.white_XYZ + (local.grey_XYZ + 0.1) / signs.white_preference) * np.exp(noise) * open_to_cells
    diffusion = (signs.width_mm**2 * mobility).astype(np.float32)
    start = plant(rng, seeds, grid, habitat=local.white_XYZ + local.grey_XYZ > HABITABLE, irregularity=signs.irregularity)
    u, age = _fisher_kpp(start, diffusion, target=signs.core_ml / grid.voxel_ml)

    white = (local.white_XYZ**3 * np.exp(np.clip(0.6 * noise, -0.6, 0.6)) + 0.03) * open_to_cells
    oedema = _spread(u, white.astype(np.float32))
    seed_mm = np.array(voxel_to_mm(seeds[0]), np.float32)
    front_mm = _embed(_front_mm(u, signs.width_mm) + FRONT_REACH_MM, box) - FRONT_REACH_MM
    return Growth(_embed(u, box), front_mm, _embed(_depth_from_age(u, age, grid), box), _embed(oedema, box), seed_mm)


def push_of(
    growth: Growth, tissue: Tissue, depth_mm: Volume, ventricle: Volume, *, expansion: float, atrophy: float
) -> tuple[Volume, Volume, Volume]:
    """Return the displacement of tissue (mm, per axis, on COARSE) by a tumour and by ventricles that widen with age.

    Args:
        growth: the tumour.
        tissue: tissue before it is displaced.
        depth_mm: depth below the brain's surface.
        ventricle: share of ventricle.
        expansion: volume the tumour core adds, over its own; oedema adds a quarter of that.
        atrophy: volume the ventricles gain, over their own, at the expense of all tissue.
    """
    inside = depth_mm > 0
    source = np.float32(expansion) * (0.75 * growth.density_XYZ + 0.25 * growth.oedema_XYZ)
    squared = sum((COARSE.axes_mm[i] - growth.seed_mm[i]) ** 2 for i in range(3))
    yielding = (tissue.csf_XYZ + 0.03) * inside * np.exp(-np.sqrt(squared) / 45) * (1 - growth.density_XYZ)
    source -= yielding * np.float32(source.sum() / (yielding.sum() + 1e-6))
    widening = np.float32(atrophy) * ventricle
    source += widening - inside * np.float32(widening.sum() / inside.sum())

    cosines = [2 - 2 * np.cos(np.pi * np.arange(n) / n) for n in COARSE.shape]
    eigenvalues = cosines[0][:, None, None] + cosines[1][None, :, None] + cosines[2][None, None, :]
    eigenvalues[0, 0, 0] = 1
    spectrum = fft.dctn(source, type=2) / -eigenvalues.astype(np.float32)
    spectrum[0, 0, 0] = 0
    potential = fft.idctn(spectrum, type=2)
    # The skull holds the surface; h^2 of the Laplacian over h of the gradient leaves one h.
    held = smoothstep(depth_mm, -2, 6) * np.float32(COARSE.spacing_mm)
    push = [np.clip(g * held, -MAX_PUSH_MM, MAX_PUSH_MM).astype(np.float32) for g in np.gradient(potential)]
    return push[0], push[1], push[2]


def _depth_from_age(u: Volume, age: Volume, grid: Grid) -> Volume:
    """Return age in mm behind the front: 0 where u is 1/2, the core's equivalent radius where the tumour is oldest."""
    edge = (u > 0.35) & (u < 0.65)
    youngest = float(age[edge].mean()) if edge.any() else 0.0
    radius_mm = (3 * np.count_nonzero(u > 0.5) * grid.voxel_ml * 1000 / (4 * np.pi)) ** (1 / 3)
    return np.asarray((age - youngest) * np.float32(radius_mm / (float(age.max()) - youngest + 1e-6)), dtype=np.float32)


def _front_mm(u: Volume, width_mm: float) -> Volume:
    """Return the signed distance inside the front. A Fisher-KPP front falls as 1 / (1 + exp(x / width)), so x = -width logit(u)."""
    safe = np.clip(u, 1e-5, 1 - 1e-5)
    return np.asarray(np.clip(width_mm * np.log(safe / (1 - safe)), -FRONT_REACH_MM, FRONT_REACH_MM), dtype=np.float32)


def _box_around(voxel: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    reach = int(REACH_MM / COARSE.spacing_mm)
    x, y, z = (slice(max(0, c - reach), min(n, c + reach + 1)) for c, n in zip(voxel, COARSE.shape, strict=True))
    return x, y, z


def _embed(volume: Volume, box: tuple[slice, slice, slice]) -> Volume:
    out = np.zeros(COARSE.shape, np.float32)
    out[box] = volume
    return out


class _Flux:
    """Divergence of D grad u by finite volumes with no flux through the box; buffers are kept between steps."""

    def __init__(self, diffusion: Volume, *, step: float) -> None:
        factor = np.float32(step / COARSE.spacing_mm**2)
        pairs = [(diffusion[self.upper(i)], diffusion[self.lower(i)]) for i in range(3)]
        # The harmonic mean closes a face as soon as one side is closed: nothing leaks into CSF or through the surface.
        self.faces = [factor * 2 * a * b / (a + b + np.float32(1e-12)) for a, b in pairs]

    @staticmethod
    def upper(axis: int) -> tuple[slice, ...]:
        return tuple(slice(1, None) if i == axis else slice(None) for i in range(3))

    @staticmethod
    def lower(axis: int) -> tuple[slice, ...]:
        return tuple(slice(0, -1) if i == axis else slice(None) for i in range(3))

    def add_to(self, change: Volume, u: Volume) -> None:
        """Add one explicit step of diffusion to `change`."""
        for i, face in enumerate(self.faces):
            flow = u[self.upper(i)] - u[self.lower(i)]
            flow *= face
            change[self.lower(i)] += flow
            change[self.upper(i)] -= flow


def _stable_step(diffusion: Volume) -> float:
    return 0.9 * COARSE.spacing_mm**2 / (6 * float(diffusion.max()))


def _fisher_kpp(u: Volume, diffusion: Volume, *, target: float) -> tuple[Volume, Volume]:
    """Return density and age (time since u rose, in 1/rho) when `target` voxels have u > 1/2."""
    step = min(_stable_step(diffusion), 0.35)
    flux = _Flux(diffusion, step=step)
    u = u.astype(np.float32)
    age = np.zeros_like(u)
    for k in range(MAX_STEPS):
        change = np.float32(step) * u
        change *= 1 - u
        flux.add_to(change, u)
        u += change
        age += u
        if k % 3 == 2 and np.count_nonzero(u > 0.5) >= target:
            break
    return u, age * np.float32(step)


def _spread(core: Volume, mobility: Volume) -> Volume:
    """Return fluid that starts in the core and diffuses outward for a fixed number of stable steps."""
    flux = _Flux(mobility, step=_stable_step(mobility))
    fluid = core.copy()
    for _ in range(OEDEMA_STEPS):
        change = np.zeros_like(fluid)
        flux.add_to(change, fluid)
        fluid += change
        np.maximum(fluid, core, out=fluid)
    return fluid
