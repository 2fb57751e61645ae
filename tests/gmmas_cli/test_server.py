from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from gmmas_cli.main import run_program
from gmmas_cli.server_sites import warn_of_certificate
from gmmas_runtime.enrolment_file import fingerprint_of, key_sha256, read_enrolment, write_enrolment
from gmmas_runtime.keys import load_node_key, make_node_key
from gmmas_runtime.process_state import live_state
from server.deployment import init_coordinator, list_nodes, renew_certificate
from server.enrolment import Connection
from server.folder import CoordinatorFolder
from server.site_register import SiteRegister
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


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = init_coordinator(tmp_path_factory.mktemp("running") / "coordinator", port=free_port()).path
    with redirect_stdout(StringIO()) as told:
        assert run_program(["server", "up", str(folder), "--background"]) == 0
    assert "serves on 127.0.0.1:" in told.getvalue()
    yield folder
    assert run_program(["server", "down", str(folder)]) == 0
    assert live_state(folder / "processes.json") is None


def enrolment(folder: Path, name: str = "east") -> Path:
    """Make a new key with its enrolment file."""
    folder.mkdir()
    key = load_node_key(make_node_key(folder / "key").with_suffix(""))
    path = folder / f"{name}.enrolment.json"
    write_enrolment(path, site=name, key=key, contact="Kim, radiology IT")
    return path


@pytest.mark.integration
def test_a_hospital_joins_and_gets_a_new_key_under_its_name(running: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = enrolment(tmp_path / "1"), enrolment(tmp_path / "2")
    told = fingerprint_of(key_sha256(read_enrolment(first)[1]))
    other = fingerprint_of(key_sha256(read_enrolment(second)[1]))
    enrol = ["server", "enrol", "-s", str(running)]
    assert run_program([*enrol, str(first), "--fingerprint", other]) == 1
    assert "not the key that was read out" in capsys.readouterr().err
    assert run_program([*enrol, str(first), "--name", "south"]) == 1
    assert "as the enrolment file says" in capsys.readouterr().err
    assert run_program([*enrol, str(first), "--fingerprint", told.lower()]) == 0
    shown = capsys.readouterr().out
    assert told in shown
    assert "Kim, radiology IT" in shown
    assert run_program([*enrol, str(second)]) == 1
    assert "--replace" in capsys.readouterr().err
    assert run_program([*enrol, str(first), "--replace"]) == 1  # the same key is no new one, and nothing is revoked for it
    assert "enrolled before" in capsys.readouterr().err
    assert run_program([*enrol, str(second), "--replace"]) == 0
    assert run_program([*enrol, str(first), "--replace"]) == 1
    assert "revoked before" in capsys.readouterr().err
    assert run_program(["server", "sites", "--keys", "-s", str(running)]) == 0
    shown = capsys.readouterr().out
    assert told in shown
    assert other in shown
    assert shown.count("Kim, radiology IT") == 2
    connections = [node.connection for node in list_nodes(running) if node.name == "east"]
    assert connections == [Connection.UNREGISTERED, Connection.REGISTERED]
    history = SiteRegister(CoordinatorFolder.open(running)).history("east")
    assert [key.signed for key in history.keys] == [True, True]


def test_an_old_certificate_is_told_with_its_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = init_coordinator(tmp_path / "coordinator")
    console = Console()
    warn_of_certificate(console, opened)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("gmmas_runtime.keys.SERVER_DAYS", 20)
    renew_certificate(opened.path)
    warn_of_certificate(console, opened)
    assert "expires in 19 days" in (out := capsys.readouterr().out)
    assert f"gmmas server renew {opened.path}" in out


@pytest.mark.integration
def test_a_coordinators_day_on_the_command_line(running: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = make_node_key(tmp_path / "north")
    assert run_program(["server", "enrol", str(key), "--name", "north", "-s", str(running)]) == 0
    shown = capsys.readouterr().out
    assert "Enrolled north as node" in shown
    assert "A bare key" in shown
    assert run_program(["server", "enrol", str(key), "--name", "north", "-s", str(running)]) == 1
    assert "enrolled before" in capsys.readouterr().err
    assert run_program(["server", "up", str(running)]) == 1
    assert "port is taken" in capsys.readouterr().err
    assert run_program(["server", "revoke", "north", "--yes", "-s", str(running)]) == 0
    assert run_program(["status", "--server", str(running)]) == 0
    shown = capsys.readouterr().out
    for text in ("superlink", "superexec", "running", "north", "revoked"):
        assert text in shown
