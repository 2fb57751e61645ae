import os
import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from gmmas_data.layouts import read_case
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import Weights
from gmmas_schema.calibration import Calibration, HeadCalibration
from gmmas_schema.errors import DataError, ModelError, ReasonCode
from gmmas_schema.inference import Flip, InferencePlan
from gmmas_schema.model import ModelDefinition
from gmmas_schema.trained_parts import HEADS, TrainedParts
from gmmas_schema.vocabulary import ENHANCING, MODALITIES, NECROSIS, REGIONS, SUBTYPES, Layout, Modality, Region, Subtype, Task
from gmmas_workflows.inference import predict_case, readable_modalities
from gmmas_workflows.prediction_files import write_prediction
from tests.gmmas_workflows.predictions import CASE, weights_of

WITHOUT_T1CE = tuple(m for m in MODALITIES if m is not Modality.T1CE)


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


def _with_patch(weights: Weights, patch: tuple[int, int, int]) -> Weights:
    grid = weights.definition.grid.model_copy(update={"patch": patch})
    return replace(weights, definition=weights.definition.model_copy(update={"grid": grid}))


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
    both = predict_case(CASE, weights, plan=InferencePlan(flip=Flip.LEFT_RIGHT))
    assert both.findings.probability[Task.IDH] != prediction.findings.probability[Task.IDH]
    assert sum(both.findings.subtype.values()) == pytest.approx(1)
    assert np.abs(both.probability_RIJK - prediction.probability_RIJK).max() > 0.01


def test_a_patch_as_large_as_the_box_changes_nothing(weights, prediction) -> None:
    same = predict_case(CASE, _with_patch(weights, (24, 24, 24)))
    np.testing.assert_array_equal(same.probability_RIJK, prediction.probability_RIJK)
    assert same.findings.probability == prediction.findings.probability


def test_windows_say_about_the_same_as_the_whole_box(weights, prediction) -> None:
    seen: list[tuple[int, int]] = []
    windows = predict_case(CASE, _with_patch(weights, (16, 24, 16)), on_progress=lambda *at: seen.append(at))
    assert seen == [(done, 4) for done in range(1, 5)]
    assert 0 < np.abs(windows.probability_RIJK - prediction.probability_RIJK).mean() < 0.1
    assert windows.findings.volume_ml[Region.WT] == pytest.approx(prediction.findings.volume_ml[Region.WT], rel=0.3)


@pytest.mark.parametrize(("overlap", "windows"), [(0.0, 3), (0.5, 5), (0.75, 9)])
def test_more_overlap_is_more_windows(overlap, windows, weights) -> None:
    seen: list[tuple[int, int]] = []
    predict_case(CASE, _with_patch(weights, (8, 24, 24)), plan=InferencePlan(overlap=overlap), on_progress=lambda *at: seen.append(at))
    assert seen[-1] == (windows, windows)


def test_temperatures_of_the_weights_go_in_before_mirror_images_are_averaged(weights) -> None:
    heads = {Task.IDH: HeadCalibration(temperature=1e6), Region.WT: HeadCalibration(temperature=1e6)}
    calibrated = replace(weights, calibration=Calibration(weights_sha256=weights.sha256, heads=heads))
    hot = predict_case(CASE, calibrated, plan=InferencePlan(flip=Flip.LEFT_RIGHT, passes=2))
    assert hot.findings.probability[Task.IDH] == pytest.approx(0.5, abs=1e-4)
    assert hot.findings.uncertainty.probability_std[Task.IDH] < 1e-4
    # The whole tumour is worth 0.5 wherever the grid reaches, which is nowhere above the threshold.
    assert hot.probability_RIJK[0].max() == np.float32(0.5)
    assert hot.findings.volume_ml[Region.WT] == 0
    assert hot.findings.uncertainty.region_std == {}


def test_uncertainty_comes_beside_the_prediction_and_repeats_with_the_seed(weights, prediction) -> None:
    plan = InferencePlan(passes=4)
    first, again = (predict_case(CASE, weights, plan=plan) for _ in range(2))
    other = predict_case(CASE, weights, plan=InferencePlan(passes=4, seed=1))
    np.testing.assert_array_equal(first.probability_RIJK, prediction.probability_RIJK)
    np.testing.assert_array_equal(first.uncertainty_IJK, again.uncertainty_IJK)
    assert first.findings.uncertainty == again.findings.uncertainty != other.findings.uncertainty
    assert first.findings.inference == plan
    assert prediction.findings.uncertainty is prediction.uncertainty_IJK is None
    summary = first.findings.uncertainty
    assert list(summary.region_std) == list(REGIONS)
    assert all(0 < std < 0.71 for std in (*summary.region_std.values(), *summary.probability_std.values()))
    assert summary.probability_std.keys() == first.findings.probability.keys()
    assert 0 <= first.uncertainty_IJK.min() < first.uncertainty_IJK.max() <= 1


