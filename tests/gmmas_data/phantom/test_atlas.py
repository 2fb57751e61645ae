"""The packaged template, read without a network."""

import numpy as np

from gmmas_data.phantom.atlas import Atlas


def test_tissues_share_the_brain(atlas: Atlas) -> None:
    inside = atlas.depth_mm_XYZ > 0
    tissue = atlas.grey_XYZ + atlas.white_XYZ
    assert tissue.max() <= 1 + 1e-5
    assert (tissue[~inside] == 0).all()
    assert 1200 < inside.sum() * atlas.grid.voxel_ml < 2200


def test_landmarks_lie_where_anatomy_puts_them(atlas: Atlas) -> None:
    def at(x: float, y: float, z: float) -> tuple[int, int, int]:
        i, j, k = (int(atlas.grid.to_voxel(np.float32(c), axis=n).round()) for n, c in enumerate((x, y, z)))
        return i, j, k

    assert atlas.white_XYZ[at(28, -10, 34)] > 0.8  # corona radiata
    assert atlas.ventricle_XYZ[at(10, -12, 24)] > 0.3  # body of the lateral ventricle
    assert atlas.grey_XYZ[at(12, 14, 6)] > 0.3  # caudate
    assert atlas.depth_mm_XYZ[at(0, 0, 20)] > 30


def test_the_template_is_symmetric(atlas: Atlas) -> None:
    mirrored = atlas.white_XYZ[::-1]
    both = atlas.white_XYZ > 0.5
    assert (both & (mirrored > 0.5)).sum() / both.sum() > 0.95
