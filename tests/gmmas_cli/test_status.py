from pathlib import Path

import pytest

from gmmas_cli.main import run_program
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig
from server.checkpoint import RunFolder
from server.deployment import init_coordinator, prepare_run
from server.events import EventLog
from tests.gmmas_cli.events import event, whole_run
from tests.server.ports import free_port


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = prepare_run(tmp_path / "run", FederationConfig(rounds=3))
    log = EventLog(folder.events_path)
    for each in whole_run():
        log.append(each)
    return folder


def test_nothing_named_is_nothing_to_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["status"]) == 1
    assert "neither a run nor a coordinator" in capsys.readouterr().err


def test_a_run_at_work(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with run.hold():
        assert run_program(["status", str(run.path)]) == 0
    out = capsys.readouterr().out
    assert "round 2 of 3" in out
    assert "east, round 2: no answer: E_DEADLINE" in out


def test_a_run_nobody_works_on(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["status", str(run.path)]) == 1
    assert "not at work, never submitted" in capsys.readouterr().out


def test_a_finished_run(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    EventLog(run.events_path).append(event(EventKind.RUN_FINISHED, 60, number=3))
    assert run_program(["status", str(run.path)]) == 0
    assert "finished" in capsys.readouterr().out


def test_a_folder_without_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["status", str(tmp_path)]) == 1
    assert "federation.json" in capsys.readouterr().err


def test_following_an_unsubmitted_run_is_refused(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["status", str(run.path), "--follow"]) == 1
    assert "no run was submitted" in capsys.readouterr().err


def test_a_coordinator_that_is_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = init_coordinator(tmp_path / "coordinator", port=free_port()).path
    assert run_program(["status", "--server", str(folder)]) == 1
    assert "does not answer" in capsys.readouterr().out
