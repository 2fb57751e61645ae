from collections.abc import Iterator
from pathlib import Path

import pytest

from gmmas_cli.main import run_program
from gmmas_runtime.keys import make_node_key
from gmmas_runtime.process_state import live_state
from server.deployment import init_coordinator
from tests.server.ports import free_port


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_init_says_what_a_hospital_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "coordinator"
    assert run_program(["server", "init", str(folder), "--host", "coordinator.example", "--port", "9444"]) == 0
    out = capsys.readouterr().out
    assert "coordinator.example:9444" in out
    assert str(folder / "authority" / "authority.pem") in out
    assert "this machine only" in out
    assert run_program(["server", "init", str(folder)]) == 1
    assert "never overwritten" in capsys.readouterr().err


def test_init_for_the_network_says_nothing_of_loopback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["server", "init", str(tmp_path / "c"), "--network", "--host", "10.1.1.1"]) == 0
    assert "this machine only" not in capsys.readouterr().out
    assert "listen: network" in (tmp_path / "c" / "coordinator.yaml").read_text()


def test_renew_names_the_hosts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = init_coordinator(tmp_path / "coordinator", hosts=["old.example"]).path
    assert run_program(["server", "renew", str(folder), "--host", "new.example"]) == 0
    assert "old.example, new.example, 127.0.0.1, localhost" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["up"], "no such folder"),
        (["down"], "no such folder"),
        (["sites", "--server"], "no such folder"),
        (["renew"], "no such folder"),
        (["stop-run"], "no submission.json"),
    ],
)
def test_wrong_folders_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert run_program(["server", *arguments, str(tmp_path / "absent")]) == 1
    err = capsys.readouterr().err
    assert message in err
    assert str(tmp_path / "absent") in err


def test_down_without_a_coordinator_is_no_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = init_coordinator(tmp_path / "coordinator").path
    assert run_program(["server", "down", str(folder)]) == 0
    assert "No coordinator was running" in capsys.readouterr().out


def test_enrol_wants_a_running_coordinator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = init_coordinator(tmp_path / "coordinator", port=free_port()).path
    key = make_node_key(tmp_path / "north")
    assert run_program(["server", "enrol", str(key), "--name", "north", "--server", str(folder)]) == 1
    assert "gmmas server up" in capsys.readouterr().err


@pytest.fixture
def running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Path]:
    folder = init_coordinator(tmp_path / "coordinator", port=free_port()).path
    assert run_program(["server", "up", str(folder), "--background"]) == 0
    assert "serves on 127.0.0.1:" in capsys.readouterr().out
    yield folder
    assert run_program(["server", "down", str(folder)]) == 0
    assert live_state(folder / "processes.json") is None


@pytest.mark.integration
def test_a_coordinators_day_on_the_command_line(running: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = make_node_key(tmp_path / "north")
    assert run_program(["server", "enrol", str(key), "--name", "north", "-s", str(running)]) == 0
    assert "Enrolled north as node" in capsys.readouterr().out
    assert run_program(["server", "enrol", str(key), "--name", "north", "-s", str(running)]) == 1
    assert "enrolled before" in capsys.readouterr().err
    assert run_program(["server", "up", str(running)]) == 1
    assert "port is taken" in capsys.readouterr().err
    assert run_program(["server", "revoke", "north", "--yes", "-s", str(running)]) == 0
    assert run_program(["status", "--server", str(running)]) == 0
    shown = capsys.readouterr().out
    for text in ("superlink", "superexec", "running", "north", "revoked"):
        assert text in shown