def test_any_subset_of_sequences_goes_through_windows_and_passes(weights) -> None:
    cut = _with_patch(weights, (16, 16, 16))
    for modalities in ((Modality.T1CE,), (Modality.T1, Modality.FLAIR)):
        found = predict_case(CASE, cut, modalities=modalities, plan=InferencePlan(passes=2, flip=Flip.LEFT_RIGHT)).findings
        assert found.modalities_used == modalities
        assert sum(found.subtype.values()) == pytest.approx(1)


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


def test_weights_of_a_site_read_only_its_sequences(definition, weights) -> None:
    network = GmmasNetwork(definition.network, modalities=(Modality.T2, Modality.FLAIR))
    own = weights_of(network, weights.definition)
    assert readable_modalities(own) == (Modality.T2, Modality.FLAIR)
    assert predict_case(CASE, own).findings.modalities_used == (Modality.T2, Modality.FLAIR)
    with pytest.raises(DataError, match="not read by the model") as caught:
        predict_case(CASE, own, modalities=(Modality.T1, Modality.T2))
    assert caught.value.expected == "t2, flair, not t1"


def test_a_case_of_which_the_model_reads_nothing_is_refused(definition, weights, tmp_path) -> None:
    own = weights_of(GmmasNetwork(definition.network, modalities=(Modality.FLAIR,)), weights.definition)
    shutil.copy(CASE / "BraTS2021_00006_t2.nii.gz", tmp_path)
    with pytest.raises(DataError, match="no sequence that the model reads"):
        predict_case(tmp_path, own)


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


def test_a_sequence_that_nobody_trained_is_not_read(weights, tmp_path) -> None:
    own = replace(weights, trained=TrainedParts(modalities=WITHOUT_T1CE, heads=HEADS))
    assert readable_modalities(own) == WITHOUT_T1CE
    found = predict_case(CASE, own)
    assert (found.findings.modalities_used, found.findings.modalities_missing) == (WITHOUT_T1CE, (Modality.T1CE,))
    assert (found.findings.modalities_unread, found.findings.untrained) == ((Modality.T1CE,), ())
    for path in CASE.glob("*.nii.gz"):
        shutil.copy(path, tmp_path)
    shutil.copy(tmp_path / "BraTS2021_00006_t2.nii.gz", tmp_path / "BraTS2021_00006_t1ce.nii.gz")
    other, alone = predict_case(tmp_path, own), predict_case(CASE, weights, modalities=WITHOUT_T1CE)
    np.testing.assert_array_equal(found.probability_RIJK, other.probability_RIJK)
    np.testing.assert_array_equal(found.probability_RIJK, alone.probability_RIJK)
    assert found.findings.probability == other.findings.probability == alone.findings.probability
    with pytest.raises(DataError, match="never trained on it") as caught:
        predict_case(CASE, own, modalities=(Modality.T1CE, Modality.T2))
    assert caught.value.expected == "t1, t2, flair, not t1ce"
    assert "trained on this sequence" in caught.value.remedy


def test_what_nobody_taught_is_not_told(weights) -> None:
    own = replace(weights, trained=TrainedParts(modalities=MODALITIES, heads=(Region.WT, Region.TC, Task.CODELETION)))
    found = predict_case(CASE, own, plan=InferencePlan(passes=2))
    findings = found.findings
    assert findings.untrained == (Region.ET, Task.IDH, Task.CODELETION)
    whole = predict_case(CASE, weights)
    assert ENHANCING in whole.own_labels()
    np.testing.assert_array_equal(found.own_labels(), np.where(whole.own_labels() == ENHANCING, NECROSIS, whole.own_labels()))
    np.testing.assert_array_equal(found.probability_RIJK[:2], whole.probability_RIJK[:2])
    assert not found.probability_RIJK[REGIONS.index(Region.ET)].any()
    assert (set(findings.volume_ml), findings.probability, findings.subtype) == ({Region.WT, Region.TC}, {}, {})
    assert (set(findings.uncertainty.region_std), findings.uncertainty.probability_std) == ({Region.WT, Region.TC}, {})
    of_idh = replace(weights, trained=TrainedParts(modalities=MODALITIES, heads=(*REGIONS, Task.IDH)))
    told = predict_case(CASE, of_idh).findings
    assert (set(told.probability), told.subtype, told.untrained) == ({Task.IDH}, {}, (Task.CODELETION,))


def test_a_model_that_nobody_trained_predicts_nothing(weights) -> None:
    with pytest.raises(ModelError, match="nobody ever trained this model"):
        predict_case(CASE, replace(weights, trained=TrainedParts()))
