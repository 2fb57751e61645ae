import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gmmas_cli.main import run_program
from gmmas_runtime.probe import serves_http
from gmmas_runtime.process_state import live_state
from server.deployment import init_coordinator
from server.operators import OperatorStore, Role, system_user
from tests.gmmas_runtime.waiting import wait_until
from tests.server.ports import free_port


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def token_in(out: str) -> str:
    (token,) = [line.strip() for line in out.splitlines() if line.startswith("  ") and "." in line and " " not in line.strip()]
    return token


def test_an_operator_from_the_first_token_to_the_last_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(init_coordinator(tmp_path / "coordinator", dashboard_port=free_port()).path)
    assert run_program(["server", "operator", "add", "anna", "--role", "coordinator", "-s", folder]) == 0
    out = capsys.readouterr().out
    assert "http://127.0.0.1:" in out
    found = OperatorStore(Path(folder) / "operators.db").verify(token_in(out))
    assert found is not None
    assert found.role is Role.COORDINATOR
    assert run_program(["server", "operator", "add", "anna", "--role", "researcher", "-s", folder]) == 1
    assert "operator of this name" in capsys.readouterr().err
    assert run_program(["server", "operator", "add", "bert", "--role", "king", "-s", folder]) == 2
    capsys.readouterr()
    assert run_program(["server", "operator", "list", "-s", folder]) == 0
    assert "anna" in (shown := capsys.readouterr().out)
    assert "coordinator" in shown
    assert run_program(["server", "operator", "remove", "anna", "-s", folder]) == 0
    assert run_program(["server", "operator", "remove", "anna", "-s", folder]) == 1
    capsys.readouterr()
    assert run_program(["server", "operator", "calls", "-s", folder]) == 0
    calls = capsys.readouterr().out.splitlines()
    assert [line.partition("gmmas server ")[2] for line in calls] == [
        "operator add anna --role coordinator  done",
        "operator remove anna  done",
    ]
    assert all("file rights" in line for line in calls)


def test_without_a_dashboard_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(init_coordinator(tmp_path / "coordinator").path)
    assert run_program(["server", "operator", "add", "anna", "--role", "researcher", "-s", folder]) == 0
    assert "serves no dashboard" in capsys.readouterr().out


def test_operators_belong_to_a_coordinator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["server", "operator", "list", "-s", str(tmp_path)]) == 1
    assert "not a coordinator's folder" in capsys.readouterr().err


@pytest.fixture
def running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[tuple[Path, str]]:
    folder, port = tmp_path / "coordinator", free_port()
    assert run_program(["server", "init", str(folder), "--port", str(free_port()), "--dashboard-port", str(port)]) == 0
    assert run_program(["server", "up", str(folder), "--background"]) == 0
    out = capsys.readouterr().out
    assert f"Dashboard: http://127.0.0.1:{port}" in out
    assert "gmmas server operator add" in out
    yield folder, f"http://127.0.0.1:{port}"
    assert run_program(["server", "down", str(folder)]) == 0
    assert not serves_http(f"http://127.0.0.1:{port}")


@pytest.mark.slow
@pytest.mark.integration
def test_a_run_is_started_and_stopped_by_token(running: tuple[Path, str], capsys: pytest.CaptureFixture[str]) -> None:
    """With the real processes; the dashboard comes back when it is killed, and nothing else is touched."""
    folder, address = running
    assert run_program(["server", "operator", "add", "anna", "--role", "coordinator", "-s", str(folder)]) == 0
    headers = {"Authorization": f"Bearer {token_in(capsys.readouterr().out)}"}
    with httpx.Client(base_url=address, headers=headers, timeout=60, trust_env=False) as client:
        assert client.get("/api/sites").json() == []
        assert client.get("/api/runs").json() == []
        configuration = "name: waiting\nrounds: 1\nquorum: {sites: 2, replies: 2, join_deadline_s: 300}"
        answer = client.post("/api/runs", json={"configuration": configuration})
        assert answer.status_code == 201, answer.text
        key = answer.json()["key"]

        def told(name: str) -> str:
            return str(client.get(f"/api/runs/{key}").json()[name])

        wait_until(lambda: told("stage").startswith("waiting for hospitals: 0 of 2"), timeout_s=60, what="the run's beginning")
        assert told("state") == "at work"
        assert client.post("/api/runs", json={"configuration": configuration}).json()["got"] == "a federated run"
        assert "still at work" in client.post(f"/api/runs/{key}/resume").json()["error"]
        assert client.post(f"/api/runs/{key}/stop").status_code == 200
        assert told("state") in ("stopping", "stopped")

        before = live_state(folder / "processes.json")
        assert before is not None
        pids = {process.name: process.pid for process in before.processes}
        pid = pids["dashboard"]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not serves_http(address), what="its death")
        wait_until(lambda: serves_http(address), timeout_s=60, what="its return")
        after = live_state(folder / "processes.json")
        assert after is not None
        assert {process.name: process.pid for process in after.processes if process.name != "dashboard"} == {
            name: number for name, number in pids.items() if name != "dashboard"
        }
        assert told("state") in ("stopping", "stopped")
    calls = OperatorStore(folder / "operators.db").calls(last=1000)
    assert ("anna", f"POST /api/runs/{key}/stop", "200") in [(call.operator, call.action, call.outcome) for call in calls]
    done = [call.action for call in reversed(calls) if call.operator == system_user()]
    assert done[:2] == ["gmmas server operator add anna --role coordinator", f"start the run in {folder / 'runs' / 'waiting'}"]
    assert done[2].startswith("stop Flower run ")
