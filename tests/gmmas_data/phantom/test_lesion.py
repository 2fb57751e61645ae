"""Compartments are shares, and the label map is their largest."""

import numpy as np

from gmmas_data.phantom.lesion import Lesion
from gmmas_schema.vocabulary import ENHANCING, NECROSIS, OEDEMA


def lesion(**shares: float) -> Lesion:
    names = ("necrosis_XYZ", "solid_XYZ", "enhancing_XYZ", "oedema_XYZ", "suppressed_XYZ", "calcified_XYZ", "texture_XYZ")
    return Lesion(**{name: np.full((1, 1, 1), shares.get(name.removesuffix("_XYZ"), 0.0), np.float32) for name in names})


def test_the_largest_share_names_the_voxel() -> None:
    inside = np.ones((1, 1, 1), bool)
    assert lesion().labels(inside).item() == 0
    assert lesion(oedema=0.6).labels(inside).item() == OEDEMA
    assert lesion(oedema=0.4).labels(inside).item() == 0
    assert lesion(necrosis=0.3, solid=0.3, oedema=0.4).labels(inside).item() == NECROSIS
    assert lesion(enhancing=0.48, oedema=0.52).labels(inside).item() == ENHANCING
    assert lesion(enhancing=1.0).labels(~inside).item() == 0
