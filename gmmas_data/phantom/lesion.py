"""From cell density and oedema to the compartments of a glioma, at the resolution of the images.

Compartments are shares of a voxel; the label map is their largest. Labels are ours: necrosis (with non-enhancing core), oedema, enhancing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gmmas_data.phantom.anatomy import COARSE, Tissue
from gmmas_data.phantom.fields import Grid, Volume, random_field, resample, smoothstep
from gmmas_data.phantom.growth import Growth
from gmmas_data.phantom.subjects import Signs
from gmmas_schema.vocabulary import ENHANCING, NECROSIS, OEDEMA


@dataclass(frozen=True)
class Lesion:
    """Shares of the tumour's compartments per voxel.

    Attributes:
        necrosis_XYZ: necrotic core.
        solid_XYZ: non-enhancing tumour core.
        enhancing_XYZ: enhancing tumour.
        oedema_XYZ: oedema and infiltrated tissue around the core.
        suppressed_XYZ: where FLAIR is suppressed (T2-FLAIR mismatch), 0 to 1.
        calcified_XYZ: calcified tumour, 0 to 1.
        texture_XYZ: signal heterogeneity, variance 1.
    """

    necrosis_XYZ: Volume
    solid_XYZ: Volume
    enhancing_XYZ: Volume
    oedema_XYZ: Volume
    suppressed_XYZ: Volume
    calcified_XYZ: Volume
    texture_XYZ: Volume

    def total(self) -> Volume:
        """Share of tumour of any kind."""
        return self.necrosis_XYZ + self.solid_XYZ + self.enhancing_XYZ + self.oedema_XYZ

    def labels(self, inside_XYZ: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Return the label map: in each voxel the largest of healthy tissue, necrosis or solid core, oedema and enhancing tumour."""
        core = self.necrosis_XYZ + self.solid_XYZ
        # A rim thinner than a voxel is drawn by radiologists although it fills less than half of it.
        shares = np.stack([1 - self.total(), core, self.oedema_XYZ, 1.15 * self.enhancing_XYZ])
        values = np.array([0, NECROSIS, OEDEMA, ENHANCING], np.uint8)
        return np.asarray(values[shares.argmax(0)] * inside_XYZ, dtype=np.uint8)


def draw_lesion(rng: np.random.Generator, growth: Growth, tissue: Tissue, signs: Signs, grid: Grid) -> Lesion:
    """Draw the compartments of a grown tumour on `grid`."""
    front_mm = resample(growth.front_mm_XYZ, source=COARSE, target=grid)
    depth_mm = resample(growth.depth_mm_XYZ, source=COARSE, target=grid)
    fluid = resample(growth.oedema_XYZ, source=COARSE, target=grid)
    rough = random_field(rng, grid, length_mm=5, octaves=2)
    blotches = random_field(rng, grid, length_mm=8, octaves=2)
    texture = random_field(rng, grid, length_mm=6, octaves=2)

    front_mm = front_mm + np.float32(1.1 * signs.irregularity) * rough
    core = smoothstep(front_mm, -signs.margin_mm, signs.margin_mm) * (1 - 0.7 * tissue.csf_XYZ * (front_mm < 4))
    oedema = _oedema(fluid, core, tissue, rough, signs)
    depth_mm = depth_mm + 1.0 * blotches

    enhancing = necrosis = np.zeros_like(core)
    if signs.ring_mm > 0:
        necrosis = smoothstep(depth_mm, signs.ring_mm - 0.9, signs.ring_mm + 0.9) * core
        closed = 1 - signs.ring_gaps * smoothstep(texture, 0.2, 1.0)
        enhancing = (core - necrosis) * closed
    elif signs.patches > 0:
        level = _level(blotches, core > 0.5, signs.patches)
        enhancing = core * smoothstep(blotches, level - 0.4, level + 0.5) * (depth_mm > 1.5) * signs.patch_strength
    solid = core - necrosis - enhancing

    suppressed = np.float32(signs.mismatch) * core * smoothstep(depth_mm, 2.0, 4.5)
    calcified = np.zeros_like(core)
    if signs.calcification > 0:
        grains = random_field(rng, grid, length_mm=3.5)
        level = _level(grains, core > 0.5, signs.calcification)
        calcified = core * smoothstep(grains, level - 0.2, level + 0.3)
    return Lesion(necrosis, solid, enhancing, oedema, suppressed, calcified, texture)


def _oedema(fluid: Volume, core: Volume, tissue: Tissue, rough: Volume, signs: Signs) -> Volume:
    """Return the share of oedema: fluid above the level that gives the wanted volume, in white matter rather than cortex."""
    ready = np.clip(fluid + 0.04 * rough * (fluid > 0.02), 0, 1) * (1 - tissue.csf_XYZ) * (1 - 0.85 * tissue.grey_XYZ)
    ready = np.maximum(ready, core)
    wanted = int(signs.oedema_ratio * np.count_nonzero(core > 0.5))
    found = np.sort(ready[ready > 0.04])[::-1]
    level = float(found[min(wanted, len(found) - 1)]) if len(found) else 0.5
    level = min(max(level, 0.05), 0.45)
    return np.asarray(np.clip(smoothstep(ready, 0.55 * level, 1.45 * level) - core, 0, 1), dtype=np.float32)


def _level(field: Volume, where: NDArray[np.bool_], share: float) -> float:
    """Return the level that a share of the voxels `where` exceed."""
    values = field[where]
    return float(np.quantile(values, 1 - share)) if values.size else np.inf
