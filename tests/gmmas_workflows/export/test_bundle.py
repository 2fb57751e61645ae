import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pytest
import yaml

from gmmas_model.weights import Weights, load_weights
from gmmas_runtime.manifest import check_manifest
from gmmas_schema.calibration import Calibration, HeadCalibration
from gmmas_schema.errors import ModelError
from gmmas_schema.findings import Findings
from gmmas_schema.inference import Flip, InferencePlan
from gmmas_schema.manifest import CARD_FILE, CARD_TEXT
from gmmas_schema.model import GridConfig
from gmmas_schema.trained_parts import TrainedParts
from gmmas_schema.vocabulary import Modality, Region, Task
from gmmas_workflows.evaluation import THRESHOLD
from gmmas_workflows.export.bundle import verify, write_bundle
from gmmas_workflows.inference import PROBABILITY_DECIMALS, predict_case

ROOT = Path(__file__).parents[3]
CASE = ROOT / "tests" / "data" / "BraTS2021_00006"

CARD = {CARD_FILE: b"{}\n", CARD_TEXT: b"# Model card: glioma\n"}


@pytest.fixture(scope="module")
def bundle(weights, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "glioma"
    folder.mkdir()
    write_bundle(folder, weights, name="glioma", documents=CARD)
    return folder


@pytest.fixture
def metadata(bundle) -> dict:
    return json.loads((bundle / "configs" / "metadata.json").read_text())


def run_monai(bundle: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run MONAI's own command line inside the bundle, as its model card says; with no way out to a network."""
    blocked = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:1")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | blocked
    command = [sys.executable, "-m", "monai.bundle", *arguments]
    return subprocess.run(command, cwd=bundle, env=environment, capture_output=True, text=True, timeout=200, check=False)


def run_bundle(bundle: Path, output: Path, monkeypatch, **options: object) -> None:
    """Run a bundle through MONAI's API, in this process."""
    with warnings.catch_warnings():
        # MONAI warns that a configuration is code.
        warnings.simplefilter("ignore")
        from monai.bundle import ConfigWorkflow

        overrides = {"bundle_root": str(bundle), "dataset_dir": str(CASE), "output_dir": str(output), "device": "cpu"}
        file = str(bundle / "configs" / "inference.yaml")
        monkeypatch.setattr(sys, "path", list(sys.path))
        workflow = ConfigWorkflow(config_file=file, workflow_type="inference", logging_file=False, **overrides, **options)
        workflow.initialize()
        assert workflow.check_properties() == []
        workflow.run()
        workflow.finalize()


def same(prediction, output: Path) -> None:
    """Compare what a bundle wrote with what predict_case says.

    Another process may add up in another order, so that a probability that is a half but for its last digit falls on the other side.
    """
    name = prediction.case.case_id
    written = nib.load(output / name / f"{name}_segmentation.nii.gz")
    parent_RIJK = np.concatenate([np.ones_like(prediction.probability_RIJK[:1]), prediction.probability_RIJK[:-1]])
    decided_IJK = (np.abs(prediction.probability_RIJK - THRESHOLD * parent_RIJK) > 2.5 * 10**-PROBABILITY_DECIMALS).all(0)
    assert decided_IJK.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(written.dataobj)[decided_IJK], prediction.segmentation_IJK[decided_IJK])
    np.testing.assert_allclose(written.affine, prediction.affine, atol=1e-5)
    assert written.get_data_dtype() == np.uint8
    said = json.loads((output / name / f"{name}_markers.json").read_text())
    findings: Findings = prediction.findings
    assert said["probability"] == pytest.approx({str(t): p for t, p in findings.probability.items()}, abs=1e-6)
    assert said["subtype"] == pytest.approx({str(s): p for s, p in findings.subtype.items()}, abs=1e-6)


@pytest.mark.slow  # the same through its API is below
def test_monais_command_line_writes_what_predict_writes(bundle, weights, tmp_path) -> None:
    done = run_monai(bundle, "run", "--config_file", "configs/inference.yaml", "--dataset_dir", str(CASE), "--output_dir", str(tmp_path))
    assert done.returncode == 0, done.stderr
    prediction = predict_case(CASE, weights)
    assert len(np.unique(prediction.segmentation_IJK)) == 4
    same(prediction, tmp_path)


def test_windows_temperatures_and_mirror_images_through_monais_api(weights, tmp_path, monkeypatch) -> None:
    bundle, output = tmp_path / "patches", tmp_path / "output"
    bundle.mkdir()
    grid = GridConfig(spacing_mm=8.0, shape=(24, 24, 24), patch=(16, 16, 16))
    heads = {Region.ET: HeadCalibration(temperature=3.0), Task.IDH: HeadCalibration(temperature=2.0)}
    own = replace(
        weights,
        definition=weights.definition.model_copy(update={"grid": grid}),
        calibration=Calibration(weights_sha256=weights.sha256, heads=heads),
    )
    write_bundle(bundle, own, name="patches")
    run_bundle(bundle, output, monkeypatch, modalities=["flair", "t2"], flip="lr")
    prediction = predict_case(CASE, own, modalities=(Modality.T2, Modality.FLAIR), plan=InferencePlan(flip=Flip.LEFT_RIGHT))
    plain = predict_case(CASE, weights, modalities=(Modality.T2, Modality.FLAIR))
    assert (prediction.segmentation_IJK != plain.segmentation_IJK).any()
    same(prediction, output)
    assert "temperatures per head" in (bundle / "docs" / "README.md").read_text()
    assert "in windows of 16 x 16 x 16" in (bundle / "docs" / "README.md").read_text()


def test_a_bundle_of_what_nobody_trained_says_so_and_writes_none_of_it(weights, tmp_path, monkeypatch) -> None:
    bundle, output = tmp_path / "half", tmp_path / "output"
    bundle.mkdir()
    read = (Modality.T1, Modality.T2, Modality.FLAIR)
    own = replace(weights, trained=TrainedParts(modalities=read, heads=(Region.WT, Region.TC, Task.CODELETION)))
    write_bundle(bundle, own, name="half")
    formats = json.loads((bundle / "configs" / "metadata.json").read_text())["network_data_format"]
    assert list(formats["inputs"]["image"]["channel_def"].values()) == ["T1", "T1ce (not read)", "T2", "FLAIR"]
    assert formats["outputs"]["idh"]["channel_def"] == {"0": "IDH mutant (never trained: means nothing)"}
    assert "never trained" in formats["outputs"]["subtype"]["channel_def"]["2"]
    assert ["never trained" in name for name in formats["outputs"]["pred"]["channel_def"].values()] == [False, False, True]
    card = (bundle / "docs" / "README.md").read_text()
    assert "It reads T1, T2 and FLAIR" in card
    assert "never trained on T1ce, which it does not read" in card
    assert "never trained on labels of enhancing tumour (ET), IDH status and 1p/19q status" in card
    run_bundle(bundle, output, monkeypatch)
    prediction = predict_case(CASE, own)
    assert prediction.findings.modalities_used == read
    same(prediction, output)


def test_the_metadata_pass_and_faulty_ones_do_not(bundle, metadata, tmp_path) -> None:
    verify(bundle)
    schema = json.loads((bundle / "docs" / "metadata_schema.json").read_text())
    jsonschema.Draft201909Validator.check_schema(schema)
    (tmp_path / "configs").mkdir()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "metadata_schema.json").write_text(json.dumps(schema))

    def refused(faulty: dict) -> None:
        (tmp_path / "configs" / "metadata.json").write_text(json.dumps(faulty))
        with pytest.raises(ModelError, match="MONAI refuses"):
            verify(tmp_path)

    for key in schema["required"]:
        # Without its address MONAI does not even look for a schema.
        refused({name: value for name, value in metadata.items() if name != key})
    tensor = metadata["network_data_format"]["inputs"]["image"]
    for key in schema["$defs"]["tensor"]["required"]:
        tensors = {"image": {name: value for name, value in tensor.items() if name != key}}
        refused(metadata | {"network_data_format": metadata["network_data_format"] | {"inputs": tensors}})
    refused(metadata | {"version": 1})
    refused(metadata | {"pytorch_version": "2.13.0+cpu"})


