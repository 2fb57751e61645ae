"""The list of validations, one validation as tables and picture, and that no count of patients is on them."""

import json
import re
from pathlib import Path

import pytest

from gmmas_schema.calibration import Head
from gmmas_schema.errors import ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.model import ModelDefinition
from gmmas_schema.validation import HeadError, MatrixRow, ValidatedModel, ValidationConfig, ValidationMatrix
from gmmas_schema.vocabulary import Region, Split, Task
from server.dashboard.matrices import calibration_rows, matrix_tables, refusals
from server.events import EventLog
from server.operators import Role
from server.run_register import known_runs, known_validations, missing_runs, note_validation, run_key
from server.validation_folder import PICTURE, ValidationFolder
from tests.gmmas_cli.events import event
from tests.server.dashboard.conftest import DeskUnderTest
from tests.server.dashboard.page import page

PATIENTS = {"north": 4321, "south": 7}


def model(label: str, digit: str) -> ValidatedModel:
    return ValidatedModel(
        label=label, source="/secret/place", weights=digit * 64, definition=ModelDefinition(), run=f"run-{label}", round=3
    )


OLD, NEW = model("old", "a"), model("new", "b")


def evaluation(site: str, dice: float, *, difference: float | None = None) -> Evaluation:
    n = PATIENTS[site]
    paired = {} if difference is None else {"dice_wt": Interval(value=difference, low=difference - 0.01, high=difference + 0.01, n=n)}
    return Evaluation(
        split=Split.TEST,
        cases=n,
        dice={Region.WT: Interval(value=dice, low=dice - 0.1, high=dice + 0.1, n=n)},
        auc={Task.IDH: Interval(value=0.75, n=n)} if site == "north" else {},
        paired=paired,
        against="x" if paired else "",
    )


def make_matrix() -> ValidationMatrix:
    calibration: dict[Head, HeadError] = {Region.WT: HeadError(patients=4328, nll=0.2, ece=0.04), Task.IDH: HeadError(patients=7)}
    rows = (
        MatrixRow(
            model=OLD,
            sites={"north": evaluation("north", 0.6), "south": evaluation("south", 0.5)},
            metrics={"dice_wt": 0.58, "auc_idh": 0.75},
        ),
        MatrixRow(
            model=NEW,
            sites={"north": evaluation("north", 0.7, difference=0.1), "south": evaluation("south", 0.4, difference=-0.1)},
            metrics={"dice_wt": 0.61},
            refused={"east": ReasonCode.POLICY_COHORT},
            calibration=calibration,
        ),
    )
    return ValidationMatrix(validation="validation-1", split=Split.TEST, made_at="2026-01-02T03:04:05+00:00", seconds=9, rows=rows)


@pytest.fixture
def validation(desk: DeskUnderTest, tmp_path: Path) -> ValidationFolder:
    folder = ValidationFolder.create(tmp_path / "first", ValidationConfig(models=(OLD, NEW)))
    note_validation(desk.folder, folder.path)
    return folder


def test_cells_say_what_was_measured_and_what_is_sure() -> None:
    wt, idh = matrix_tables(make_matrix())
    assert (wt.metric, wt.title, idh.title) == ("dice_wt", "Dice WT", "AUC IDH")
    north, south = wt.rows["new"]
    assert (north.value, north.difference, north.sure, north.few) == (0.7, 0.1, 1, False)
    assert (south.value, south.sure, south.few) == (0.4, -1, True)
    doubtful = evaluation("south", 0.5).model_copy(update={"auc": {Task.IDH: Interval(value=1.0, n=7)}})
    doubtful = doubtful.model_copy(update={"paired": {"auc_idh": Interval(value=0.5, low=0.5, high=0.5, n=7)}, "against": "x"})
    row = MatrixRow(model=NEW, sites={"south": doubtful}, metrics={"auc_idh": 1.0})
    (cell,) = matrix_tables(make_matrix().model_copy(update={"rows": (row,)}))[-1].rows["new"]
    assert (cell.difference, cell.sure) == (0.5, 0), "the AUC of seven patients is sure of nothing"
    assert wt.rows["old"][0].difference is None
    assert wt.means == {"old": 0.58, "new": 0.61}
    assert idh.rows["old"][1].value is None
    (refusal,) = refusals(make_matrix())
    assert (refusal.site, refusal.code) == ("east", ReasonCode.POLICY_COHORT)
    assert refusal.reason.remedy
    assert [(row.head, row.few) for row in calibration_rows(make_matrix().rows)] == [("WT", False)]


