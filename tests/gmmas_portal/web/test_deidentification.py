"""What names a patient in an upload is shown once and kept nowhere."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gmmas_data.volumes import read_image
from gmmas_portal.web.deidentification import preview_dicom, preview_nifti, write_clean_copy
from gmmas_schema.errors import DataError
from tests.gmmas_data.scans import LPS

NAME = "Doe^Jane"


def telling_nifti(path: Path, values: np.ndarray, affine: np.ndarray = LPS) -> Path:
    image = nib.Nifti1Image(values, affine)
    for field in ("descrip", "aux_file", "intent_name", "db_name"):
        image.header[field] = NAME.encode()
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", NAME.encode()))
    nib.save(image, path)
    return path


@pytest.mark.parametrize("kind", [np.int16, np.float32, np.uint8])
def test_a_clean_copy_has_the_voxels_and_not_the_name(tmp_path: Path, kind: type) -> None:
    values = np.random.default_rng(0).integers(0, 200, (6, 7, 8)).astype(kind) * (kind(0.37) if kind is np.float32 else kind(1))
    source = telling_nifti(tmp_path / f"{NAME}.nii", values)
    assert NAME.encode() in source.read_bytes()
    write_clean_copy(source, tmp_path / "clean.nii.gz")
    copy = nib.load(tmp_path / "clean.nii.gz")
    assert NAME.encode() not in copy.to_bytes()
    assert not copy.header.extensions
    np.testing.assert_array_equal(np.asarray(copy.dataobj), values)
    np.testing.assert_allclose(copy.affine, LPS)
    assert (tmp_path / "clean.nii.gz").stat().st_mode & 0o777 == 0o600


def test_scale_factors_are_applied(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(6 * 6 * 6, dtype=np.int16).reshape(6, 6, 6), LPS)
    image.header.set_slope_inter(0.5, 3)
    nib.save(image, tmp_path / "a.nii")
    write_clean_copy(tmp_path / "a.nii", tmp_path / "b.nii.gz")
    np.testing.assert_allclose(read_image(tmp_path / "b.nii.gz").values_XYZ, read_image(tmp_path / "a.nii").values_XYZ)


def test_a_broken_file_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(b"\x5c\x01\x00\x00" + b"rubbish" * 100)
    with pytest.raises(DataError):
        write_clean_copy(tmp_path / "a.nii", tmp_path / "b.nii.gz")
    assert not (tmp_path / "b.nii.gz").exists()


def test_the_preview_shows_what_a_nifti_header_says(tmp_path: Path) -> None:
    found = preview_nifti([telling_nifti(tmp_path / "jane.nii", np.zeros((4, 4, 4), np.int16))])
    told = {field.name: field.value for field in found.dropped}
    assert told["file name 1"] == "jane.nii"
    assert [told[f"{field} of file 1"] for field in ("descrip", "aux_file", "intent_name", "db_name")] == [NAME] * 4
    assert told["extensions of file 1"] == "1"


def test_the_preview_shows_what_a_dicom_header_says(tmp_path: Path) -> None:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    header = Dataset()
    header.PatientName, header.PatientID, header.PatientBirthDate, header.StudyDate = NAME, "4711", "19600101", "20260301"
    header.SeriesDescription, header.RepetitionTime, header.SOPInstanceUID = "t1 post", 1900.0, generate_uid()
    header.ImageComments = "x" * 300
    header.BurnedInAnnotation = "YES"
    header.add_new(0x00110010, "LO", "SECRET CREATOR")
    header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    found = preview_dicom(tmp_path / "a.dcm")
    dropped, kept = ({field.name: field.value for field in part} for part in (found.dropped, found.kept))
    assert (dropped["PatientName"], dropped["PatientID"], dropped["StudyDate"]) == (NAME, "4711", "20260301")
    assert "SeriesDescription" in kept
    assert set(kept) & set(dropped) == set()
    assert max(len(value) for value in dropped.values()) == 81
    assert any("1 private" in note for note in found.notes)
    assert any("burned" in note for note in found.notes)
