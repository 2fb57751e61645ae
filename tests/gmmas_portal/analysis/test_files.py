from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gmmas_data.volumes import read_image
from gmmas_portal.analysis import Analysis, mask_digest, read_frame, read_mask, read_record, write_analysis, write_mask
from gmmas_schema.errors import DataError
from tests.gmmas_workflows.predictions import CASE


@pytest.fixture(scope="module")
def folder(analysis: Analysis, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("analyses") / "one"
    write_analysis(analysis, target)
    return target


def test_an_analysis_is_read_as_it_was_written(analysis: Analysis, folder: Path) -> None:
    assert read_record(folder) == analysis.record
    assert read_frame(folder) == analysis.frame
    labels = read_mask(folder / "segmentation.nii.gz", analysis.frame)
    assert mask_digest(labels) == analysis.record.segmentation.sha256
    for place, region in enumerate(("wt", "tc", "et")):
        assert np.array_equal(read_image(folder / f"probability_{region}.nii.gz").values_XYZ, analysis.probability_RIJK[place])
    assert np.array_equal(read_image(folder / "uncertainty.nii.gz").values_XYZ, analysis.uncertainty_IJK)
    assert (folder / "montage.png").read_bytes().startswith(b"\x89PNG")


def test_masks_lie_where_the_images_lie(folder: Path) -> None:
    ours, theirs = nib.load(folder / "segmentation.nii.gz"), nib.load(CASE / "BraTS2021_00006_flair.nii.gz")
    assert ours.shape == theirs.shape
    assert ours.affine == pytest.approx(theirs.affine)
    assert ours.header["descrip"].item() == b""


def test_a_folder_that_is_there_is_not_written_over(analysis: Analysis, folder: Path) -> None:
    with pytest.raises(OSError, match=r"not empty|exists"):
        write_analysis(analysis, folder)
    assert read_record(folder) == analysis.record
    assert [path.name for path in folder.parent.iterdir()] == ["one"]


def test_a_mask_that_a_person_saved_is_read(analysis: Analysis, tmp_path: Path) -> None:
    labels = np.zeros(analysis.frame.shape, dtype=np.uint8)
    labels[10:20, 10:20, 10:20] = 2
    nib.save(nib.Nifti1Image(labels.astype(np.float32), analysis.frame.affine_array), tmp_path / "drawn.nii")
    assert np.array_equal(read_mask(tmp_path / "drawn.nii", analysis.frame), labels)


def test_a_mask_elsewhere_or_of_other_values_is_refused(analysis: Analysis, tmp_path: Path) -> None:
    labels = np.zeros(analysis.frame.shape, dtype=np.uint8)
    shifted = analysis.frame.affine_array
    shifted[0, 3] += 1
    nib.save(nib.Nifti1Image(labels, shifted), tmp_path / "shifted.nii.gz")
    with pytest.raises(DataError, match="grid"):
        read_mask(tmp_path / "shifted.nii.gz", analysis.frame)
    nib.save(nib.Nifti1Image(labels[:-1], analysis.frame.affine_array), tmp_path / "cut.nii.gz")
    with pytest.raises(DataError, match="grid"):
        read_mask(tmp_path / "cut.nii.gz", analysis.frame)
    write_mask(tmp_path / "four.nii.gz", labels + 4, analysis.frame)
    with pytest.raises(DataError, match="label"):
        read_mask(tmp_path / "four.nii.gz", analysis.frame)


@pytest.mark.parametrize("name", ["record.json", "frame.json"])
def test_a_damaged_analysis_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{")
    read = read_record if name == "record.json" else read_frame
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)
