"""`gmmas phantom make`, as a user calls it."""

from pathlib import Path

import pytest
import yaml

from gmmas_cli.main import run_program

SPEC = {"spacing_mm": 4.0, "sites": [{"name": "tiny", "cases": 1, "scanner": "clinical-3t", "modalities": ["flair"]}]}


def test_make_writes_a_cohort_and_a_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(SPEC))
    assert run_program(["phantom", "make", str(tmp_path / "spec.yaml"), str(tmp_path / "out"), "--processes", "1"]) == 0
    assert (tmp_path / "out" / "tiny" / "PH-TINY-0001" / "PH-TINY-0001_flair.nii.gz").is_file()
    assert (tmp_path / "out" / "phantom.png").is_file()
    assert "tiny" in capsys.readouterr().out


def test_a_wrong_specification_ends_in_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({**SPEC, "sead": 3}))
    assert run_program(["phantom", "make", str(tmp_path / "spec.yaml"), str(tmp_path / "out")]) == 1
    assert "unknown key 'sead'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