def test_a_validation_is_listed_from_its_beginning_to_its_end(desk: DeskUnderTest, validation: ValidationFolder) -> None:
    key = run_key(validation.path)
    assert "stopped" in page(desk, "/validations").text
    with validation.hold():
        assert "at work" in page(desk, "/validations").text
    log = EventLog(validation.events_path)
    log.append(event(EventKind.RUN_FAILED, 5, code=ReasonCode.QUORUM))
    log.close()
    assert "failed" in page(desk, "/validations").text
    assert "gmmas validate --resume" in page(desk, f"/validations/{key}").text
    validation.write_matrix(make_matrix())
    listed = page(desk, "/validations", Role.RESEARCHER).text
    for told in ("finished", "old, new", "2026-01-02 03:04"):
        assert told in listed, told


def test_every_model_stands_at_every_hospital(desk: DeskUnderTest, validation: ValidationFolder) -> None:
    validation.write_matrix(make_matrix())
    text = " ".join(page(desk, f"/validations/{run_key(validation.path)}", Role.RESEARCHER).text.split())
    for told in (
        "old 0.600 0.500 few",
        "new 0.700 ▲+0.100 [+0.09, +0.11] 0.400 few ▼-0.100 [-0.11, -0.09]",
        "0.610",
        "E_POLICY_COHORT",
        "run-new",
    ):
        assert told in text, told


def test_no_count_of_patients_and_no_source_is_told(desk: DeskUnderTest, validation: ValidationFolder) -> None:
    validation.write_matrix(make_matrix())
    client = desk.client(Role.COORDINATOR)
    for path in ("/validations", f"/validations/{run_key(validation.path)}", f"/api/validations/{run_key(validation.path)}"):
        told = client.get(path).text
        assert not set(re.findall(r"\d+", told)) & {"4321", "4328"}
        assert not re.findall(r"(?<![\w.])7(?![\w.])", told)
        assert "/secret/place" not in told


def test_the_picture_comes_from_its_folder_alone(desk: DeskUnderTest, validation: ValidationFolder) -> None:
    client, key = desk.client(Role.RESEARCHER), run_key(validation.path)
    validation.write_matrix(make_matrix())
    assert client.get(f"/validations/{key}/matrix.png").status_code == 404
    assert not page(desk, f"/validations/{key}").all("img")
    (validation.path / PICTURE).write_bytes(b"\x89PNG picture")
    answer = client.get(f"/validations/{key}/matrix.png")
    assert (answer.headers["content-type"], answer.content) == ("image/png", b"\x89PNG picture")
    (image,) = page(desk, f"/validations/{key}").all("img")
    assert (image["src"], bool(image["alt"])) == (f"/validations/{key}/matrix.png", True)
    for strange in ("absent-00000000", "..%2f..", run_key(desk.run_dir)):
        assert client.get(f"/validations/{strange}").status_code == 404
        assert client.get(f"/validations/{strange}/matrix.png").status_code == 404


def test_programs_have_the_same(desk: DeskUnderTest, validation: ValidationFolder) -> None:
    program, key = desk.client(Role.RESEARCHER, bearer=True), run_key(validation.path)
    (summary,) = program.get("/api/validations").json()
    assert (summary["key"], summary["state"], summary["models"]) == (key, "stopped", ["old", "new"])
    assert program.get(f"/api/validations/{key}").json()["metrics"] == {}
    validation.write_matrix(make_matrix())
    told = program.get(f"/api/validations/{key}").json()
    assert told["sites"] == ["north", "south"]
    new = told["metrics"]["dice_wt"]["new"]
    assert new["mean"] == 0.61
    figures = {"value": 0.4, "difference": -0.1, "low": -0.11, "high": -0.09}
    assert new["sites"]["south"] == {name: pytest.approx(value) for name, value in figures.items()} | {"few": True, "sure": -1}


def test_validations_and_runs_are_kept_apart(desk: DeskUnderTest, validation: ValidationFolder) -> None:
    assert list(known_runs(desk.folder).values()) == [desk.run_dir]
    assert list(known_validations(desk.folder).values()) == [validation.path]
    assert missing_runs(desk.folder) == []
    (validation.path / "validation.json").write_text(json.dumps({"models": []}))
    assert "There is none yet" in page(desk, "/validations").text, "one that cannot be read is not shown"


def test_without_any_the_command_is_told(desk: DeskUnderTest) -> None:
    assert "gmmas validate" in page(desk, "/validations").text
