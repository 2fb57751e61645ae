import math
import os
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_data.cases import Case
from gmmas_data.layouts import read_case
from gmmas_data.normalisation import CLIP, normalise
from gmmas_data.preprocessing import preprocess_case, restore_to_native
from gmmas_data.quality import load_case
from gmmas_data.regions import regions_of
from gmmas_schema.model import GridConfig
from gmmas_schema.vocabulary import MODALITIES, Layout, Modality
from tests.gmmas_data.scans import LPS, SHAPE, brain, case_in, save, scaled

GRID = GridConfig(spacing_mm=2, shape=(16, 20, 16))
SMALL_CASE = Path(__file__).parents[1] / "data" / "BraTS2021_00006"


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_sample_has_the_promised_shapes_and_types(tmp_path: Path) -> None:
    case = replace(case_in(tmp_path, case_id="BraTS-GLI-00005-100", layout=Layout.BRATS2023), idh=True, grade=False)
    sample = preprocess_case(case, GRID)
    assert (sample.case_id, sample.patient_id) == ("BraTS-GLI-00005-100", "BraTS-GLI-00005")
    assert (sample.image_MXYZ.shape, sample.image_MXYZ.dtype) == ((4, *GRID.shape), np.float32)
    assert sample.present_M.tolist() == [True] * 4
    assert sample.regions_RXYZ is not None
    assert (sample.regions_RXYZ.shape, sample.regions_RXYZ.dtype) == ((3, *GRID.shape), np.uint8)
    assert sample.idh == 1
    assert sample.grade == 0
    assert math.isnan(sample.codeletion)
    assert math.isnan(sample.mgmt)
    assert sample.native_shape == SHAPE
    np.testing.assert_allclose(sample.native_affine, LPS)
    assert np.abs(sample.image_MXYZ).max() <= CLIP


@pytest.fixture(scope="module")
def whole_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return case_in(tmp_path_factory.mktemp("whole"))


def only(case: Case, modalities: Collection[Modality]) -> Case:
    return replace(case, images={m: case.images[m] for m in MODALITIES if m in modalities})


SUBSETS = st.sets(st.sampled_from(MODALITIES), min_size=1)


@settings(max_examples=15)
@given(shown=SUBSETS)
def test_other_sequences_change_no_bit_of_a_scan(whole_case: Case, shown: set[Modality]) -> None:
    together, fewer = preprocess_case(whole_case, GRID), preprocess_case(only(whole_case, shown), GRID)
    assert fewer.present_M.tolist() == [m in shown for m in MODALITIES]
    for place, modality in enumerate(MODALITIES):
        expected = together.image_MXYZ[place] if modality in shown else np.zeros(GRID.shape, np.float32)
        np.testing.assert_array_equal(fewer.image_MXYZ[place], expected)


@settings(max_examples=15)
@given(
    kept=st.sampled_from(MODALITIES),
    others=SUBSETS,
    scale=st.floats(1e-2, 20),
    offset=st.integers(0, 500),
    moved=st.integers(-6, 6),
)
def test_normalisation_of_a_scan_is_its_own(
    whole_case: Case, tmp_path_factory: pytest.TempPathFactory, kept: Modality, others: set[Modality], scale: float, offset: int, moved: int
) -> None:
    """Whatever the other sequences show, brighter, with an offset or out of place, this one's foreground and z-scores stay, bit for bit."""
    folder = tmp_path_factory.mktemp("others")
    images = {kept: whole_case.images[kept]}
    for modality in sorted(others - {kept}):
        values = np.roll(brain(modality).astype(np.float32) * scale + offset, moved, axis=0)
        images[modality] = save(folder / f"{modality}.nii", values)
    alone = load_case(only(whole_case, [kept]))
    beside = load_case(replace(whole_case, images={m: images[m] for m in MODALITIES if m in images}))
    np.testing.assert_array_equal(beside.brains[kept], alone.brains[kept])
    scores = [normalise(loaded.images[kept], loaded.brains[kept]) for loaded in (alone, beside)]
    np.testing.assert_array_equal(*scores)


def test_outside_the_brain_is_zero_and_inside_is_standardised(tmp_path: Path) -> None:
    sample = preprocess_case(case_in(tmp_path), GridConfig(spacing_mm=1, shape=(40, 40, 40)))
    loaded = load_case(case_in(tmp_path))
    mask = restore_to_native((sample.image_MXYZ != 0).astype(np.float32), sample, order=0) > 0
    for place, modality in enumerate(MODALITIES):
        assert (mask[place] == loaded.brains[modality]).mean() > 0.999
        assert not mask[place][~loaded.brains[modality]].any()
        inside = sample.image_MXYZ[place][sample.image_MXYZ[place] != 0]
        assert (abs(inside.mean()), inside.std()) == (pytest.approx(0, abs=0.01), pytest.approx(1, abs=0.01))


