"""The gate: each way a case can be bad, what real headers may look like and still be good, and fuzzed files."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gmmas_data.cases import Case
from gmmas_data.layouts import read_case, read_cohort
from gmmas_data.preprocessing import preprocess_case
from gmmas_data.quality import check_case, check_cohort, load_case
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.model import GridConfig
from gmmas_schema.vocabulary import Modality
from tests.gmmas_data.scans import LPS, SHAPE, brain, case_in, save, scaled, write_case

Damage = Callable[[Path], object]
"""Changes one file of a good case."""


def rewritten(change: Callable[[np.ndarray], np.ndarray], *, affine: np.ndarray = LPS) -> Damage:
    """Return damage to the voxels."""
    return lambda path: save(path, change(np.asarray(nib.load(path, mmap=False).dataobj)), affine=affine)


def header(**fields: object) -> Damage:
    """Return damage to header fields."""

    def damage(path: Path) -> None:
        image = nib.Nifti1Image.from_bytes(path.read_bytes())
        raw = bytearray(path.read_bytes())
        for name, value in fields.items():
            image.header[name] = value
        raw[:348] = image.header.binaryblock
        path.write_bytes(raw)

    return damage


def bytes_of(change: Callable[[bytes], bytes]) -> Damage:
    """Return damage to the file's bytes."""
    return lambda path: path.write_bytes(change(path.read_bytes()))


def spoiled(value: float, dtype: type = np.float32) -> Damage:
    """Return damage to one voxel."""

    def change(values: np.ndarray) -> np.ndarray:
        values = values.astype(dtype)
        values[10, 10, 10] = value
        return values

    return rewritten(change)


def offset(millimetres: float) -> np.ndarray:
    affine = LPS.copy()
    affine[0, 3] += millimetres
    return affine


def sheared() -> np.ndarray:
    affine = LPS.copy()
    affine[:3, 1] = affine[:3, 0] + [0, 0.1, 0]
    return affine


def unlike(path: Path) -> None:
    """Write a sform and a qform that mirror one another."""
    image = nib.Nifti1Image(brain(Modality.T2), LPS)
    image.set_sform(LPS, 1)
    image.set_qform(LPS @ np.diag([-1.0, 1, 1, 1]), 1)
    nib.save(image, path)


def unplaced(path: Path) -> None:
    """Write a header without any form."""
    image = nib.Nifti1Image(brain(Modality.T2), None)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nib.save(image, path)


SCAN = "BraTS2021_00001_t2.nii"
MASK = "BraTS2021_00001_seg.nii"

