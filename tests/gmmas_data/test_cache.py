import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from gmmas_data.cache import SampleCache, prune_samples, sealed_samples
from gmmas_data.layouts import read_cohort
from gmmas_data.preprocessing import preprocess_case
from gmmas_data.samples import Sample
from gmmas_runtime.sealed_files import Seal, is_sealed, rotate_key
from gmmas_schema.errors import DataError, ReasonCode, TrustError
from gmmas_schema.model import GridConfig
from gmmas_schema.vocabulary import MARKERS, Layout, Modality, Region, Tissue
from tests.gmmas_data.scans import SHAPE, case_in, save, tumour, write_case

GRID = GridConfig(spacing_mm=3, shape=(10, 12, 10))


def assert_same(one: Sample, other: Sample) -> None:
    for field in fields(Sample):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)


def stamp(path: Path) -> tuple[int, int]:
    """Return what changes when an entry is written again."""
    return path.stat().st_ino, path.stat().st_mtime_ns


@pytest.fixture
def cache(tmp_path: Path) -> SampleCache:
    return SampleCache(tmp_path / "cache", GRID)


@pytest.mark.parametrize("options", [{}, {"segmentation": False}, {"modalities": [Modality.T2]}])
def test_a_hit_is_what_preprocessing_gives_to_the_last_bit(tmp_path: Path, cache: SampleCache, options: dict[str, object]) -> None:
    case = replace(case_in(tmp_path / "case", **options), idh=False)
    fresh = cache.get(case)
    before = stamp(cache.path_of(case))
    hit = cache.get(case)
    assert stamp(cache.path_of(case)) == before
    assert hit.image_MXYZ.dtype == np.float32
    assert_same(hit, fresh)
    assert_same(hit, preprocess_case(case, GRID))


def test_the_patch_is_no_part_of_an_entry(tmp_path: Path, cache: SampleCache) -> None:
    case = case_in(tmp_path / "case")
    patches = SampleCache(cache.folder, GRID.model_copy(update={"patch": (8, 8, 8)}))
    assert patches.path_of(case) == cache.path_of(case)


def test_a_moved_case_is_the_same_entry_and_a_changed_one_is_not(tmp_path: Path, cache: SampleCache) -> None:
    case = case_in(tmp_path / "case")
    moved = case_in(tmp_path / "elsewhere", case_id="other")
    assert cache.path_of(moved) == cache.path_of(case)
    assert cache.get(moved).case_id == "other"
    keys = {cache.path_of(case)}
    for part in ("t1", "seg"):
        path = tmp_path / "case" / f"BraTS2021_00001_{part}.nii"
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        keys.add(cache.path_of(case))
    keys.add(cache.path_of(replace(case, segmentation=None)))
    swapped = {**case.images, Modality.T1CE: case.images[Modality.T1], Modality.T1: case.images[Modality.T1CE]}
    keys.add(cache.path_of(replace(case, images=swapped)))
    keys.add(SampleCache(cache.folder, GridConfig(spacing_mm=3.5, shape=GRID.shape)).path_of(case))
    keys.add(cache.path_of(replace(case, layout=Layout.BRATS2023)))
    assert len(keys) == 7


def test_a_mended_label_needs_no_rebuild(tmp_path: Path, cache: SampleCache) -> None:
    case = case_in(tmp_path / "case")
    assert np.isnan(cache.get(case).idh)
    before = stamp(cache.path_of(case))
    mended = cache.get(replace(case, idh=True, codeletion=False, grade=False, mgmt=True))
    assert [mended.marker(task) for task in MARKERS] == [1, 0, 0, 1]
    assert stamp(cache.path_of(case)) == before


def flip(content: bytes) -> bytes:
    return content[:-5000] + bytes([content[-5000] ^ 4]) + content[-4999:]


@pytest.mark.parametrize(
    "damage", [flip, lambda content: content[:-7], lambda content: b"", lambda content: b"x" * 400, lambda content: content[:4]]
)
def test_a_damaged_entry_is_made_again(
    tmp_path: Path, cache: SampleCache, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    case = case_in(tmp_path / "case")
    fresh = cache.get(case)
    path = cache.path_of(case)
    path.write_bytes(damage(path.read_bytes()))
    assert_same(cache.get(case), fresh)
    assert "damaged" in caplog.text
    caplog.clear()
    assert_same(cache.get(case), fresh)
    assert not caplog.text


def test_entries_are_private_and_name_nobody(tmp_path: Path, cache: SampleCache) -> None:
    case = case_in(tmp_path / "case", case_id="UCSF-PDGM-0042_FU001d")
    cache.get(case)
    (path,) = cache.folder.iterdir()
    assert (cache.folder.stat().st_mode & 0o777, path.stat().st_mode & 0o777) == (0o700, 0o600)
    assert b"PDGM" not in path.read_bytes()
    assert "PDGM" not in path.name


@pytest.mark.parametrize("processes", [1, 2])
def test_prepare_makes_every_entry_once(tmp_path: Path, cache: SampleCache, processes: int) -> None:
    for number in range(3):
        save(write_case(tmp_path / "cohort", case_id=f"c{number}", modalities=[Modality.T1]) / f"c{number}_t2.nii", noise(number))
    cases = read_cohort(tmp_path / "cohort")
    seen: list[tuple[int, int]] = []
    cache.prepare(cases, processes=processes, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 3) for n in range(4)]
    assert sorted(cache.folder.iterdir()) == sorted(cache.path_of(case) for case in cases)
    stamps = [stamp(cache.path_of(case)) for case in cases]
    cache.prepare(cases, processes=1)
    assert [stamp(cache.path_of(case)) for case in cases] == stamps


