"""The record as it is shown, verified and begun anew."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from client.audit_log import NEWEST
from client.audit_renewal import renew_log
from client.audit_verification import read_lines
from client.folder import NodeFolder
from client.interventions import pause_site
from gmmas_cli.main import run_program
from gmmas_schema.messages import Action
from gmmas_schema.site import SiteConfig
from tests.client.serving import TIMEOUT_S, serving
from tests.client.sites import make_request, write_site


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the site.yaml of a node that was started, asked once and stopped."""
    path = write_site(tmp_path_factory.mktemp("site"), cases=2)
    with serving(SiteConfig.from_yaml(path)) as trainer:
        trainer.describe(make_request(Action.DESCRIBE), timeout_s=TIMEOUT_S)
    return path


def gmmas(path: Path, *arguments: str) -> int:
    return run_program(["site", "audit", *arguments, "--config", str(path)])


def log_of(path: Path) -> Path:
    return NodeFolder(SiteConfig.from_yaml(path).node.state).audit_log


@pytest.mark.parametrize("arguments", [[], ["show"]])
def test_lines_are_shown_in_words(path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert gmmas(path, *arguments) == 0
    shown = capsys.readouterr().out
    for text in ("node started", "describe", "run-1", "allowed", "answered"):
        assert text in shown


def test_lines_are_given_to_programs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gmmas(path, "show", "--json", "--run", "run-1") == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (line["n"], line["kind"], line["outcome"]) == (2, "query", "answered")
    assert gmmas(path, "show", "--run", "other") == 0
    assert "nothing was asked for run other" in capsys.readouterr().out


def test_a_whole_record_is_called_whole(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gmmas(path, "verify") == 0
    assert "2 lines, none changed" in capsys.readouterr().out


def test_a_changed_record_is_named_by_line_and_can_be_put_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_site(tmp_path, cases=2)
    with serving(SiteConfig.from_yaml(path)) as trainer:
        trainer.describe(make_request(Action.DESCRIBE), timeout_s=TIMEOUT_S)
        capsys.readouterr()
        assert gmmas(path, "renew", "--reason", "too early") == 1
        assert "already running" in capsys.readouterr().err
    log = log_of(path) / NEWEST
    log.write_bytes(log.read_bytes().replace(b'"answered"', b'"refused"'))
    assert gmmas(path, "verify") == 1
    assert "audit.jsonl, line 2: the line was changed" in capsys.readouterr().out
    assert gmmas(path, "renew", "--reason", "line 2 was changed", "--by", "kim") == 0
    assert "audit-log-until-" in capsys.readouterr().out
    (line,) = read_lines(log_of(path))
    assert (line.reason, line.by, line.detail["good_lines"]) == ("line 2 was changed", "kim", "1")
    assert gmmas(path, "verify") == 0


def test_a_long_reason_leaves_no_site_without_a_record(tmp_path: Path) -> None:
    path = write_site(tmp_path, cases=1)
    config = SiteConfig.from_yaml(path)
    pause_site(config, by="kim")
    with pytest.raises(ValidationError):
        renew_log(config, reason="word " * 100, by="kim")
    (line,) = read_lines(log_of(path))
    assert line.by == "kim"
    assert gmmas(path, "renew", "--reason", "word " * 100) == 0
    (line,) = read_lines(log_of(path))
    assert line.reason.startswith("word word")


def test_a_site_without_a_record_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_site(tmp_path, cases=1)
    assert gmmas(path) == 0
    assert "nothing was asked yet" in capsys.readouterr().out
