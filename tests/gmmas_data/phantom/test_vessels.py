"""Vessels and choroid plexus: thin, inside the head, different in every subject."""

import numpy as np

from gmmas_data.phantom.anatomy import COARSE, coarse_tissue, draw_head
from gmmas_data.phantom.atlas import BOX_HIGH_MM, BOX_LOW_MM, Atlas
from gmmas_data.phantom.fields import Grid
from gmmas_data.phantom.vessels import draw_vessels


def test_vessels_are_thin_tubes_and_plexus_lies_deep(atlas: Atlas) -> None:
    grid = Grid.covering(BOX_LOW_MM, BOX_HIGH_MM, 3.0)
    head = draw_head(np.random.default_rng(0))
    _, depth_mm, _ = coarse_tissue(atlas, head)
    vessels = draw_vessels(np.random.default_rng(1), head, depth_mm, grid)
    for share in (vessels.blood_XYZ, vessels.plexus_XYZ):
        assert share.shape == grid.shape
        assert 0 <= share.min() < share.max() <= 1
    assert 5 < vessels.blood_XYZ.sum() * grid.voxel_ml < 60
    assert vessels.plexus_XYZ.sum() * grid.voxel_ml < 8
    assert grid == COARSE
    assert np.average(depth_mm, weights=vessels.plexus_XYZ) > 25
    other = draw_vessels(np.random.default_rng(2), head, depth_mm, grid)
    assert (other.blood_XYZ != vessels.blood_XYZ).any()