def test_the_metadata_say_what_goes_in_and_out(metadata, weights) -> None:
    inputs, outputs = metadata["network_data_format"]["inputs"], metadata["network_data_format"]["outputs"]
    assert inputs["image"]["spatial_shape"] == [24, 24, 24]
    assert list(inputs["image"]["channel_def"].values()) == ["T1", "T1ce", "T2", "FLAIR"]
    assert list(outputs) == ["pred", "idh", "codeletion", "subtype"]
    assert metadata["required_packages_version"]["gmmas-fed"] == version("gmmas-fed")
    assert metadata["changelog"][metadata["version"]].endswith(weights.sha256)


def test_nothing_in_a_bundle_is_a_pickle_and_the_card_is_filled(bundle, weights: Weights) -> None:
    names = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert names == {
        *("LICENSE", "configs/inference.yaml", "configs/metadata.json", "docs/README.md", "docs/metadata_schema.json"),
        *("models/manifest.json", "models/model.json", "models/model.safetensors"),
        *(f"{place}/{name}" for place in ("docs", "models") for name in CARD),
    }
    assert (bundle / "docs" / CARD_TEXT).read_bytes() == CARD[CARD_TEXT]
    assert set(check_manifest(bundle / "models").manifest.files) >= set(CARD)
    assert load_weights(bundle / "models").sha256 == weights.sha256
    card = (bundle / "docs" / "README.md").read_text()
    assert "$" not in card
    for words in (
        weights.sha256,
        "`docs/model-card.md`",
        "round 3, run trial",
        "24 x 24 x 24 voxels of 8 mm",
        "safetensors",
        "Not a medical device",
    ):
        assert words in card
    assert (bundle / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()
    assert "gmmas_model.weights.load_weights" in yaml.safe_load((bundle / "configs" / "inference.yaml").read_text())["weights"]["_target_"]