def test_a_coarse_grid_does_not_darken_the_rim_of_the_brain(tmp_path: Path) -> None:
    """A brain of two flat halves keeps both values right up to its border."""
    values = (brain(Modality.T1) > 0).astype(np.int16) * 100
    values[:15] *= 3
    case = Case("x", "x", {Modality.T1: save(tmp_path / "x_t1.nii", values)}, None, Layout.BRATS2021)
    scores = preprocess_case(case, GridConfig(spacing_mm=4, shape=(8, 10, 8))).image_MXYZ[0]
    middle = np.abs(scores[[0, 1, 2, 5, 6, 7]])
    np.testing.assert_allclose(middle[middle > 0], 1, atol=0.12)


@pytest.mark.parametrize(("spacing_mm", "least"), [(1.0, 1.0), (2.0, 0.8)])
def test_regions_survive_the_way_there_and_back(tmp_path: Path, spacing_mm: float, least: float) -> None:
    case = case_in(tmp_path, affine=scaled(LPS, (1, 1, 1)))
    sample = preprocess_case(case, GridConfig(spacing_mm=spacing_mm, shape=(40, 40, 40)))
    truth = regions_of(load_case(case).segmentation)
    back = restore_to_native(sample.regions_RXYZ, sample) >= 0.5
    assert min(dice(*pair) for pair in zip(back, truth, strict=True)) >= least
    whole, core, enhancing = sample.regions_RXYZ.astype(bool)
    assert not (core & ~whole).any()
    assert not (enhancing & ~core).any()


def test_a_region_that_half_fills_a_voxel_counts(tmp_path: Path) -> None:
    """Of two slabs of four slices, one meets the borders of grid voxels of two; the other half fills one at each end."""
    image = save(tmp_path / "t1.nii", brain(Modality.T1))
    thickness = set()
    for first in (11, 12):
        mask = np.zeros(SHAPE, np.uint8)
        mask[:, :, first : first + 4] = 2
        case = Case("x", "x", {Modality.T1: image}, save(tmp_path / f"{first}.nii", mask), Layout.BRATS2021)
        thickness.add(int(preprocess_case(case, GRID).regions_RXYZ[0, 8, 10].sum()))
    assert thickness == {2, 3}


@pytest.mark.parametrize("spacing_mm", [2.0, 3.0])
def test_committed_case(spacing_mm: float) -> None:
    """A real tumour in LPS at 2 mm, through the grid and back."""
    case = read_case(SMALL_CASE)
    sample = preprocess_case(case, GridConfig(spacing_mm=spacing_mm, shape=(80, 96, 80)))
    truth = regions_of(load_case(case).segmentation)
    back = restore_to_native(sample.regions_RXYZ, sample) >= 0.5
    scores = [dice(*pair) for pair in zip(back, truth, strict=True)]
    assert min(scores) == 1 if spacing_mm == 2 else min(scores) > 0.85
    assert sample.affine[0, 0] == pytest.approx(spacing_mm)
    assert 0.05 < (sample.image_MXYZ != 0).mean() < 0.6


def test_smooth_volume_there_and_back(tmp_path: Path) -> None:
    sample = preprocess_case(case_in(tmp_path), GRID)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in GRID.shape), indexing="ij")
    smooth = np.exp(-(x**2 + y**2 + z**2))[None]
    native = restore_to_native(smooth, sample)
    corner = np.linalg.inv(sample.native_affine) @ sample.affine @ [8, 10, 8, 1]
    low = np.floor(corner[:3]).astype(int)
    around = native[0, low[0] : low[0] + 2, low[1] : low[1] + 2, low[2] : low[2] + 2]
    assert around.mean() == pytest.approx(smooth[0, 8, 10, 8], abs=0.02)


def real_data() -> Path:
    folder = os.environ.get("GMMAS_REAL_DATA")
    if not folder:
        pytest.skip("GMMAS_REAL_DATA names no folder of real scans")
    return Path(folder)


@pytest.mark.real_data
def test_full_size_case_takes_seconds() -> None:
    case = read_case(real_data() / "brats2021-00006")
    begin = time.perf_counter()
    sample = preprocess_case(case, GridConfig())
    assert time.perf_counter() - begin < 10
    truth = regions_of(load_case(case).segmentation)
    back = restore_to_native(sample.regions_RXYZ, sample) >= 0.5
    assert [dice(*pair) > least for pair, least in zip(zip(back, truth, strict=True), (0.95, 0.94, 0.8), strict=True)] == [True] * 3


@pytest.mark.real_data
def test_another_centre_in_las_with_qform_only() -> None:
    folder = real_data() / "ms-patient19"
    files = dict(zip(MODALITIES, ("T1", "T1POST", "T2", "FLAIR"), strict=True))
    case = Case("patient19", "patient19", {m: folder / f"patient19_{name}.nii.gz" for m, name in files.items()}, None, Layout.BRATS2021)
    sample = preprocess_case(case, GridConfig())
    assert sample.regions_RXYZ is None
    np.testing.assert_allclose(np.diag(sample.affine)[:3], 4, atol=1e-3)
    assert 0.1 < (sample.image_MXYZ != 0).mean() < 0.3
