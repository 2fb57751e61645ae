"""Pause, resume and allow, as the hospital's people use them, with and without a running trainer."""

import stat
from pathlib import Path

import pytest

from client.audit_line import AuditKind, AuditLine
from client.audit_verification import read_lines
from client.folder import NodeFolder
from client.interventions import read_pause
from client.policy import Overrides
from client.trainer_service_pb2 import State
from gmmas_cli.main import run_program
from gmmas_schema.site import SiteConfig
from tests.client.serving import serving
from tests.client.sites import write_site


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_site(tmp_path, cases=2)


def gmmas(path: Path, *arguments: str) -> int:
    return run_program(["site", *arguments, "--config", str(path)])


def last_line(path: Path) -> AuditLine:
    (*_, line) = read_lines(NodeFolder(SiteConfig.from_yaml(path).node.state).audit_log)
    return line


def test_a_pause_names_who_and_why_and_holds_over_a_start(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = SiteConfig.from_yaml(path)
    assert gmmas(path, "pause", "--reason", "the disk is being replaced", "--by", "kim") == 0
    line = last_line(path)
    assert (line.kind, line.by, line.reason) == (AuditKind.PAUSED, "kim", "the disk is being replaced")
    assert stat.S_IMODE(NodeFolder(config.node.state).paused.stat().st_mode) == 0o600
    assert gmmas(path, "status") == 1
    assert "by kim: the disk is being replaced" in capsys.readouterr().out
    with serving(config) as trainer:
        assert trainer.status().state == State.PAUSED
        pause = read_pause(NodeFolder(config.node.state))
        assert pause is not None
        assert pause.by == "kim"
        assert gmmas(path, "resume", "--by", "lee") == 0
        assert trainer.status().state == State.IDLE
    line = last_line(path)
    assert (line.kind, line.by) == (AuditKind.RESUMED, "lee")
    assert read_pause(NodeFolder(config.node.state)) is None


def test_a_running_trainer_is_paused_at_once(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(SiteConfig.from_yaml(path)) as trainer:
        assert gmmas(path, "pause") == 0
        assert capsys.readouterr().out.strip() == "site north is paused"
        assert trainer.status().state == State.PAUSED
    assert last_line(path).by


def test_a_pause_of_an_older_release_is_still_one(path: Path) -> None:
    folder = NodeFolder(SiteConfig.from_yaml(path).node.state)
    folder.make()
    folder.paused.write_bytes(b"")
    pause = read_pause(folder)
    assert pause is not None
    assert (pause.by, pause.reason, pause.since) == ("", "", None)


def test_an_override_is_given_shown_and_withdrawn(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = NodeFolder(SiteConfig.from_yaml(path).node.state)
    assert gmmas(path, "allow", "E_POLICY_HOURS", "--hours", "2", "--reason", "a holiday", "--by", "kim") == 0
    assert "until" in capsys.readouterr().out
    (override,) = Overrides.read(folder.overrides).given
    line = last_line(path)
    assert (line.kind, line.verdict, line.reason, line.by) == (AuditKind.OVERRIDE, "E_POLICY_HOURS", "a holiday", "kim")
    assert line.detail["until"] == override.until.isoformat()
    assert (override.until - line.time).total_seconds() == pytest.approx(7200, abs=2)
    assert gmmas(path, "allow", "E_POLICY_MODEL", "--reason", "agreed") == 0
    assert "restarted" in capsys.readouterr().out
    assert len(Overrides.read(folder.overrides).given) == 2
    assert gmmas(path, "allow", "--end") == 0
    assert "2 withdrawn" in capsys.readouterr().out
    assert Overrides.read(folder.overrides).given == ()
    assert last_line(path).reason == "withdrawn"


@pytest.mark.parametrize(
    "arguments", [["E_POLICY_HOURS"], ["E_PAUSED", "--reason", "x"], ["nothing", "--reason", "x"], ["--reason", "x"], []]
)
def test_an_override_needs_a_check_and_a_reason(path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert gmmas(path, "allow", *arguments) == 1
    assert "E_POLICY_HOURS" in capsys.readouterr().err
    assert not NodeFolder(SiteConfig.from_yaml(path).node.state).overrides.exists()
