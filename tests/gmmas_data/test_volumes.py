import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gmmas_data.volumes import read_image, read_labels
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.vocabulary import SEGMENTATION_VALUES, Layout, Modality
from tests.gmmas_data.scans import LPS, SHAPE, brain, save, tumour

MEANING = SEGMENTATION_VALUES[Layout.BRATS2021]
OURS = np.array([0, 1, 2, 0, 3])[tumour()]


@pytest.mark.parametrize(("sform", "qform"), [(1, 1), (2, 0), (0, 1), (4, 1)])
def test_either_form_gives_the_geometry(tmp_path: Path, sform: int, qform: int) -> None:
    image = nib.Nifti1Image(brain(Modality.T1), None)
    other = LPS.copy()
    other[:3, 3] += 7
    image.set_sform(LPS if sform else None, sform)
    image.set_qform((other if sform else LPS) if qform else None, qform)
    nib.save(image, tmp_path / "x.nii.gz")
    np.testing.assert_allclose(read_image(tmp_path / "x.nii.gz").affine, LPS, atol=1e-5)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, ">i2", ">f4"])
def test_every_number_type_reads_the_same(tmp_path: Path, kind: str) -> None:
    values = (brain(Modality.T2) % 200).astype(kind)
    volume = read_image(save(tmp_path / "x.nii", values))
    assert volume.values_XYZ.dtype == np.float32
    np.testing.assert_array_equal(volume.values_XYZ, values.astype(np.float32))


def test_an_unused_form_may_be_nonsense(tmp_path: Path) -> None:
    path = save(tmp_path / "x.nii", brain(Modality.T1))
    content = bytearray(path.read_bytes())
    content[80:84] = np.float32(np.inf).tobytes()
    path.write_bytes(content)
    np.testing.assert_allclose(read_image(path).affine, LPS)


def test_nifti2_big_endian_and_trailing_axis(tmp_path: Path) -> None:
    values = brain(Modality.T2)
    nib.save(nib.Nifti2Image(values[..., None], LPS), tmp_path / "two.nii.gz")
    header = nib.Nifti1Header(endianness=">")
    header.set_sform(LPS, 1)
    nib.save(nib.Nifti1Image(values, LPS, header), tmp_path / "big.nii")
    for name in ("two.nii.gz", "big.nii"):
        np.testing.assert_array_equal(read_image(tmp_path / name).values_XYZ, values)


def test_compression_is_read_from_the_content_not_the_name(tmp_path: Path) -> None:
    plain = save(tmp_path / "x.nii", brain(Modality.T1)).read_bytes()
    (tmp_path / "plain.nii.gz").write_bytes(plain)
    (tmp_path / "packed.nii").write_bytes(gzip.compress(plain))
    np.testing.assert_array_equal(read_image(tmp_path / "plain.nii.gz").values_XYZ, read_image(tmp_path / "packed.nii").values_XYZ)


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9, 1.0])
def test_one_flipped_bit_in_a_compressed_file_is_found(tmp_path: Path, place: float) -> None:
    path = save(tmp_path / "x.nii.gz", brain(Modality.T1))
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 9))] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_image(path)
    assert caught.value.code is ReasonCode.DATA_UNREADABLE


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
def test_masks_of_every_type_are_translated(tmp_path: Path, kind: type) -> None:
    volume = read_labels(save(tmp_path / "seg.nii.gz", tumour().astype(kind)), meaning=MEANING)
    assert volume.values_XYZ.dtype == np.uint8
    np.testing.assert_array_equal(volume.values_XYZ, OURS)


@pytest.mark.parametrize("slope", [0.0158728, 0.0158732])
def test_a_scale_factor_that_leaves_a_mask_not_whole_is_rounded(tmp_path: Path, slope: float) -> None:
    image = nib.Nifti1Image(tumour() * np.uint8(63), LPS)
    image.header.set_slope_inter(slope, 0)
    nib.save(image, tmp_path / "seg.nii.gz")
    stored = np.unique(nib.load(tmp_path / "seg.nii.gz").get_fdata())
    assert (stored != np.rint(stored)).any(), "the file holds what the test is about"
    np.testing.assert_array_equal(read_labels(tmp_path / "seg.nii.gz", meaning=MEANING).values_XYZ, OURS)


def test_the_value_three_means_different_things(tmp_path: Path) -> None:
    path = save(tmp_path / "seg.nii.gz", tumour(enhancing=3))
    np.testing.assert_array_equal(read_labels(path, meaning=SEGMENTATION_VALUES[Layout.BRATS2023]).values_XYZ, OURS)
    with pytest.raises(DataError, match="unknown label values") as caught:
        read_labels(path, meaning=MEANING)
    assert caught.value.got == "3"


def test_spacing_is_along_the_files_own_axes(tmp_path: Path) -> None:
    affine = np.array([[0, 0, 3.0, 0], [1, 0, 0, 0], [0, -2, 0, 0], [0, 0, 0, 1]])
    assert read_image(save(tmp_path / "x.nii", np.ones(SHAPE, np.int16), affine=affine)).spacing_mm.tolist() == [1, 2, 3]