BAD: dict[str, tuple[str, Damage, ReasonCode, str]] = {
    "no bytes": (SCAN, bytes_of(lambda raw: b""), ReasonCode.DATA_UNREADABLE, "cannot be read"),
    "text": (SCAN, bytes_of(lambda raw: b"not a scan\n" * 100), ReasonCode.DATA_UNREADABLE, "cannot be read"),
    "zeros": (SCAN, bytes_of(lambda raw: bytes(4096)), ReasonCode.DATA_UNREADABLE, "cannot be read"),
    "header cut": (SCAN, bytes_of(lambda raw: raw[:200]), ReasonCode.DATA_UNREADABLE, "cannot be read"),
    "voxels cut": (SCAN, bytes_of(lambda raw: raw[:-500]), ReasonCode.DATA_UNREADABLE, "bytes"),
    "gzip cut": (SCAN, bytes_of(lambda raw: gzip.compress(raw)[:-300]), ReasonCode.DATA_UNREADABLE, "EOFError"),
    "gzip checksum": (SCAN, bytes_of(lambda raw: gzip.compress(raw)[:-8] + bytes(8)), ReasonCode.DATA_UNREADABLE, "CRC"),
    "gzip of nothing": (SCAN, bytes_of(lambda raw: gzip.compress(b"")), ReasonCode.DATA_UNREADABLE, "cannot be read"),
    "gzip tail": (SCAN, bytes_of(lambda raw: gzip.compress(raw) + b"tail"), ReasonCode.DATA_UNREADABLE, "gzip"),
    "removed": (SCAN, Path.unlink, ReasonCode.DATA_UNREADABLE, "FileNotFoundError"),
    "a folder": (SCAN, lambda path: (path.unlink(), path.mkdir()), ReasonCode.DATA_UNREADABLE, "IsADirectoryError"),
    "complex voxels": (SCAN, rewritten(lambda v: v.astype(np.complex64)), ReasonCode.DATA_UNREADABLE, "complex64"),
    "two axes": (SCAN, rewritten(lambda v: v[:, :, 10]), ReasonCode.DATA_GRID, "shape 30 x 36"),
    "four axes": (SCAN, rewritten(lambda v: np.stack([v, v], axis=-1)), ReasonCode.DATA_GRID, "30 x 36 x 28 x 2"),
    "one slice": (SCAN, rewritten(lambda v: v[:, :, :1]), ReasonCode.DATA_GRID, "30 x 36 x 1"),
    "huge shape": (SCAN, header(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), ReasonCode.DATA_UNREADABLE, "announces"),
    "other shape": (SCAN, rewritten(lambda v: v[1:]), ReasonCode.DATA_GRID, "29 x 36 x 28"),
    "other origin": (SCAN, rewritten(lambda v: v, affine=offset(0.5)), ReasonCode.DATA_GRID, "0.50 mm apart"),
    "other orientation": (SCAN, rewritten(lambda v: v, affine=LPS @ np.diag([-1.0, 1, 1, 1])), ReasonCode.DATA_GRID, "mm apart"),
    "other spacing": (SCAN, rewritten(lambda v: v, affine=scaled(LPS, (1, 1, 1.2))), ReasonCode.DATA_GRID, "mm apart"),
    "no forms": (SCAN, unplaced, ReasonCode.DATA_GRID, "neither sform nor qform"),
    "mirrored forms": (SCAN, unlike, ReasonCode.DATA_GRID, "disagree on left and right"),
    "spacing in metres": (SCAN, rewritten(lambda v: v, affine=scaled(LPS, (0.001,) * 3)), ReasonCode.DATA_GRID, "0.001 x 0.001"),
    "spacing in micrometres": (SCAN, rewritten(lambda v: v, affine=scaled(LPS, (1000,) * 3)), ReasonCode.DATA_GRID, "1000 x 1000"),
    "spacing zero": (SCAN, header(srow_x=[0, 0, 0, 0], srow_y=[0, 0, 0, 0]), ReasonCode.DATA_GRID, "spacing 0 x 0"),
    "affine NaN": (SCAN, header(srow_x=[np.nan, 0, 0, 0]), ReasonCode.DATA_GRID, "not finite"),
    "affine far away": (SCAN, header(srow_x=[-1, 0, 0, 1e20]), ReasonCode.DATA_GRID, "beyond"),
    "axes fall together": (SCAN, header(srow_x=[1, 1, 0, 0], srow_y=[0, 0.1, 0, 0]), ReasonCode.DATA_GRID, "right angles"),
    "NaN": (SCAN, spoiled(np.nan), ReasonCode.DATA_NOT_FINITE, "1 of 30240"),
    "infinity": (SCAN, spoiled(-np.inf), ReasonCode.DATA_NOT_FINITE, "1 of 30240"),
    "beyond single precision": (SCAN, spoiled(1e200, np.float64), ReasonCode.DATA_NOT_FINITE, "1 of 30240"),
    "all zero": (SCAN, rewritten(np.zeros_like), ReasonCode.DATA_EMPTY, "0 voxels"),
    "all one value": (SCAN, rewritten(lambda v: np.full_like(v, 7)), ReasonCode.DATA_EMPTY, "0 voxels"),
    "a flat brain": (SCAN, rewritten(lambda v: (v > 0) * np.int16(9)), ReasonCode.DATA_EMPTY, "all 9"),
    "a few voxels": (SCAN, rewritten(lambda v: v * (np.arange(v.size).reshape(v.shape) == 15000)), ReasonCode.DATA_EMPTY, "1 voxels"),
    "mask empty": (MASK, rewritten(np.zeros_like), ReasonCode.DATA_EMPTY, "no tumour voxel"),
    "mask of 2013": (MASK, rewritten(lambda v: np.where(v == 4, 3, v).astype(np.uint8)), ReasonCode.DATA_LABEL, "got:      3"),
    "mask with value 255": (MASK, rewritten(lambda v: np.where(v == 4, 255, v).astype(np.uint8)), ReasonCode.DATA_LABEL, "255"),
    "mask interpolated": (MASK, spoiled(1.5), ReasonCode.DATA_LABEL, "1.5"),
    "mask negative": (MASK, spoiled(-1, np.int16), ReasonCode.DATA_LABEL, "-1"),
    "mask NaN": (MASK, spoiled(np.nan), ReasonCode.DATA_NOT_FINITE, "1 of 30240"),
    "mask on another grid": (MASK, rewritten(lambda v: v[:, :, :-1]), ReasonCode.DATA_GRID, "30 x 36 x 27"),
    "mask elsewhere": (MASK, rewritten(lambda v: v, affine=offset(3)), ReasonCode.DATA_GRID, "3.00 mm apart"),
    "mask cut": (MASK, bytes_of(lambda raw: raw[:1000]), ReasonCode.DATA_UNREADABLE, "bytes"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_by_name_with_a_reason(tmp_path: Path, kind: str) -> None:
    name, damage, code, said = BAD[kind]
    case = case_in(tmp_path)
    check_case(case)
    damage(tmp_path / name)
    with pytest.raises(DataError) as caught:
        check_case(case)
    error = caught.value
    assert error.code is code
    assert said in str(error)
    assert Path(error.where).name == name
    assert error.got
    assert error.expected
    assert error.remedy


def test_a_case_without_a_scan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no scan of a sequence this site offers") as caught:
        check_case(replace(case_in(tmp_path), images={}))
    assert caught.value.where == "BraTS2021_00001"


def other_forms(path: Path) -> None:
    image = nib.load(path, mmap=False)
    again = nib.Nifti1Image(np.asarray(image.dataobj), None)
    again.set_qform(None, 0)
    again.set_sform(LPS, 2)
    nib.save(again, path)


GOOD: dict[str, tuple[str, Damage]] = {
    "qform 0, sform 2": (SCAN, other_forms),
    "origin off by rounding": (SCAN, rewritten(lambda v: v, affine=offset(0.05))),
    "negative intensities": (SCAN, rewritten(lambda v: np.where(v > 0, v - 700.5, 0))),
    "background below zero": (SCAN, rewritten(lambda v: (v - 1024).astype(np.int16))),
    "residue of interpolation": (SCAN, rewritten(lambda v: v + np.random.default_rng(0).uniform(-0.05, 0.05, v.shape).astype(np.float32))),
    "mask as double": (MASK, rewritten(lambda v: v.astype(np.float64) + 1e-4)),
    "a trailing axis": (MASK, rewritten(lambda v: v[..., None])),
}


@pytest.mark.parametrize("kind", GOOD)
def test_oddities_of_real_files_change_nothing(tmp_path: Path, kind: str) -> None:
    name, change = GOOD[kind]
    case = case_in(tmp_path)
    before = load_case(case)
    change(tmp_path / name)
    after = load_case(case)
    np.testing.assert_array_equal(after.segmentation, before.segmentation)
    for modality in case.images:
        assert (after.brains[modality] == before.brains[modality]).mean() > 0.9999


def test_the_cohort_is_checked_to_its_end(tmp_path: Path) -> None:
    for number in range(4):
        write_case(tmp_path / str(number), case_id=f"c{number}", modalities=[Modality.T1, Modality.T2])
    save(tmp_path / "1" / "c1_seg.nii", np.zeros(SHAPE, np.uint8))
    (tmp_path / "2" / "c2_t1.nii").write_bytes(b"")
    cases = read_cohort(tmp_path)
    seen: list[tuple[int, int]] = []
    alone = check_cohort(cases, on_progress=lambda done, total: seen.append((done, total)))
    pooled = check_cohort(cases, processes=2)
    assert [case.case_id for case in alone.accepted] == ["c0", "c3"]
    assert [(case_id, error.code) for case_id, error in alone.rejected] == [
        ("c1", ReasonCode.DATA_EMPTY),
        ("c2", ReasonCode.DATA_UNREADABLE),
    ]
    assert seen[-1] == (4, 4)
    assert pooled.accepted == alone.accepted
    assert [(case_id, str(error)) for case_id, error in pooled.rejected] == [(case_id, str(error)) for case_id, error in alone.rejected]


def one_scan(folder: Path, content: bytes) -> Case:
    (folder / "x_t1.nii").write_bytes(content)
    return read_case(folder)


def nifti(kind: type) -> bytes:
    image = kind(brain(Modality.T1, shape=(8, 9, 10)), LPS)
    image.set_qform(LPS, 1)
    return image.to_bytes()


ORIGINALS = {"nifti1": nifti(nib.Nifti1Image), "nifti2": nifti(nib.Nifti2Image), "gzip": gzip.compress(nifti(nib.Nifti1Image), mtime=0)}
fuzz = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(
    kind=st.sampled_from(sorted(ORIGINALS)), edits=st.lists(st.tuples(st.integers(0, 560), st.integers(0, 255)), min_size=1, max_size=12)
)
def test_no_other_error_escapes_from_changed_bytes(tmp_path: Path, kind: str, edits: list[tuple[int, int]]) -> None:
    content = bytearray(ORIGINALS[kind])
    for place, value in edits:
        content[place % len(content)] = value
    survives(one_scan(tmp_path, bytes(content)))


numbers = st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0, 1e-30, 3e38])
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "dim": st.lists(st.integers(-3, 32767) | st.integers(0, 12), min_size=8, max_size=8),
        "datatype": st.sampled_from([0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 77]),
        "pixdim": st.lists(numbers, min_size=8, max_size=8),
        "vox_offset": st.sampled_from([-(2**40), -1, 0, 1, 351, 353, 1000, 2**31, 2**60]),
        "scl_slope": numbers,
        "scl_inter": numbers,
        "qform_code": st.integers(-1, 6),
        "sform_code": st.integers(-1, 6),
        "quatern_b": numbers,
        "quatern_c": numbers,
        "qoffset_x": numbers,
        "srow_x": st.lists(numbers, min_size=4, max_size=4),
        "srow_y": st.lists(numbers, min_size=4, max_size=4),
        "srow_z": st.lists(numbers, min_size=4, max_size=4),
    },
)


@fuzz
@given(kind=st.sampled_from(["nifti1", "nifti2"]), fields=HEADERS)
def test_no_other_error_escapes_from_changed_header_fields(tmp_path: Path, kind: str, fields: dict[str, object]) -> None:
    content = bytearray(ORIGINALS[kind])
    header_class = nib.Nifti1Header if kind == "nifti1" else nib.Nifti2Header
    block = header_class(bytes(content[: header_class.template_dtype.itemsize]), check=False)
    for name, value in fields.items():
        block[name] = value
    content[: len(block.binaryblock)] = block.binaryblock
    survives(one_scan(tmp_path, bytes(content)))


def survives(case: Case) -> None:
    """Preprocess; a DataError is the only error allowed, and a sample must be finite."""
    try:
        sample = preprocess_case(case, GridConfig(spacing_mm=2, shape=(6, 6, 6)))
    except DataError:
        pass
    else:
        assert np.isfinite(sample.image_MXYZ).all()
        assert np.isfinite(sample.affine).all()
