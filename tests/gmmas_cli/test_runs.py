from pathlib import Path

import pytest

from gmmas_cli.main import run_program
from gmmas_cli.runs_report import configuration_table, outcome_table, read_runs
from gmmas_runtime.files import sha256_file
from gmmas_schema.errors import ConfigError
from gmmas_schema.federation import FederationConfig
from gmmas_schema.privacy import PrivacySpent
from gmmas_schema.standalone import TrainConfig
from gmmas_schema.vocabulary import Split
from gmmas_workflows.scores import ModelScore
from gmmas_workflows.train_folder import TrainFolder
from server.checkpoint import RunFolder
from server.events import EventLog
from server.records import RoundRecord, RunResult
from tests.gmmas_cli.events import whole_run


def score(number: int, dice: float, split: Split = Split.VALIDATION) -> ModelScore:
    return ModelScore(model_round=number, split=split, metrics={"dice_wt": dice}, score=dice)


def make_run(path: Path, *, finished: bool = True, epsilon: float | None = None, **settings: object) -> Path:
    config = FederationConfig.model_validate({"name": path.name, "rounds": 2, **settings})
    folder = RunFolder.create(path, config)
    for number in (1, 2):
        folder.round_path(number).mkdir(parents=True)
        record = RoundRecord(
            run="r",
            round=number,
            rounds=2,
            started_at=0,
            seconds=30,
            model_sha256="",
            attempt=1,
            sites=(),
            validation=score(number - 1, 0.3 * number),
        )
        file = folder.round_path(number) / "round.json"
        file.write_text(record.model_dump_json())
        (file.parent / "SHA256SUMS").write_text(f"{sha256_file(file)}  {file.name}\n")
    if finished:
        spent = (
            None
            if epsilon is None
            else PrivacySpent(epsilon=epsilon, delta=1e-5, noise_multiplier=8, clip_norm=1, releases=2, affordable=9)
        )
        result = RunResult(
            run="r", rounds=2, best_round=2, model_digest="", best_sha256="", last_sha256="", privacy=spent,
            validation=score(2, 0.71), last=score(2, 0.71), test=score(2, 0.625, Split.TEST),
        )  # fmt: skip
        folder.result_path.write_text(result.model_dump_json())
        log = EventLog(path / "events.db")
        for event in whole_run():
            log.append(event)
        log.close()
    return path


def rows(table) -> dict[str, list[str]]:
    columns = [[str(cell) for cell in column.cells] for column in table.columns]
    return {name: list(values) for name, *values in zip(*columns, strict=True)}


def test_only_what_differs_is_shown(tmp_path: Path) -> None:
    runs = read_runs(
        [make_run(tmp_path / "first"), make_run(tmp_path / "second", seed=9, server_step={"kind": "momentum", "momentum": 0.5})]
    )
    shown = rows(configuration_table(runs))
    assert shown["seed"][1] == "9"
    assert shown["server_step.kind"] == ['"average"', '"momentum"']
    assert "name" not in shown
    assert not [key for key in shown if key.startswith("model.")]
    assert rows(configuration_table(runs, every=True))["name"] == ['"first"', '"second"']


def test_outcomes_and_costs_stand_side_by_side_and_what_is_not_there_is_a_dash(tmp_path: Path) -> None:
    shown = rows(outcome_table(read_runs([make_run(tmp_path / "first", epsilon=2.5), make_run(tmp_path / "second", finished=False)])))
    assert shown["state"] == ["finished", "not finished"]
    assert shown["test Dice WT"] == ["0.625", "–"]
    assert shown["validation Dice WT"] == ["0.710", "–"]
    assert shown["epsilon"] == ["2.5", "–"]
    assert shown["wall time of the rounds"] == ["1 min 00 s", "1 min 00 s"]
    assert shown["bytes up"][0].endswith("MB")
    assert shown["bytes up"][1] == "–"
    assert "test AUC IDH" not in shown, "what no run has is no row"


def test_a_training_without_a_federation_stands_beside_a_run(tmp_path: Path) -> None:
    config = TrainConfig.model_validate({"cohorts": [{"name": "north", "root": str(tmp_path)}]})
    alone = TrainFolder.prepare(tmp_path / "alone", config, resume=False).path
    shown = rows(configuration_table(read_runs([make_run(tmp_path / "first"), alone])))
    assert shown["kind"] == ["federated", "local"]
    assert shown["quorum.sites"][1] == "–"


def test_two_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    labels = [run.label for run in read_runs([make_run(tmp_path / place / "run") for place in ("one", "two")])]
    assert labels == ["run", "run (2)"]


def test_the_command_prints_draws_and_explains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = make_run(tmp_path / "first"), make_run(tmp_path / "second", seed=9)
    picture = tmp_path / "compare.png"
    assert run_program(["runs", "compare", str(first), str(second), "--picture", str(picture)]) == 0
    told = capsys.readouterr().out
    assert "What differs" in told
    assert "0.625" in told
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run_program(["runs", "compare", str(first)]) == 1
    assert "two or more" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="not the folder of a run"):
        read_runs([tmp_path])
