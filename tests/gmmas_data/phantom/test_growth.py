"""Growth, oedema and mass effect."""

from dataclasses import replace

import numpy as np
import pytest

from gmmas_data.phantom.anatomy import COARSE, Tissue, coarse_tissue, draw_head
from gmmas_data.phantom.atlas import Atlas
from gmmas_data.phantom.growth import Growth, grow, push_of
from gmmas_data.phantom.subjects import Signs, draw_signs, draw_subject
from gmmas_schema.vocabulary import SUBTYPES, Subtype

Grown = tuple[Growth, Signs, Tissue, np.ndarray, np.ndarray]


@pytest.fixture(scope="module", params=[(s, n) for n, s in enumerate(SUBTYPES)], ids=[s.value for s in SUBTYPES])
def grown(request: pytest.FixtureRequest, atlas: Atlas) -> Grown:
    subtype, seed = request.param
    rng = np.random.default_rng(seed)
    signs = draw_signs(rng, draw_subject(rng, subtype))
    tissue, depth_mm, ventricle = coarse_tissue(atlas, draw_head(rng))
    return grow(rng, tissue, depth_mm, signs), signs, tissue, depth_mm, ventricle


def test_growth_stops_at_the_wanted_volume(grown: Grown) -> None:
    growth, signs, *_ = grown
    volume_ml = np.count_nonzero(growth.density_XYZ > 0.5) * COARSE.voxel_ml
    assert signs.core_ml <= volume_ml < 1.15 * signs.core_ml + 1


def test_density_is_a_share_and_stays_inside_the_brain(grown: Grown) -> None:
    growth, _, _, depth_mm, _ = grown
    assert growth.density_XYZ.min() >= -1e-5
    assert growth.density_XYZ.max() <= 1 + 1e-5
    assert (growth.density_XYZ[depth_mm <= 0] == 0).all()


def test_front_and_depth_agree_with_density(grown: Grown) -> None:
    growth, *_ = grown
    core = growth.density_XYZ > 0.5
    assert (growth.front_mm_XYZ[core] >= 0).all()
    assert (growth.front_mm_XYZ[~core] <= 0).all()
    assert growth.depth_mm_XYZ[core].mean() > growth.depth_mm_XYZ[~core].max() / 4
    assert 5 < growth.depth_mm_XYZ.max() < 40


def test_oedema_surrounds_the_core_and_prefers_white_matter(grown: Grown) -> None:
    growth, _, tissue, _, _ = grown
    assert (growth.oedema_XYZ >= growth.density_XYZ - 1e-6).all()
    ring = (growth.density_XYZ < 0.05) & (growth.oedema_XYZ > 0.15)
    far = (growth.density_XYZ < 0.05) & (growth.oedema_XYZ < 0.02) & (tissue.white_XYZ + tissue.grey_XYZ > 0.5)
    assert ring.any()
    assert tissue.white_XYZ[ring].mean() > tissue.white_XYZ[far].mean()


def test_mass_effect_pushes_away_from_the_tumour(grown: Grown) -> None:
    growth, _, tissue, depth_mm, ventricle = grown
    push = push_of(growth, tissue, depth_mm, ventricle, expansion=1.0, atrophy=0.0)
    mass = growth.density_XYZ / growth.density_XYZ.sum()
    away = [axis - float((mass * axis).sum()) for axis in COARSE.axes_mm]
    distance = np.sqrt(sum(a**2 for a in away))
    shell = (distance > 22) & (distance < 34) & (depth_mm > 10)
    outward = sum(p * a for p, a in zip(push, away, strict=True)) / distance
    assert outward[shell].mean() > 0.5
    assert max(np.abs(p).max() for p in push) > 1.5


def test_no_expansion_and_no_atrophy_move_nothing(grown: Grown) -> None:
    growth, _, tissue, depth_mm, ventricle = grown
    still = push_of(growth, tissue, depth_mm, ventricle, expansion=0.0, atrophy=0.0)
    assert max(np.abs(p).max() for p in still) < 1e-3


def test_growth_repeats_with_its_seed(atlas: Atlas) -> None:
    tissue, depth_mm, _ = coarse_tissue(atlas, draw_head(np.random.default_rng(0)))
    rng = np.random.default_rng(0)
    signs = replace(draw_signs(rng, draw_subject(rng, Subtype.ASTROCYTOMA)), core_ml=8.0)
    one, same, other = (grow(np.random.default_rng(s), tissue, depth_mm, signs).density_XYZ for s in (5, 5, 6))
    assert (one == same).all()
    assert (one != other).any()
