"""The enrolment file, its fingerprint, and a new key."""

import stat
from pathlib import Path

import pytest

from client.audit_verification import read_lines
from client.folder import NodeFolder
from client.machine import CheckState, certificate_warnings
from gmmas_cli.main import run_program
from gmmas_runtime.enrolment_file import fingerprint_of, key_sha256, read_enrolment
from gmmas_runtime.keys import load_node_key, make_authority
from gmmas_schema.messages import Action
from gmmas_schema.site import SiteConfig
from tests.client.serving import TIMEOUT_S, serving
from tests.client.sites import make_request, write_site


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")


def gmmas(path: Path, *arguments: str) -> int:
    return run_program(["site", *arguments, "--config", str(path)])


def test_the_file_is_made_anew_and_names_its_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_site(tmp_path, cases=1)
    assert gmmas(path, "enrolment", "--contact", "Kim, +49 1234") == 0
    shown = capsys.readouterr().out
    enrolment, key = read_enrolment(tmp_path / "keys" / "north.enrolment.json")
    assert (enrolment.site, enrolment.contact) == ("north", "Kim, +49 1234")
    assert "north.enrolment.json" in shown
    assert gmmas(path, "fingerprint") == 0
    fingerprint = capsys.readouterr().out.strip()
    assert fingerprint == fingerprint_of(key_sha256(key))
    assert fingerprint in shown


def test_a_contact_that_cannot_be_printed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gmmas(write_site(tmp_path, cases=1), "enrolment", "--contact", "a\nb") == 1
    assert "--contact" in capsys.readouterr().err


def test_a_new_key_puts_the_old_one_and_its_record_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_site(tmp_path, cases=2)
    site = SiteConfig.from_yaml(path)
    before = load_node_key(site.node.private_key).public_key()
    with serving(site) as trainer:
        trainer.describe(make_request(Action.DESCRIBE), timeout_s=TIMEOUT_S)
    assert gmmas(path, "new-key", "--reason", "the machine was replaced", "--by", "kim") == 0
    shown = capsys.readouterr().out
    assert "--replace" in shown
    key = load_node_key(site.node.private_key)
    assert key.public_key() != before
    assert read_enrolment(tmp_path / "keys" / "north.enrolment.json")[1] == key.public_key()
    (old,) = (tmp_path / "keys").glob("north.until-*")
    assert load_node_key(old).public_key() == before
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
    (line,) = read_lines(NodeFolder(site.node.state).audit_log)
    assert (line.reason, line.by) == ("the machine was replaced", "kim")
    assert (line.detail["good_lines"], line.detail.get("fault", "")) == ("2", "")
    assert gmmas(path, "audit", "verify") == 0
    (record,) = site.node.state.glob("audit-log-until-*")
    (public,) = (tmp_path / "keys").glob("north.pub.until-*")
    assert gmmas(path, "audit", "verify", "--folder", str(record), "--key", str(public)) == 0
    assert gmmas(path, "audit", "verify", "--folder", str(record)) == 1
    with serving(site) as trainer:
        trainer.describe(make_request(Action.DESCRIBE), timeout_s=TIMEOUT_S)


def test_what_expires_soon_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = SiteConfig.from_yaml(write_site(tmp_path, cases=1))
    assert certificate_warnings(site, timeout_s=0.2) == ()
    monkeypatch.setattr("gmmas_runtime.keys.AUTHORITY_DAYS", 12)
    make_authority(tmp_path / "young", name="test")
    near = site.model_copy(
        update={"coordinator": site.coordinator.model_copy(update={"root_certificate": tmp_path / "young" / "authority.pem"})}
    )
    (warning,) = certificate_warnings(near, timeout_s=0.2)
    assert warning.state is CheckState.WARNING
    assert "expires in 11 days" in warning.found
    assert "authority.pem" in warning.remedy
