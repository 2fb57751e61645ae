import json
from pathlib import Path

import pytest

from gmmas_cli.main import run_program
from gmmas_schema.events import Event, EventKind
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


def test_costs_fit_eighty_columns(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["status", str(run.path), "--costs"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert max(map(len, out.splitlines())) <= 80
    assert rows["north"][1:6] == ["3/3", "8", "MB", "7", "MB"]
    assert rows["east"][1:6] == ["2/3", "8", "MB", "3.5", "MB"]
    assert rows["coordinator"][-1] == "300"
    assert rows["2"][1:4] == ["1/2", "8", "MB"]


def test_costs_of_one_site(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["status", str(run.path), "--costs", "--site", "east"]) == 0
    assert "cost of each round at east" in capsys.readouterr().out
    assert run_program(["status", str(run.path), "--costs", "--site", "nowhere"]) == 1
    assert "east, north" in capsys.readouterr().err


def test_costs_for_programs(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["status", str(run.path), "--costs", "--json"]) == 0
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [entry["site"] for entry in entries if entry["round"] == 2] == ["north", "east", None]
    assert [entry["outcome"] for entry in entries if entry["site"] == "east"] == ["accepted", "accepted", "missing"]
    assert run_program(["status", str(run.path), "--costs", "--json", "--site", "east"]) == 0
    assert {json.loads(line)["site"] for line in capsys.readouterr().out.splitlines()} == {"east"}
    assert run_program(["status", str(run.path), "--costs", "--json", "--site", "nowhere"]) == 1
    assert "east, north" in capsys.readouterr().err


def test_what_happened(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["status", str(run.path), "--events"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(whole_run())
    (missing,) = [line for line in lines if "reply_missing" in line]
    assert missing.split()[2:] == ["reply_missing", "2", "east", "E_DEADLINE"]


def test_what_happened_for_programs(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["status", str(run.path), "--events", "--json"]) == 0
    assert [Event.model_validate_json(line) for line in capsys.readouterr().out.splitlines()] == whole_run()


def test_a_run_of_an_older_version_is_shown(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    run.events_path.unlink()
    run.events_path.with_name("events.jsonl").write_text("\n".join(each.model_dump_json() for each in whole_run()))
    assert run_program(["status", str(run.path), "--events"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(whole_run())


def test_options_that_need_another(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["status", str(run.path), "--json"]) == 1
    assert "neither --costs nor --events" in capsys.readouterr().err
    assert run_program(["status", "--costs"]) == 1
    assert "no run is named" in capsys.readouterr().err
    assert run_program(["status", str(run.path), "--events", "--site", "east"]) == 1, "all that happened is not what was asked for"
    assert "--site without --costs" in capsys.readouterr().err
