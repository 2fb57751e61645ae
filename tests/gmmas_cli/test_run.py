from pathlib import Path

import pytest
from rich.console import Console

from gmmas_cli.main import run_program
from gmmas_cli.run import failure_of, print_outcome
from gmmas_schema.errors import ReasonCode
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig
from server.deployment import init_coordinator, prepare_run
from tests.gmmas_cli.events import event
from tests.server.ports import free_port


@pytest.fixture
def coordinator(tmp_path: Path) -> Path:
    return init_coordinator(tmp_path / "coordinator", port=free_port()).path


@pytest.fixture
def federation(tmp_path: Path) -> Path:
    file = tmp_path / "federation.yaml"
    file.write_text("name: test\nrounds: 2\n")
    return file


def run(coordinator: Path, out: Path, *arguments: object) -> int:
    return run_program(["run", "--server", str(coordinator), "--out", str(out), *map(str, arguments)])


def test_unknown_key_is_named_and_nothing_is_written(coordinator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "federation.yaml"
    file.write_text("rounds: 2\nepochs: 5\n")
    assert run(coordinator, tmp_path / "run", file) == 1
    assert "unknown key 'epochs'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_coordinator_that_is_down_is_told_and_nothing_is_written(
    coordinator: Path, federation: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(coordinator, tmp_path / "run", federation) == 1
    assert "gmmas server up" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_new_run_wants_a_configuration(coordinator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(coordinator, tmp_path / "run") == 1
    assert "federation-example.yaml" in capsys.readouterr().err
    assert run(coordinator, tmp_path / "run", tmp_path / "absent.yaml") == 1
    assert "cannot be read" in capsys.readouterr().err


def test_there_must_be_something_to_resume(coordinator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(coordinator, tmp_path / "run", "--resume") == 1
    assert "federation.json" in capsys.readouterr().err


def test_the_example_configuration_holds_the_defaults() -> None:
    file = Path(__file__).resolve().parents[2] / "site_configs" / "federation-example.yaml"
    assert FederationConfig.from_yaml(file) == FederationConfig()


def test_a_failure_is_told_in_the_runs_own_words_with_the_way_on() -> None:
    message = "too few good replies [E_QUORUM]\n  where:    round 3\n  got:      1\n  expected: at least 2\n  remedy:   mend those sites"
    error = failure_of(event(EventKind.RUN_FAILED, 0, code=ReasonCode.QUORUM, message=message), Path("runs/a"), Path("c"))
    assert (error.what, error.got, error.expected, error.code) == (
        "the run failed: too few good replies",
        "1",
        "at least 2",
        ReasonCode.QUORUM,
    )
    assert error.remedy == "mend those sites; then: gmmas run --resume --out runs/a --server c"
    bare = failure_of(event(EventKind.RUN_FAILED, 0, code=ReasonCode.INTERNAL, message="KeyError: 'x'"), Path("a"), Path("c"))
    assert bare.what == "the run failed: KeyError: 'x'"


def test_the_outcome_names_models_and_mlflow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare_run(tmp_path / "run", FederationConfig(rounds=4))
    end = event(EventKind.RUN_FINISHED, 0, number=4, best_round=3, validation={"dice_wt": 0.5}, test={"dice_wt": 0.61, "auc_idh": 0.7})
    print_outcome(Console(width=200), tmp_path / "run", end)
    out = capsys.readouterr().out
    assert "Best model: round 3 of 4" in out
    assert "Dice WT 0.610  AUC IDH 0.700" in out
    assert f"mlflow ui --backend-store-uri sqlite:///{tmp_path / 'run' / 'mlflow.db'}" in out
