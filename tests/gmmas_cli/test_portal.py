"""`gmmas portal` up to the processes it would run; those are tried in tests/gmmas_portal/web."""

from pathlib import Path

import pytest

from gmmas_cli import portal
from gmmas_cli.main import FAULT, run_program
from gmmas_portal.analysis.context import CaseContext, TissueResults
from gmmas_portal.analysis.fact_ids import OOD_SCORE
from gmmas_portal.analysis.novelty import FEWEST_KNOWN
from gmmas_portal.web.accounts import MODEL_AUTHOR, AccountStore, Role
from gmmas_portal.web.cases import CaseStore
from gmmas_portal.web.deployment import invite_newcomers, portal_processes, prepare_portal
from gmmas_portal.web.jobs import JobKind, JobQueue
from gmmas_portal.web.model_copy import read_papers
from gmmas_portal.web.settings import PortalFolder
from gmmas_portal.web.tables import Database
from gmmas_schema.case_record import Fact
from gmmas_schema.errors import ConfigError, FederationError, TrustError
from gmmas_schema.vocabulary import Subtype
from tests.gmmas_portal.sample_case import make_record
from tests.server.ports import free_port


@pytest.fixture
def opened(weights_folder: Path, tmp_path: Path) -> PortalFolder:
    return prepare_portal(tmp_path / "portal", model=str(weights_folder), port=free_port(), institution="St. Test")


def test_a_first_start_needs_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["portal", "--folder", str(tmp_path / "portal")]) == FAULT
    assert "--model" in capsys.readouterr().err
    assert not (tmp_path / "portal").exists()
    for command in (["link", "clinician"], ["audit"], ["status"], ["down"]):
        assert run_program(["portal", "--folder", str(tmp_path / "portal"), *command]) == FAULT


def test_a_folder_of_something_else_is_left_alone(weights_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ConfigError, match="in use"):
        prepare_portal(tmp_path, model=str(weights_folder))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_first_start_makes_accounts_a_copy_of_the_model_and_the_sample_case(opened: PortalFolder, weights_folder: Path) -> None:
    assert opened.path.stat().st_mode & 0o777 == 0o700
    database = Database(opened.database)
    roles = {account.name: account.role for account in AccountStore(database).accounts()}
    assert roles == {"clinician": Role.CLINICIAN, "admin": Role.ADMIN}
    assert (opened.model / "model.safetensors").read_bytes() == (weights_folder / "model.safetensors").read_bytes()
    assert read_papers(opened).card is None
    (case,) = CaseStore(database).cases()
    job = JobQueue(database).latest(case.key)
    assert job is not None
    assert (case.sample, job.kind) == (True, JobKind.SAMPLE)
    again = prepare_portal(opened.path, institution="St. Other")
    assert (again.config.institution, again.config.model, again.config.port) == ("St. Other", opened.config.model, opened.config.port)
    assert len(CaseStore(database).cases()) == 1


def test_a_model_that_nobody_vouches_for_is_refused_where_an_authority_is_given(weights_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrustError, match="vouches"):
        prepare_portal(tmp_path / "portal", model=str(weights_folder), authority=str(tmp_path / "authority.pem"))


def test_links_are_made_until_there_is_a_password(opened: PortalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert [invitation.account.name for invitation in invite_newcomers(opened)] == ["clinician", "admin"]
    AccountStore(Database(opened.database)).set_password("clinician", "a horse in the rain")
    assert [invitation.account.name for invitation in invite_newcomers(opened)] == ["admin"]
    assert run_program(["portal", "--folder", str(opened.path), "link", "clinician"]) == 0
    address = capsys.readouterr().out.strip()
    assert address.startswith(f"{opened.config.address}/welcome?ticket=")
    account = AccountStore(Database(opened.database)).take_ticket(address.partition("=")[2])
    assert account is not None
    assert account.name == "clinician"
    assert run_program(["portal", "--folder", str(opened.path), "link", "nobody"]) == FAULT


def test_the_audit_is_checked_at_the_terminal(opened: PortalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["portal", "--folder", str(opened.path), "audit"]) == 0
    assert "as they were written" in capsys.readouterr().out
    with Database(opened.database).writing() as database:
        database.execute("DROP TRIGGER audit_refuse_update")
        database.execute("UPDATE audit SET sha256 = 'x' WHERE n = 1")
    assert run_program(["portal", "--folder", str(opened.path), "audit"]) == FAULT
    assert "broken" in capsys.readouterr().out


def test_its_processes_are_the_web_server_and_the_worker(opened: PortalFolder) -> None:
    assert [spec.name for spec in portal_processes(opened)] == ["web", "worker"]
    assert Path("portal") == portal.DEFAULT_FOLDER


def test_a_port_that_is_taken_is_named(opened: PortalFolder) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", opened.config.port))
        taken.listen()
        with pytest.raises(FederationError, match="port is taken"):
            portal_processes(opened)


def test_what_is_not_installed_is_named_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(portal, "PACKAGES", (*portal.PACKAGES, "no_such_package"))
    assert run_program(["portal", "--folder", str(tmp_path / "portal"), "--model", "m"]) == FAULT
    shown = capsys.readouterr().err
    assert "no no_such_package" in shown
    assert "gmmas-fed[portal]" in shown
    assert not (tmp_path / "portal").exists()


def test_a_threshold_is_measured_on_known_gliomas_of_the_model_in_use(opened: PortalFolder, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["portal", "--folder", str(opened.path), "threshold"]
    cases, sha256 = CaseStore(Database(opened.database)), read_papers(opened).sha256

    def add(
        patient: str, score: float, *, diagnosis: Subtype | None = Subtype.GLIOBLASTOMA, model: str = sha256, sample: bool = False
    ) -> None:
        key = cases.add(created_by="anna", context=CaseContext(tissue=TissueResults(diagnosis=diagnosis)), sample=sample)
        cases.place(key, name=cases.next_name(patient), patient=patient, images={})
        record = make_record([Fact(id=OOD_SCORE, label="score", value=score, unit="1", source="network")])
        record = record.model_copy(update={"model": record.model.model_copy(update={"weights_sha256": model})})
        cases.add_version(key, record, author=MODEL_AUTHOR, reason="first analysis")
        corrected = record.segmentation.model_copy(update={"version": 2, "author": "anna"})
        cases.add_version(key, record.model_copy(update={"segmentation": corrected}), author="anna", reason="too large")

    for place in range(FEWEST_KNOWN - 1):
        add(f"P-{place}", 0.1 + place / 100)
        add(f"P-{place}", 0.1 + place / 100)  # patients count, not scans
    add("P-open", 0.9, diagnosis=None)
    add("P-sample", 0.9, sample=True)
    add("P-earlier", 0.9, model="e" * 64)
    assert run_program(command) == FAULT
    assert f"{FEWEST_KNOWN - 1} scores" in capsys.readouterr().err
    add("P-last", 0.1)
    assert run_program(command) == 0
    assert "0.28" in capsys.readouterr().out
    assert PortalFolder.open(opened.path).config.novelty is None
    assert run_program([*command, "--keep"]) == 0
    config = prepare_portal(opened.path).config
    assert config.threshold_for(sha256) == pytest.approx(0.28)
    assert config.threshold_for("e" * 64) is None
    capsys.readouterr()
    assert run_program(command) == 0
    assert "measured here" in capsys.readouterr().out
