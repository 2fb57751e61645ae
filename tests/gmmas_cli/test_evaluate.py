import json
import shutil
from pathlib import Path

import pytest

from gmmas_cli.evaluate import mean_dice
from gmmas_cli.main import run_program
from gmmas_model.weights import load_weights, save_calibration
from gmmas_runtime.keys import AUTHORITY_CERTIFICATE, make_authority
from gmmas_schema.calibration import Calibration, HeadCalibration
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.vocabulary import Region, Split, Task

CASE = Path(__file__).parents[1] / "data" / "BraTS2021_00006"


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """The committed case twice; the second with T1 alone; labels for the first."""
    root = tmp_path / "cohort"
    for patient, names in {"A": ("t1", "t1ce", "t2", "flair", "seg"), "B": ("t1", "seg")}.items():
        (root / patient).mkdir(parents=True)
        for name in names:
            shutil.copy(CASE / f"BraTS2021_00006_{name}.nii.gz", root / patient / f"{patient}_{name}.nii.gz")
    (root / "labels.csv").write_text("patient_id,idh,codeletion\nA,mutant,intact\n")
    return root


def test_evaluate_shows_a_table_and_writes_json(cohort, weights_folder, tmp_path, capsys) -> None:
    out = tmp_path / "out.json"
    arguments = [
        "evaluate",
        str(cohort),
        "--model",
        str(weights_folder),
        "--labels",
        str(cohort / "labels.csv"),
        "--out",
        str(out),
        "--threads",
        "1",
    ]
    assert run_program(arguments) == 0
    shown = capsys.readouterr().out
    assert "Dice WT" in shown
    assert "nobody vouches for this model" in shown
    content = json.loads(out.read_text())
    assert [row["case"] for row in content["cases"]] == ["A", "B"]
    assert [row["idh"] for row in content["cases"]] == [True, None]
    assert content["evaluation"]["all there are"]["dice"]["wt"]["n"] == 2
    assert run_program(arguments) == 1
    assert "--force" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["evaluate", "significance"])
def test_an_authority_takes_no_model_that_it_has_not_signed(cohort, weights_folder, tmp_path, capsys, monkeypatch, command) -> None:
    make_authority(tmp_path / "authority", name="test")
    monkeypatch.setenv("GMMAS_AUTHORITY", str(tmp_path / "authority" / AUTHORITY_CERTIFICATE))
    assert run_program([command, str(cohort), "--model", str(weights_folder), "--out", str(tmp_path / "out"), "--threads", "1"]) == 1
    assert "E_TRUST" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_calibration_errors_are_reported_before_and_after(cohort, weights_folder, tmp_path, capsys) -> None:
    arguments = ["evaluate", str(cohort), "--labels", str(cohort / "labels.csv"), "--threads", "1", "--subsets", "all"]
    assert run_program([*arguments, "--model", str(weights_folder), "--out", str(tmp_path / "raw.json")]) == 0
    assert "never calibrated" in capsys.readouterr().out
    calibrated = tmp_path / "calibrated"
    shutil.copytree(weights_folder, calibrated)
    heads = {Region.WT: HeadCalibration(temperature=4.0, fitted=True, nll_after=0.2), Task.IDH: HeadCalibration(temperature=0.5)}
    save_calibration(calibrated, Calibration(weights_sha256=load_weights(calibrated).sha256, heads=heads))
    assert run_program([*arguments, "--model", str(calibrated), "--out", str(tmp_path / "hot.json")]) == 0
    raw, hot = (json.loads((tmp_path / name).read_text()) for name in ("raw.json", "hot.json"))
    before, after = (content["calibration"]["wt"]["error"]["this cohort"] for content in (raw, hot))
    assert before["patients"] == after["patients"] == 2
    assert before["before"] == before["after"] == after["before"] != after["after"]
    assert raw["calibration"]["idh"]["error"]["this cohort"]["patients"] == 1
    # What is used is what is scored.
    p_raw, p_hot = (content["cases"][0]["p_idh"] for content in (raw, hot))
    assert p_hot / (1 - p_hot) == pytest.approx((p_raw / (1 - p_raw)) ** 2, rel=1e-4)


def test_every_subset_is_scored_where_a_case_has_it(cohort, weights_folder, tmp_path, capsys) -> None:
    out = tmp_path / "out.json"
    assert (
        run_program(["evaluate", str(cohort), "--model", str(weights_folder), "--subsets", "all", "--out", str(out), "--threads", "1"]) == 0
    )
    assert "mean Dice over the subsets" in capsys.readouterr().out
    rows = json.loads(out.read_text())["evaluation"]
    assert len(rows) == 15
    assert {name: row["cases"] for name, row in rows.items()} == {name: 2 if name == "t1" else 1 for name in rows}
    assert set(json.loads(out.read_text())["mean_dice"]) == {"wt", "tc", "et"}


def test_a_bad_case_stops_or_is_left_out(cohort, weights_folder, capsys) -> None:
    (cohort / "B" / "B_t1.nii.gz").write_bytes(b"\x1f\x8b broken")
    assert run_program(["evaluate", str(cohort), "--model", str(weights_folder), "--threads", "1"]) == 1
    assert "B_t1.nii.gz" in capsys.readouterr().err
    assert run_program(["evaluate", str(cohort), "--model", str(weights_folder), "--skip-bad", "--threads", "1"]) == 0
    assert "left out B" in capsys.readouterr().out


def test_mean_dice_leaves_out_what_was_not_measured() -> None:
    known = Evaluation(split=Split.TEST, cases=1, dice={Region.WT: Interval(value=0.5, low=0, high=1, n=1), Region.TC: Interval()})
    rows = {"a": known, "b": known.model_copy(update={"dice": {Region.WT: Interval(value=0.7, low=0, high=1, n=1)}})}
    assert mean_dice(rows) == {"wt": pytest.approx(0.6)}


def test_what_nobody_trained_is_neither_shown_nor_scored(cohort, half_trained, tmp_path, capsys) -> None:
    out = tmp_path / "out.json"
    arguments = ["evaluate", str(cohort), "--labels", str(cohort / "labels.csv"), "--subsets", "all", "--threads", "1"]
    assert run_program([*arguments, "--model", str(half_trained), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "never trained on t1ce, and does not read it" in shown
    assert "never trained on ET, 1p/19q, and does not tell it" in shown
    content = json.loads(out.read_text())
    assert (content["modalities"], content["untrained"]) == (["t1", "t2", "flair"], ["et", "codeletion"])
    assert len(content["evaluation"]) == 7
    assert not any("t1ce" in name for name in content["evaluation"])
    assert set(content["mean_dice"]) == {"wt", "tc"}
    assert not {"et", "codeletion"} & set(content["calibration"])
    assert all(row["dice_et"] is None and "p_codeletion" not in row for row in content["cases"])
    assert content["cases"][0]["p_idh"] is not None
