import json
import shutil
from pathlib import Path

import nibabel as nib
import pytest

from gmmas_cli.main import run_program
from gmmas_model.weights import load_weights, save_calibration
from gmmas_schema.calibration import Abstention, Calibration, HeadCalibration
from gmmas_schema.vocabulary import Modality, Task

CASE = Path(__file__).parents[1] / "data" / "BraTS2021_00006"


def test_predict_writes_a_folder_and_tells_what_it_found(weights_folder, tmp_path, capsys) -> None:
    out = tmp_path / "deep" / "out"
    arguments = ["predict", str(CASE), "--model", str(weights_folder), "--out", str(out), "--modalities", "flair, T2", "--threads", "1"]
    assert run_program(arguments) == 0
    shown = capsys.readouterr().out
    for words in ("whole tumour (WT)", "P(IDH mutant)", "t2, flair", "t1, t1ce", "Research use only", str(out)):
        assert words in shown
    findings = json.loads((out / "findings.json").read_text())
    assert findings["modalities_used"] == [Modality.T2, Modality.FLAIR]
    assert nib.load(out / "segmentation.nii.gz").shape == nib.load(CASE / "BraTS2021_00006_t1.nii.gz").shape

    before = (out / "findings.json").read_bytes()
    assert run_program(arguments) == 1
    assert "--force" in capsys.readouterr().err
    assert (out / "findings.json").read_bytes() == before
    assert run_program([*arguments, "--force", "--flip", "lr", "--uncertainty", "--overlap", "0.25"]) == 0
    shown = capsys.readouterr().out
    assert "mean spread in WT" in shown
    assert " ± " in shown
    findings = json.loads((out / "findings.json").read_text())
    assert findings["inference"] == {"flip": "lr", "overlap": 0.25, "passes": 8, "dropout": 0.2, "seed": 0}
    assert (out / "uncertainty.nii.gz").is_file()


def test_a_marker_is_left_open_with_its_reason(weights_folder, tmp_path, capsys) -> None:
    calibrated = tmp_path / "calibrated"
    shutil.copytree(weights_folder, calibrated)
    doubtful = Abstention(rule="below", threshold=1.0, note="only certainty will do")
    heads = {Task.IDH: HeadCalibration(temperature=2.0, abstention=doubtful), Task.CODELETION: HeadCalibration(abstention=Abstention())}
    save_calibration(calibrated, Calibration(weights_sha256=load_weights(calibrated).sha256, heads=heads))
    options = ["--modalities", "flair", "--threads", "1"]
    found = {}
    for model in (weights_folder, calibrated):
        assert run_program(["predict", str(CASE), "--model", str(model), "--out", str(tmp_path / model.name / "out"), *options]) == 0
        found[model] = json.loads((tmp_path / model.name / "out" / "findings.json").read_text()), capsys.readouterr().out
    raw, words = found[weights_folder]
    assert (raw["calibrated"], raw["abstained"]) == (False, {})
    assert "left open" not in words
    hot, words = found[calibrated]
    assert hot["calibrated"]
    assert list(hot["abstained"]) == ["idh"]
    assert "is below 1.00; only certainty will do" in " ".join(words.split())
    assert "IDH is left open" in words
    odds = [content["probability"]["idh"] / (1 - content["probability"]["idh"]) for content in (raw, hot)]
    assert odds[1] ** 2 == pytest.approx(odds[0], rel=1e-4)
    # Confidence changed, the outline did not.
    assert hot["volume_ml"]["wt"] == pytest.approx(raw["volume_ml"]["wt"], rel=1e-6)


@pytest.mark.parametrize(
    ("case", "options", "code", "message"),
    [
        ("nowhere", [], 1, "the data folder cannot be read"),
        (".", ["--modalities", "pet"], 2, "pet is none of t1, t1ce, t2, flair"),
        (".", ["--model", "nowhere"], 1, "weights cannot be read"),
        (".", ["--flip", "up"], 2, "'up' is not one of"),
        (".", ["--overlap", "1"], 2, "1.0 is not in the range"),
        (".", ["--model", "models:/gmmas@best"], 1, "no MLflow store"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(case, options, code, message, weights_folder, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    out = tmp_path / "out"
    arguments = ["predict", str(CASE / case), "--model", str(weights_folder), "--out", str(out), *options]
    assert run_program(arguments) == code
    shown = " ".join(capsys.readouterr().err.split())
    assert message in shown
    assert "Traceback" not in shown
    assert list(tmp_path.iterdir()) == []


def test_what_nobody_trained_is_said_and_not_told(half_trained, tmp_path, capsys) -> None:
    out, options = tmp_path / "out", ["--model", str(half_trained), "--threads", "1"]
    assert run_program(["predict", str(CASE), "--out", str(out), *options]) == 0
    shown = capsys.readouterr().out
    rows = {line.strip().rpartition("  ")[0].strip(): line.strip().rpartition("  ")[2].strip() for line in shown.splitlines()}
    untold = ("enhancing tumour (ET)", "P(1p/19q codeleted)", "P(glioblastoma)", "P(astrocytoma)", "P(oligodendroglioma)")
    assert {rows[name] for name in untold} == {"not trained"}
    assert rows["whole tumour (WT)"].endswith(" ml")
    assert 0 <= float(rows["P(IDH mutant)"]) <= 1
    assert (rows["sequences used"], rows["of these there, but not read"]) == ("t1, t2, flair", "t1ce")
    assert "never trained on t1ce, and does not read it" in shown
    assert "never trained on ET, 1p/19q, and does not tell it" in shown
    findings = json.loads((out / "findings.json").read_text())
    assert (findings["untrained"], list(findings["probability"]), findings["subtype"]) == (["et", "codeletion"], ["idh"], {})
    assert run_program(["predict", str(CASE), "--out", str(tmp_path / "other"), "--modalities", "t1ce,t2", *options]) == 1
    assert "never trained on it" in " ".join(capsys.readouterr().err.split())
