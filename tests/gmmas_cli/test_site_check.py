"""`gmmas site check` as a hospital runs it: what it says, what it writes, and that nothing leaves by itself."""

import json
import stat
from pathlib import Path

import pytest
import yaml

from gmmas_cli.main import run_program
from gmmas_runtime.keys import load_node_key
from gmmas_runtime.signed_record import read_signed_record
from gmmas_schema.site import SiteConfig
from tests.client.loopback import free_port
from tests.client.sites import PATIENT, write_site
from tests.client.test_preflight import coordinator
from tests.gmmas_data.real_case import write_real


@pytest.fixture
def site(tmp_path: Path) -> Path:
    config = write_site(tmp_path, cases=0, address=f"127.0.0.1:{free_port()}", runtime_port=free_port())
    write_real(tmp_path / "data" / PATIENT, case_id=PATIENT)
    (tmp_path / "labels.csv").write_text(f"patient_id,idh,codeletion,side\n{PATIENT},wildtype,,\n")
    return config


def check(config: Path, *options: object) -> int:
    return run_program(["site", "check", "--config", str(config), "--processes", "1", *map(str, options)])


def test_a_good_site_passes_with_its_coordinator(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with coordinator(SiteConfig.from_yaml(site)):
        assert check(site) == 0
    out = capsys.readouterr().out
    for said in ("enrolment", "certificate", "clock", "disk", "memory", "nothing found to mend", "report.html"):
        assert said in out
    report = site.parent / "state" / "audit" / "report.html"
    assert PATIENT in report.read_text()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    assert not list(report.parent.glob("aggregate*"))


def test_an_absent_coordinator_is_one_fault_and_the_data_is_audited_all_the_same(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(site) == 1
    out = capsys.readouterr().out
    assert "Connection refused" in out
    assert "nothing found to mend" in out
    assert check(site, "--offline") == 0
    assert check(site, "--no-data", "--offline") == 0


def test_consent_writes_a_signed_file_that_names_nobody(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "salt").write_text("ab" * 32 + "\n")
    assert check(site, "--no-machine", "--consent", "--salt", tmp_path / "salt") == 0
    said = capsys.readouterr().out
    assert "Signed and written, not sent" in said
    assert "One was written before" not in said
    path = site.parent / "state" / "audit" / "aggregate-north.json"
    record = read_signed_record(path, load_node_key(SiteConfig.from_yaml(site).node.private_key).public_key())
    assert PATIENT not in path.read_text()
    assert str(tmp_path) not in path.read_text()
    assert set(record["counts"].values()) == {None}
    assert record["fingerprints"] == {}
    assert check(site, "--no-machine", "--consent") == 0
    assert "One was written before" in capsys.readouterr().out


def test_a_bad_case_is_explained_and_the_exit_code_is_one(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan = next((tmp_path / "data").rglob("*_flair.nii"))
    scan.write_bytes(next((tmp_path / "data").rglob("*_t1.nii")).read_bytes())
    (tmp_path / "data" / "stray.nii").touch()
    assert check(site, "--no-machine") == 1
    out = capsys.readouterr().out
    for said in ("does not look like a flair", "same voxels under two names", "1 files left out: the name follows no known convention"):
        assert said in out
    assert json.loads((site.parent / "state" / "audit" / "report.json").read_bytes())["left_out"] == {
        "the name follows no known convention": 1
    }


@pytest.mark.parametrize("content", ["", "ab", "zz" * 32, "\xff"])
def test_a_salt_that_is_none_is_refused(site: Path, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "salt").write_text(content)
    assert check(site, "--no-machine", "--salt", tmp_path / "salt") == 1
    assert "salt cannot be used" in capsys.readouterr().err


def test_a_table_of_ones_own_reaches_the_audit(site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = yaml.safe_load(site.read_text())
    raw["data"]["table"] = {"columns": {"patient_id": "Nr", "side": "Seite"}, "values": {"side": {"links": "left"}}}
    site.write_text(yaml.safe_dump(raw))
    (tmp_path / "labels.csv").write_text(f"Nr,Seite\n{PATIENT},links\n")
    assert check(site, "--no-machine") == 0
    (tmp_path / "labels.csv").write_text(f"Nr,Seite\n{PATIENT},oben\n")
    assert check(site, "--no-machine") == 1
    assert "'oben'" in capsys.readouterr().err