@pytest.mark.parametrize("processes", [1, 2])
def test_a_bad_case_leaves_no_entry(tmp_path: Path, cache: SampleCache, processes: int) -> None:
    for number in range(2):
        write_case(tmp_path / "cohort", case_id=f"c{number}", modalities=[Modality.T1])
    save(tmp_path / "cohort" / "c1_seg.nii", np.zeros(SHAPE, np.uint8))
    cases = read_cohort(tmp_path / "cohort")
    with pytest.raises(DataError, match="no tumour voxel"):
        cache.prepare(cases, processes=processes)
    assert not cache.path_of(cases[1]).exists()


def test_a_file_that_is_gone_is_a_data_error(tmp_path: Path, cache: SampleCache) -> None:
    case = case_in(tmp_path / "case")
    case.images[Modality.T2].unlink()
    with pytest.raises(DataError) as caught:
        cache.get(case)
    assert caught.value.code is ReasonCode.DATA_UNREADABLE


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 100, SHAPE, dtype=np.int16)


def test_an_outline_of_the_whole_tumour_teaches_nothing_of_its_core(tmp_path: Path) -> None:
    """EGD's masks are boolean; a map of site.yaml may leave the enhancing part open."""
    case = case_in(tmp_path / "scans", case_id="x")
    seg = case.segmentation
    assert seg is not None
    save(seg, (tumour() > 0).astype(np.uint8))
    whole = replace(case, layout=Layout.EGD)
    cache = SampleCache(tmp_path / "cache", GRID)
    for sample in (cache.get(whole), cache.get(whole), preprocess_case(whole, GRID)):
        assert sample.weight_RXYZ is not None
        assert sample.weight_RXYZ.mean(axis=(1, 2, 3)).tolist() == [1, 0, 0]
        assert sample.regions_RXYZ is not None
        assert sample.regions_RXYZ[0].any()
    core = replace(case, layout=Layout.BIDS, tissues={1: Tissue.CORE})
    assert (cache.get(core).weight_RXYZ.mean(axis=(1, 2, 3)).tolist(), core.known_regions) == ([1, 1, 0], (Region.WT, Region.TC))
    assert cache.path_of(core) != cache.path_of(replace(core, tissues={1: Tissue.OEDEMA}))


def test_entries_may_lie_sealed_and_one_in_the_place_of_another_is_made_again(tmp_path: Path) -> None:
    rotate_key(tmp_path / "seal.key", [])
    seal = Seal(tmp_path / "seal.key")
    for name in ("p1", "p2"):
        write_case(tmp_path / "cohort" / name, case_id=name)
    cases = read_cohort(tmp_path / "cohort")
    cache, plain = SampleCache(tmp_path / "sealed", GRID, seal=seal), SampleCache(tmp_path / "plain", GRID)
    cache.prepare(cases, processes=1)
    first, second = (cache.path_of(case) for case in cases)
    assert is_sealed(first)
    assert np.array_equal(cache.get(cases[0]).image_MXYZ, plain.get(cases[0]).image_MXYZ)
    before = first.read_bytes()
    rotate_key(seal.key_file, sealed_samples(cache.folder))
    assert first.read_bytes() != before
    assert np.array_equal(cache.get(cases[1]).image_MXYZ, plain.get(cases[1]).image_MXYZ)
    second.replace(first)
    assert np.array_equal(cache.get(cases[0]).image_MXYZ, plain.get(cases[0]).image_MXYZ)
    seal.key_file.unlink()
    with pytest.raises(TrustError, match="key file of the encryption is missing"):
        cache.get(cases[0])


def test_what_was_not_used_for_long_is_deleted_and_the_rest_stays(tmp_path: Path, cache: SampleCache) -> None:
    cases = [case_in(tmp_path / "used"), case_in(tmp_path / "unused", modalities=[Modality.T1])]
    for case in cases:
        cache.get(case)
        os.utime(cache.path_of(case), (0, 0))
    cache.get(cases[0])
    assert prune_samples(cache.folder, unused_days=30) == 1
    assert list(cache.folder.iterdir()) == [cache.path_of(cases[0])]
