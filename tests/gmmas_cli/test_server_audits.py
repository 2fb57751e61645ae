"""From a hospital's consent to the coordinator's table, on the command line."""

import json
from pathlib import Path

import pytest

from gmmas_cli.main import run_program
from gmmas_runtime.enrolment_file import key_sha256, openssh_text
from gmmas_runtime.keys import load_public_key
from gmmas_schema.enrolment import EnrolledKey
from server.deployment import init_coordinator
from server.folder import CoordinatorFolder
from server.site_register import SiteRegister
from tests.client.sites import PATIENT, write_site


@pytest.fixture
def coordinator(tmp_path: Path) -> Path:
    return init_coordinator(tmp_path / "coordinator").path


def test_a_salt_and_a_consent_become_a_table(coordinator: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = ["--server", str(coordinator)]
    assert run_program(["server", "salt", *server]) == 0
    salt = coordinator / "fingerprint.salt"
    assert str(salt) in capsys.readouterr().out.replace("\n", "")
    path = write_site(tmp_path / "north", cases=2)
    run_program(["site", "check", "--no-machine", "--consent", "--salt", str(salt), "--config", str(path)])
    aggregate = tmp_path / "north" / "state" / "audit" / "aggregate-north.json"
    capsys.readouterr()
    assert run_program(["server", "audits", str(aggregate), *server]) == 1
    assert "not known here" in capsys.readouterr().err
    public = load_public_key(tmp_path / "north" / "keys" / "north.pub")
    key = EnrolledKey(public_key=openssh_text(public), key_sha256=key_sha256(public), enrolled="2026-11-23T00:00:00Z")
    SiteRegister(CoordinatorFolder.open(coordinator)).note("north", key)
    assert run_program(["server", "audits", str(aggregate), *server]) == 0
    shown = capsys.readouterr().out
    assert "few" in shown
    assert "Fewer than two hospitals" in shown
    assert PATIENT not in shown + aggregate.read_text()
    assert run_program(["server", "audits", str(aggregate), "--json", *server]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["rows"]["cases"] == {"north": "few", "together": "few"}
    assert table["shared"] == []
