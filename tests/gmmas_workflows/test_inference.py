import json
import os
import resource
import shutil
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from gmmas_data.layouts import read_case
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import Weights
from gmmas_schema.errors import ConfigError, DataError, ReasonCode
from gmmas_schema.findings import Findings
from gmmas_schema.model import GridConfig, ModelDefinition
from gmmas_schema.vocabulary import MODALITIES, REGIONS, SUBTYPES, Layout, Modality, Region, Subtype, Task
from gmmas_workflows.inference import predict_case, readable_modalities, write_prediction

CASE = Path(__file__).parents[1] / "data" / "BraTS2021_00006"
FILES = {"segmentation.nii.gz", "probability_wt.nii.gz", "probability_tc.nii.gz", "probability_et.nii.gz", "findings.json", "overview.png"}


def weights_of(network: GmmasNetwork, definition: ModelDefinition) -> Weights:
    tensors = {name: tensor.detach().numpy().copy() for name, tensor in network.state_dict().items()}
    return Weights(tensors, definition, sha256="ab" * 32)


@pytest.fixture(scope="module")
def weights(definition) -> Weights:
    """Random weights with a prior that lets every region appear."""
    grid = definition.model_copy(update={"grid": GridConfig(spacing_mm=8.0, shape=(24, 24, 24))})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        network = GmmasNetwork(grid.network)
    with torch.no_grad():
        network.heads[Task.SEGMENTATION].bias.fill_(1.5)
        network.heads[Task.SEGMENTATION].weight.mul_(3)
    return weights_of(network, grid)


@pytest.fixture(scope="module")
def prediction(weights):
    return predict_case(CASE, weights, device="cpu")


@pytest.fixture(scope="module")
def written(prediction, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "case"
    write_prediction(prediction, folder)
    return folder


def _shift(file: Path) -> None:
    image = nib.load(file)
    affine = image.affine.copy()
    affine[0, 3] += 10
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), file)


def _set_nan(file: Path) -> None:
    image = nib.load(file)
    values = image.get_fdata(dtype=np.float32)
    values[5, 5, 5] = np.nan
    nib.save(nib.Nifti1Image(values, image.affine), file)


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
    for region, probability in zip(REGIONS, probabilities, strict=True):
        mask = np.isin(labels, members[region])
        np.testing.assert_array_equal(mask, probability > 0.5)
        assert findings.volume_ml[region] == pytest.approx(mask.sum() * voxel_ml)
    assert findings.volume_ml[Region.WT] > findings.volume_ml[Region.TC] > findings.volume_ml[Region.ET] > 0


def test_findings_obey_who_cns5_and_name_their_origin(prediction, weights) -> None:
    findings = prediction.findings
    assert sum(findings.subtype.values()) == pytest.approx(1)
    assert findings.subtype[Subtype.GLIOBLASTOMA] == pytest.approx(1 - findings.probability[Task.IDH])
    assert findings.subtype[Subtype.OLIGODENDROGLIOMA] == pytest.approx(findings.probability[Task.CODELETION])
    assert tuple(findings.subtype) == SUBTYPES
    assert findings.case == "BraTS2021_00006"
    assert (findings.modalities_used, findings.modalities_missing) == (MODALITIES, ())
    assert (findings.model_digest, findings.weights_sha256) == (weights.definition.digest(), weights.sha256)
    assert findings.software.startswith("gmmas-fed ")


def test_a_subset_of_sequences_uses_only_these(weights, tmp_path) -> None:
    wanted = predict_case(CASE, weights, modalities=(Modality.FLAIR, Modality.T2))
    for name in ("t2", "flair"):
        shutil.copy(CASE / f"BraTS2021_00006_{name}.nii.gz", tmp_path)
    alone = predict_case(tmp_path, weights)
    assert wanted.findings.modalities_used == alone.findings.modalities_used == (Modality.T2, Modality.FLAIR)
    assert wanted.findings.modalities_missing == (Modality.T1, Modality.T1CE)
    np.testing.assert_array_equal(wanted.probability_RIJK, alone.probability_RIJK)


