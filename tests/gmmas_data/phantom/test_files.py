"""Files as BraTS names them, whole or not at all."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gmmas_data.phantom import files
from gmmas_data.phantom.case import PhantomCase
from gmmas_data.phantom.fields import Grid
from gmmas_data.phantom.files import encode_nifti, write_case, write_whole
from gmmas_schema.vocabulary import Layout

GRID = Grid((3, 4, 5), 2.0, (-10.0, -20.0, -30.0))


def test_nifti_is_stored_in_lps_and_reads_back_in_ras(tmp_path: Path) -> None:
    volume = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    (tmp_path / "v.nii.gz").write_bytes(encode_nifti(volume, GRID))
    image = nib.load(tmp_path / "v.nii.gz")
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    canonical = nib.as_closest_canonical(image)
    assert (np.asarray(canonical.dataobj) == volume).all()
    assert canonical.affine.tolist() == [[2, 0, 0, -10], [0, 2, 0, -20], [0, 0, 2, -30], [0, 0, 0, 1]]
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 4


def test_equal_volumes_are_equal_bytes() -> None:
    volume = np.ones((3, 4, 5), np.uint8)
    assert encode_nifti(volume, GRID) == encode_nifti(volume.copy(), GRID)
    assert encode_nifti(volume, GRID)[4:8] == b"\0\0\0\0"  # gzip's time stamp


@pytest.mark.parametrize(
    ("layout", "names", "values"),
    [
        (Layout.BRATS2021, {"P1_t1.nii.gz", "P1_t1ce.nii.gz", "P1_t2.nii.gz", "P1_flair.nii.gz", "P1_seg.nii.gz"}, {0, 1, 2, 4}),
        (Layout.BRATS2023, {"P1-t1n.nii.gz", "P1-t1c.nii.gz", "P1-t2w.nii.gz", "P1-t2f.nii.gz", "P1-seg.nii.gz"}, {0, 1, 2, 3}),
    ],
)
def test_names_and_values_follow_the_layout(
    tmp_path: Path, glioblastoma: PhantomCase, layout: Layout, names: set[str], values: set[int]
) -> None:
    write_case(tmp_path / "P1", glioblastoma, layout=layout, segmentation=True)
    assert {p.name for p in (tmp_path / "P1").iterdir()} == names
    labels = nib.load(next(p for p in (tmp_path / "P1").iterdir() if "seg" in p.name))
    assert labels.get_data_dtype() == np.uint8
    assert set(np.unique(labels.dataobj)) == values


def test_an_unlabelled_case_has_no_label_map(tmp_path: Path, glioblastoma: PhantomCase) -> None:
    write_case(tmp_path / "P1", glioblastoma, layout=Layout.BRATS2021, segmentation=False)
    assert len(list((tmp_path / "P1").iterdir())) == 4
    assert not list(tmp_path.rglob("*seg*"))


def test_a_failure_leaves_nothing_behind(tmp_path: Path, glioblastoma: PhantomCase, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fail_at_third(volume: np.ndarray, grid: Grid) -> bytes:
        calls.append(volume)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return encode_nifti(volume, grid)

    monkeypatch.setattr(files, "encode_nifti", fail_at_third)
    with pytest.raises(OSError, match="No space left"):
        write_case(tmp_path / "P1", glioblastoma, layout=Layout.BRATS2021, segmentation=True)
    assert list(tmp_path.iterdir()) == []


def test_write_whole_replaces(tmp_path: Path) -> None:
    write_whole(tmp_path / "f", b"one")
    write_whole(tmp_path / "f", b"two")
    assert (tmp_path / "f").read_bytes() == b"two"
    assert len(list(tmp_path.iterdir())) == 1
