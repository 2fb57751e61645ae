import json
import shutil
from pathlib import Path

import pytest

from gmmas_cli.main import run_program

CASE = Path(__file__).parents[1] / "data" / "BraTS2021_00006"
NAMES = ("t1", "t1ce", "t2", "flair", "seg")


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """The committed case three times, once without T1; one mutant, one wildtype."""
    root = tmp_path / "cohort"
    for patient, names in {"A": NAMES, "B": NAMES, "C": NAMES[1:]}.items():
        (root / patient).mkdir(parents=True)
        for name in names:
            shutil.copy(CASE / f"BraTS2021_00006_{name}.nii.gz", root / patient / f"{patient}_{name}.nii.gz")
    (root / "labels.csv").write_text("patient_id,idh,codeletion\nA,mutant,intact\nB,wildtype,\nC,mutant,\n")
    return root


@pytest.fixture
def arguments(cohort: Path, weights_folder: Path, tmp_path: Path) -> list[str]:
    out = str(tmp_path / "out")
    return [
        "significance",
        str(cohort),
        "--model",
        str(weights_folder),
        "--labels",
        str(cohort / "labels.csv"),
        "--out",
        out,
        "--threads",
        "1",
    ]


def test_tables_json_and_picture(arguments, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    assert run_program(arguments) == 0
    shown = capsys.readouterr().out
    assert "Dice WT" in shown
    assert "AUC IDH" in shown
    assert "1 of 3 cases lack a sequence" in shown
    text = (tmp_path / "out" / "significance.json").read_text()
    result = json.loads(text)
    assert (result["cases"], result["left_out"], set(result["figures"])) == (2, 1, {"dice_wt", "dice_tc", "dice_et", "auc_idh"})
    for figure in result["figures"].values():
        assert len(figure["value"]) == 16
        step = figure["value"]["t1+t1ce+t2+flair"]["value"] - figure["value"]["nothing"]["value"]
        assert sum(interval["value"] for interval in figure["shapley"].values()) == pytest.approx(step)
    # Both cases hold the same scans, so no subset tells them apart.
    assert {interval["value"] for interval in result["figures"]["auc_idh"]["value"].values()} == {0.5}
    assert [level["spacing_mm"] for level in result["gates"]] == [8.0, 16.0]
    assert (tmp_path / "out" / "significance.png").stat().st_size > 10_000
    assert '"A"' not in text


def test_a_result_is_replaced_only_by_force_and_with_the_scores_there_are(arguments, tmp_path, capsys, monkeypatch) -> None:
    assert run_program(arguments) == 0
    first = (tmp_path / "out" / "significance.json").read_text()
    assert run_program(arguments) == 1
    assert "--force" in capsys.readouterr().err
    monkeypatch.setattr("gmmas_workflows.subset_scores.score_cases", lambda *_, **__: pytest.fail("scored again"))
    assert run_program([*arguments, "--force"]) == 0
    assert (tmp_path / "out" / "significance.json").read_text() == first


def test_other_folders_and_cohorts_without_labels_are_refused(arguments, cohort, tmp_path, capsys) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").touch()
    assert run_program(arguments) == 1
    assert "something that is not a measurement" in capsys.readouterr().err
    (tmp_path / "out" / "letter.txt").unlink()
    for segmentation in cohort.rglob("*_seg.nii.gz"):
        segmentation.unlink()
    without = [argument for argument in arguments if argument not in ("--labels", str(cohort / "labels.csv"))]
    assert run_program(without) == 1
    assert "no label to measure a model with" in capsys.readouterr().err


def test_a_bad_case_stops_or_is_left_out(arguments, cohort, tmp_path, capsys) -> None:
    (cohort / "B" / "B_t1.nii.gz").write_bytes(b"\x1f\x8b broken")
    assert run_program(arguments) == 1
    assert "B_t1.nii.gz" in capsys.readouterr().err
    assert run_program([*arguments, "--skip-bad"]) == 0
    assert "left out B" in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "significance.json").read_text())
    assert (result["cases"], result["bad"], set(result["figures"])) == (1, 1, {"dice_wt", "dice_tc", "dice_et"})
