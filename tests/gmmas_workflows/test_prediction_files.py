import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gmmas_schema.errors import ConfigError
from gmmas_schema.findings import Findings
from gmmas_schema.inference import InferencePlan
from gmmas_schema.vocabulary import REGIONS, Region
from gmmas_workflows.evaluation import threshold
from gmmas_workflows.inference import predict_case
from gmmas_workflows.prediction_files import write_prediction
from tests.gmmas_workflows.predictions import CASE

FILES = {"segmentation.nii.gz", "probability_wt.nii.gz", "probability_tc.nii.gz", "probability_et.nii.gz", "findings.json", "overview.png"}


@pytest.fixture(scope="module")
def written(prediction, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "case"
    write_prediction(prediction, folder)
    return folder


def test_files_lie_on_the_cases_own_grid(written) -> None:
    assert {path.name for path in written.iterdir()} == FILES
    source = nib.load(CASE / "BraTS2021_00006_t1.nii.gz")
    for name in (name for name in FILES if name.endswith(".nii.gz")):
        image = nib.load(written / name)
        assert image.shape == source.shape
        np.testing.assert_array_equal(image.affine, source.affine)
        for form in ("get_sform", "get_qform"):
            (matrix, code), (own_matrix, own_code) = (getattr(one.header, form)(coded=True) for one in (source, image))
            assert own_code == code
            if code:
                np.testing.assert_array_equal(own_matrix, matrix)
        assert image.header.get_xyzt_units() == source.header.get_xyzt_units()
        assert image.header.get_slope_inter() in {(1.0, 0.0), (None, None)}


def test_no_map_is_written_of_a_region_that_nobody_trained(prediction, tmp_path) -> None:
    findings = prediction.findings.model_copy(update={"untrained": (Region.ET,)})
    write_prediction(replace(prediction, findings=findings), tmp_path / "case")
    assert FILES - {path.name for path in (tmp_path / "case").iterdir()} == {"probability_et.nii.gz"}


def test_labels_regions_and_volumes_agree(written) -> None:
    labels = np.asarray(nib.load(written / "segmentation.nii.gz").dataobj)
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {0, 1, 2, 4}
    probabilities = [np.asarray(nib.load(written / f"probability_{region}.nii.gz").dataobj) for region in REGIONS]
    assert all(p.dtype == np.float32 and p.min() >= 0 and p.max() <= 1 for p in probabilities)
    assert all((inner <= outer).all() for outer, inner in pairwise(probabilities))
    members = {Region.WT: (1, 2, 4), Region.TC: (1, 4), Region.ET: (4,)}
    findings = Findings.model_validate_json((written / "findings.json").read_bytes())
    voxel_ml = abs(np.linalg.det(nib.load(written / "segmentation.nii.gz").affine[:3, :3])) / 1000
    outlines = threshold(np.stack(probabilities))
    for region, outline in zip(REGIONS, outlines, strict=True):
        mask = np.isin(labels, members[region])
        np.testing.assert_array_equal(mask, outline)
        assert findings.volume_ml[region] == pytest.approx(mask.sum() * voxel_ml)
    assert findings.volume_ml[Region.WT] > findings.volume_ml[Region.TC] > findings.volume_ml[Region.ET] > 0


def test_uncertainty_is_a_file_of_its_own(weights, tmp_path) -> None:
    prediction = predict_case(CASE, weights, plan=InferencePlan(passes=2))
    write_prediction(prediction, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES | {"uncertainty.nii.gz"}
    image, labels = nib.load(tmp_path / "out" / "uncertainty.nii.gz"), nib.load(tmp_path / "out" / "segmentation.nii.gz")
    np.testing.assert_array_equal(image.affine, labels.affine)
    values = np.asarray(image.dataobj)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, prediction.uncertainty_IJK)
    assert Findings.model_validate_json((tmp_path / "out" / "findings.json").read_bytes()) == prediction.findings


def test_free_text_of_the_header_is_not_copied(weights, tmp_path) -> None:
    source = nib.load(CASE / "BraTS2021_00006_flair.nii.gz")
    header = source.header.copy()
    header["descrip"], header["intent_name"], header["aux_file"] = b"JANE DOE", b"DOE", b"doe.txt"
    header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"born 1970"))
    (tmp_path / "case").mkdir()
    nib.save(nib.Nifti1Image(np.asarray(source.dataobj), None, header), tmp_path / "case" / "X_flair.nii.gz")
    write_prediction(predict_case(tmp_path / "case", weights), tmp_path / "out")
    image = nib.load(tmp_path / "out" / "segmentation.nii.gz")
    assert not image.header.extensions
    assert b"DOE" not in image.header.binaryblock.upper()
    np.testing.assert_array_equal(image.affine, source.affine)


def test_nothing_is_replaced_without_leave(prediction, written, tmp_path) -> None:
    before = (written / "findings.json").read_bytes()
    with pytest.raises(ConfigError, match="--force"):
        write_prediction(prediction, written)
    assert (written / "findings.json").read_bytes() == before
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="something that is not a prediction"):
        write_prediction(prediction, other, overwrite=True)
    assert (other / "chapter.txt").exists()


def test_an_earlier_prediction_is_replaced_as_a_whole(prediction, tmp_path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    write_prediction(prediction, folder)
    (folder / "stale.nii.gz").write_bytes(b"")
    write_prediction(replace(prediction, findings=prediction.findings.model_copy(update={"case": "again"})), folder, overwrite=True)
    assert {path.name for path in folder.iterdir()} == FILES
    assert json.loads((folder / "findings.json").read_text())["case"] == "again"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_failure_leaves_nothing_behind(prediction, tmp_path, monkeypatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gmmas_workflows.prediction_files.overview", fail)
    with pytest.raises(OSError, match="No space"):
        write_prediction(prediction, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
