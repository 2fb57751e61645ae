import shutil
from pathlib import Path

import pytest

from gmmas_cli.main import run_program
from gmmas_cli.validate import copy_models, matrix_tables
from gmmas_runtime.manifest import check_manifest, write_manifest
from gmmas_schema.errors import ConfigError, TrustError
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.model import ModelDefinition
from gmmas_schema.validation import MatrixRow, ValidatedModel, ValidationConfig, ValidationMatrix
from gmmas_schema.vocabulary import Region, Split
from server.deployment import init_coordinator
from tests.server.ports import free_port


def test_models_are_copied_with_their_manifests_and_called_by_their_folders(weights_folder: Path, tmp_path: Path) -> None:
    one = tmp_path / "run one" / "models" / "best"
    shutil.copytree(weights_folder, one)
    write_manifest(one, model_digest=ModelDefinition().digest(), run="r-1", round=3)
    first, second, third = copy_models([str(one), f"own={weights_folder}", str(one)], tmp_path / "out")
    assert [entry.label for entry in (first, second, third)] == ["run-one", "own", "run-one-2"]
    assert (first.run, first.weights) == ("r-1", second.weights)
    assert check_manifest(tmp_path / "out" / "models" / "run-one").manifest.round == 3
    assert sorted(path.name for path in (tmp_path / "out" / "models" / "own").iterdir()) == ["model.json", "model.safetensors"]


def test_a_changed_model_is_not_sent_to_any_hospital(weights_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(weights_folder, copy)
    write_manifest(copy, model_digest=ModelDefinition().digest())
    (copy / "model.json").write_text((copy / "model.json").read_text() + "\n")
    with pytest.raises(TrustError, match="not the one that was published"):
        copy_models([str(copy)], tmp_path / "out")


def test_a_folder_in_use_and_no_model_are_refused(weights_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model is named"):
        copy_models([], tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "something").touch()
    with pytest.raises(ConfigError, match="the output folder exists"):
        copy_models([str(weights_folder)], tmp_path / "out")


def test_two_models_of_one_name_are_refused() -> None:
    model = ValidatedModel(label="a", source="a", weights="ab" * 32, definition=ModelDefinition())
    with pytest.raises(ValueError, match="two models are called a"):
        ValidationConfig(models=(model, model))


def test_a_coordinator_that_does_not_answer_is_told_before_anything_is_written(weights_folder: Path, tmp_path: Path, capsys) -> None:
    init_coordinator(tmp_path / "coordinator", port=free_port())
    arguments = ["validate", str(weights_folder), "--out", str(tmp_path / "out"), "--server", str(tmp_path / "coordinator")]
    assert run_program(arguments) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_table_shows_differences_below_values() -> None:
    def row(label: str, value: float, **paired: Interval) -> MatrixRow:
        own = Evaluation(
            split=Split.TEST, cases=9, dice={Region.WT: Interval(value=value, n=9)}, paired=paired, against="x" if paired else ""
        )
        model = ValidatedModel(label=label, source=label, weights="ab" * 32, definition=ModelDefinition())
        return MatrixRow(model=model, sites={"north": own}, metrics={"dice_wt": value})

    better = row("new", 0.75, dice_wt=Interval(value=0.05, low=0.02, high=0.08, n=9))
    rows = (row("champion", 0.7), better)
    (table,) = matrix_tables(ValidationMatrix(validation="v", split=Split.TEST, made_at="", seconds=1, rows=rows))
    assert [column.header for column in table.columns] == ["model", "north", "mean"]
    cells = list(table.columns[1].cells)
    assert str(cells[0]) == "0.700"
    assert str(cells[1]) == "0.750\n+0.050\n[+0.02, +0.08]"