def test_flip_averages_with_the_mirror_image(weights, prediction) -> None:
    both = predict_case(CASE, weights, flip=True)
    assert both.findings.probability[Task.IDH] != prediction.findings.probability[Task.IDH]
    assert sum(both.findings.subtype.values()) == pytest.approx(1)
    assert np.abs(both.probability_RIJK - prediction.probability_RIJK).max() > 0.01


def test_a_segmentation_of_the_case_is_not_read(weights, prediction, tmp_path) -> None:
    for path in CASE.glob("*.nii.gz"):
        shutil.copy(path, tmp_path)
    (tmp_path / "BraTS2021_00006_seg.nii.gz").write_bytes(b"not an image")
    again = predict_case(tmp_path, weights)
    np.testing.assert_array_equal(again.segmentation_IJK, prediction.segmentation_IJK)


def test_labels_follow_the_layout(weights, tmp_path) -> None:
    for theirs, ours in (("t1n", "t1"), ("t1c", "t1ce"), ("t2w", "t2"), ("t2f", "flair")):
        shutil.copy(CASE / f"BraTS2021_00006_{ours}.nii.gz", tmp_path / f"BraTS-GLI-00006-000-{theirs}.nii.gz")
    prediction = predict_case(tmp_path, weights)
    assert prediction.case.layout is Layout.BRATS2023
    assert set(np.unique(prediction.segmentation_IJK)) == {0, 1, 2, 3}


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


def test_weights_of_a_site_read_only_its_sequences(definition, weights) -> None:
    network = GmmasNetwork(definition.network, modalities=(Modality.T2, Modality.FLAIR))
    own = weights_of(network, weights.definition)
    assert readable_modalities(own) == (Modality.T2, Modality.FLAIR)
    assert predict_case(CASE, own).findings.modalities_used == (Modality.T2, Modality.FLAIR)
    with pytest.raises(DataError, match="no sequence that the model reads"):
        predict_case(CASE, own, modalities=(Modality.T1,))


def test_a_wanted_sequence_that_is_missing_is_named(weights, tmp_path) -> None:
    shutil.copy(CASE / "BraTS2021_00006_t2.nii.gz", tmp_path)
    with pytest.raises(DataError, match="asked for is not there") as caught:
        predict_case(tmp_path, weights, modalities=(Modality.T2, Modality.T1CE))
    assert caught.value.expected == "t1ce"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:20_000]), ReasonCode.DATA_UNREADABLE),
        (lambda file: file.write_bytes(b""), ReasonCode.DATA_UNREADABLE),
        (_shift, ReasonCode.DATA_GRID),
        (_set_nan, ReasonCode.DATA_NOT_FINITE),
    ],
)
def test_bad_scans_are_refused(spoil, code, weights, tmp_path) -> None:
    for name in ("t1", "flair"):
        shutil.copy(CASE / f"BraTS2021_00006_{name}.nii.gz", tmp_path)
    spoil(tmp_path / "BraTS2021_00006_flair.nii.gz")
    with pytest.raises(DataError) as caught:
        predict_case(tmp_path, weights)
    assert caught.value.code is code


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

    monkeypatch.setattr("gmmas_workflows.inference.overview", fail)
    with pytest.raises(OSError, match="No space"):
        write_prediction(prediction, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real_data
def test_a_real_case_of_full_size_takes_seconds_and_little_memory(tmp_path) -> None:
    root = os.environ.get("GMMAS_REAL_DATA")
    if not root:
        pytest.skip("GMMAS_REAL_DATA names no folder with brats2021-00006/")
    definition = ModelDefinition()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        weights = weights_of(GmmasNetwork(definition.network), definition)
    start = time.process_time()
    prediction = predict_case(read_case(Path(root) / "brats2021-00006"), weights)
    write_prediction(prediction, tmp_path / "out")
    assert time.process_time() - start < 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20 < 3
    assert prediction.segmentation_IJK.shape == (240, 240, 155)
