import re
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gmmas_cli.data import app
from gmmas_schema.errors import DataError
from gmmas_schema.vocabulary import Layout, Modality
from tests.gmmas_data.scans import SHAPE, save, write_case


def check(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["check", *map(str, arguments)], env={"COLUMNS": "120"})


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    for number, modalities in enumerate(([Modality.T1, Modality.T2], [Modality.T2], [Modality.T2, Modality.FLAIR])):
        write_case(tmp_path / "cohort" / f"c{number}", case_id=f"c{number}", modalities=modalities, segmentation=number != 1)
    return tmp_path / "cohort"


def test_a_good_cohort_is_counted(cohort: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("patient_id,idh,codeletion\nc0,mutant,codeleted\nc2,wildtype,\n")
    result = check(cohort, "--labels", labels, "--processes", 1)
    assert result.exit_code == 0, result.output
    assert "3 cases of 3 patients, layout brats2021" in result.output
    assert "3 cases, all good" in result.output
    rows = {
        row[0]: [int(n) for n in row[1:]]
        for row in (re.split(r"\s{2,}", line.strip()) for line in result.output.splitlines())
        if row[-1].isdigit()
    }
    assert rows["t1"] == [1, 1, 1, 0, 1, 0]
    assert rows["t2"] == [3, 2, 1, 1, 1, 0]
    assert rows["flair"] == [1, 1, 0, 1, 0, 0]
    assert rows["all four"] == [0] * 6


def test_optional_labels_are_counted_where_there_are_any(cohort: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text("patient_id,idh,codeletion,grade,mgmt\nc0,mutant,codeleted,2,methylated\nc1,,,4,\nc2,wildtype,,hgg,\n")
    result = check(cohort, "--labels", labels, "--processes", 1)
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    assert ["c0", "yes", "-", "yes", "-", "yes", "mutant", "codeleted", "low", "methylated", "good"] in lines
    assert ["any", "3", "2", "1", "1", "1", "0", "2", "1", "1", "0"] in lines
    assert "grade" not in check(cohort, "--processes", 1).output


def test_every_bad_case_is_explained_and_the_exit_code_is_one(cohort: Path) -> None:
    save(cohort / "c0" / "c0_seg.nii", np.zeros(SHAPE, np.uint8))
    (cohort / "c2" / "c2_t2.nii").write_bytes(b"no scan")
    (cohort / "c1" / "odd.nii").touch()
    result = check(cohort, "--processes", 1)
    assert result.exit_code == 1
    for said in (
        "c0_seg.nii",
        "no tumour voxel",
        "c2_t2.nii",
        "cannot be read",
        "remedy:",
        "2 of 3 cases bad",
        "1 NIfTI file left out: the name follows no",
    ):
        assert said in result.output
    assert not list(cohort.rglob("*.csv"))


def test_a_long_list_shows_bad_cases_first(tmp_path: Path) -> None:
    for number in range(22):
        write_case(tmp_path, case_id=f"c{number:02d}", modalities=[Modality.T1], segmentation=False)
    (tmp_path / "c21_t1.nii").write_bytes(b"")
    result = check(tmp_path, "--processes", 1)
    assert "and 2 more" in result.output
    assert result.output.index("c21") < result.output.index("c00")
    assert "c19" not in result.output
    assert "c19" in check(tmp_path, "--processes", 1, "--all").output


def test_the_layout_can_be_named(cohort: Path) -> None:
    write_case(cohort, case_id="new", layout=Layout.BRATS2023)
    assert isinstance(check(cohort).exception, DataError)
    result = check(cohort, "--layout", "brats2023", "--processes", 1)
    assert (result.exit_code, "1 case, all good" in result.output) == (0, True)
    wrong = check(cohort, "--layout", "brats2013")
    assert wrong.exit_code == 2
    assert "brats2013" in wrong.output
