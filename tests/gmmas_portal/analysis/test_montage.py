import io

import numpy as np
import pytest
from PIL import Image

from gmmas_portal.analysis import draw_montage, draw_slice
from gmmas_schema.vocabulary import Modality
from gmmas_workflows.figures import LABEL_COLOURS
from tests.gmmas_portal.analysis.bodies import MNI_AFFINE, SHAPE, ball, tumour

FLIPPED = np.array([[-2.0, 0, 0, 68], [0, -2.0, 0, 62], [0, 0, 2.0, -46], [0, 0, 0, 1]])


def _images(affine: np.ndarray = MNI_AFFINE) -> dict[Modality, np.ndarray]:
    return {Modality.FLAIR: np.where(ball((0, -20, 14), 56.0, affine), 100.0, 0).astype(np.float32)}


def _pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def _coloured(pixels: np.ndarray) -> np.ndarray:
    """Return where a picture of grey scans has colour."""
    return np.asarray(pixels.max(axis=2) - pixels.min(axis=2) > 40)


@pytest.mark.parametrize("affine", [MNI_AFFINE, FLIPPED])
def test_the_patients_right_is_on_the_left_whatever_the_voxels_order(affine: np.ndarray) -> None:
    options = {"plane": "axial", "place": 0.5}
    pixels = _pixels(draw_slice(_images(affine), tumour((40, -20, 14), affine), affine, **options))
    columns = np.flatnonzero(_coloured(pixels).any(axis=0))
    assert columns.max() < pixels.shape[1] / 2


def test_front_is_up_and_left_and_above_is_up() -> None:
    labels = tumour((0, 24, 14))
    axial, sagittal = (
        _coloured(_pixels(draw_slice(_images(), labels, MNI_AFFINE, plane=plane, place=0.5))) for plane in ("axial", "sagittal")
    )
    assert np.flatnonzero(axial.any(axis=1)).max() < axial.shape[0] / 2
    assert np.flatnonzero(sagittal.any(axis=0)).max() < sagittal.shape[1] / 2
    high = _coloured(_pixels(draw_slice(_images(), tumour((0, -20, 50)), MNI_AFFINE, plane="coronal", place=0.5)))
    assert np.flatnonzero(high.any(axis=1)).max() < high.shape[0] / 2


def test_a_slice_without_outline_is_grey_and_the_outline_has_all_three_colours() -> None:
    labels = tumour((-20, -20, 14))
    bare = _pixels(draw_slice(_images(), labels, MNI_AFFINE, plane="axial", place=0.5, outline=False))
    assert not _coloured(bare).any()
    drawn = _pixels(draw_slice(_images(), labels, MNI_AFFINE, plane="axial", place=0.5))
    assert len({tuple(p) for p in (drawn[_coloured(drawn)] // 16).tolist()}) >= len(LABEL_COLOURS)


def test_a_montage_shows_the_tumour_once_in_each_plane() -> None:
    with_tumour, without = (
        _pixels(draw_montage(_images(), labels, MNI_AFFINE)) for labels in (tumour((-20, 0, 20)), np.zeros(SHAPE, dtype=np.uint8))
    )
    changed = np.abs(with_tumour - without).max(axis=2) > 40
    height, width = changed.shape
    lower = _coloured(with_tumour)[height // 2 : int(0.85 * height)]
    assert [bool(lower[:, n * width // 3 : (n + 1) * width // 3].any()) for n in range(3)] == [True] * 3
    assert not _coloured(with_tumour)[: int(0.45 * height)].any()


@pytest.mark.parametrize("place", [-1.0, 7.0])
def test_leafing_beyond_the_brain_stays_at_its_edge(place: float) -> None:
    assert draw_slice(_images(), tumour((-20, 0, 20)), MNI_AFFINE, plane="coronal", place=place).startswith(b"\x89PNG")


def test_an_empty_scan_is_drawn_all_the_same() -> None:
    empty = {Modality.T1: np.zeros(SHAPE, dtype=np.float32)}
    assert draw_montage(empty, np.zeros(SHAPE, dtype=np.uint8), MNI_AFFINE).startswith(b"\x89PNG")
