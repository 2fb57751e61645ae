import io
import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from rich.console import Console

import gmmas_cli.site
from client.trainer_service_pb2 import Progress, State
from gmmas_cli.main import run_program
from gmmas_runtime.enrolment_file import read_enrolment
from gmmas_runtime.keys import load_node_key, load_public_key, make_node_key
from gmmas_runtime.process_state import ProcessState, ProcessStatus, SupervisorState, live_state
from gmmas_schema.site import SiteConfig
from gmmas_schema.vocabulary import Modality
from tests.client.loopback import free_port
from tests.client.sites import read_site, write_site
from tests.client.test_preflight import coordinator

EXAMPLES = sorted((Path(__file__).parents[2] / "site_configs").glob("site-*.yaml"))


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    """Return a folder with a cohort, a table of labels and the coordinator's certificate."""
    write_site(tmp_path, cases=1)
    shutil.rmtree(tmp_path / "keys")
    (tmp_path / "site.yaml").unlink()
    return tmp_path


def init(hospital: Path, **changes: str) -> list[str]:
    options = {
        "site": "north",
        "data": str(hospital / "data"),
        "labels": str(hospital / "labels.csv"),
        "coordinator": "gmmas.example.org:9092",
        "root-certificate": str(hospital / "authority" / "authority.pem"),
        **{key.replace("_", "-"): value for key, value in changes.items()},
    }
    return ["site", "init", str(hospital / "node"), *(part for key, value in options.items() if value for part in (f"--{key}", value))]


def test_init_writes_a_commented_site_and_its_key(hospital: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(init(hospital, modalities="flair, t2")) == 0
    path = hospital / "node" / "site.yaml"
    site = SiteConfig.from_yaml(path)
    assert site.site == "north"
    assert site.data.root == hospital / "data"
    assert site.data.modalities == (Modality.T2, Modality.FLAIR)
    assert path.read_text().count("#") > 10
    assert stat.S_IMODE(site.node.private_key.stat().st_mode) == 0o600
    public = site.node.private_key.with_name("north.pub")
    assert load_node_key(site.node.private_key).public_key() == load_public_key(public)
    said = capsys.readouterr().out
    enrolment, key = read_enrolment(public.with_name("north.enrolment.json"))
    assert (enrolment.site, key) == ("north", load_public_key(public))
    assert str(public.with_name("north.enrolment.json")) in said
    assert "gmmas site start" in said
    assert "PRIVATE" not in said


def test_init_does_not_touch_an_existing_site(hospital: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(init(hospital)) == 0
    before = {path: path.read_bytes() for path in (hospital / "node").rglob("*") if path.is_file()}
    assert run_program(init(hospital)) == 1
    assert "holds a site already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (hospital / "node").rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"site": "Not Allowed"}, "site: String should match"),
        ({"coordinator": "no-port"}, "coordinator.address"),
        ({"modalities": "t1,t9"}, "data.modalities"),
        ({"runtime_port": "80"}, "node.runtime_port"),
        ({"root_certificate": "/nowhere/authority.pem"}, "/nowhere/authority.pem"),
        ({"data": ""}, "--data"),
    ],
)
def test_init_writes_nothing_if_an_answer_is_wrong(
    hospital: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], message: str
) -> None:
    assert run_program(init(hospital, **change)) == 1
    assert message in capsys.readouterr().err
    assert not (hospital / "node").exists()


def test_init_asks_at_a_terminal(hospital: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(f"\neast\n{hospital / 'data'}\n"))
    assert run_program(init(hospital, site="", data="")) == 0
    site = SiteConfig.from_yaml(hospital / "node" / "site.yaml")
    assert (site.site, site.data.root) == ("east", hospital / "data")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_valid_and_commented(path: Path) -> None:
    site = SiteConfig.from_yaml(path)
    assert site.node.executor == "resident"
    assert path.read_text().startswith("# ")


def test_there_is_an_example_per_kind_of_site() -> None:
    assert len(EXAMPLES) == 3
    assert {len(SiteConfig.from_yaml(path).data.modalities) for path in EXAMPLES} == {4, 3, 2}


def edit(path: Path, *keys: str, value: object) -> None:
    raw = yaml.safe_load(path.read_text())
    part = raw
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    path.write_text(yaml.safe_dump(raw))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("surprise",), 1, "unknown key 'surprise'"),
        (("node", "private_key"), "keys/missing", "keys/missing"),
        (("node", "private_key"), "keys/north.pub", "north.pub"),
        (("coordinator", "root_certificate"), "missing.pem", "missing.pem"),
        (("data", "root"), "missing", "cohort's folder is missing"),
        (("data", "labels"), "missing.csv", "table of labels is missing"),
        (("coordinator", "address"), "127.0.0.1:1", "does not answer"),
        (("coordinator", "address"), "unknown.invalid:9092", "unknown.invalid:9092"),
    ],
)
def test_start_explains_what_is_wrong_and_starts_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: tuple[str, ...], value: object, message: str
) -> None:
    path = write_site(tmp_path, cases=1, runtime_port=free_port())
    edit(path, *keys, value=value)
    assert run_program(["site", "start", "--config", str(path), "--wait", "0"]) == 1
    said = capsys.readouterr().err
    assert message in said
    for row in ("where", "got", "expected", "remedy"):
        assert row in said
    assert "Traceback" not in said
    assert not (tmp_path / "state").exists()


def test_start_explains_an_unknown_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = read_site(tmp_path, cases=1, address=f"127.0.0.1:{free_port()}", runtime_port=free_port())
    with coordinator(site, enrolled=False):
        assert run_program(["site", "start", "--config", str(tmp_path / "site.yaml")]) == 1
    assert "does not know this site's key" in capsys.readouterr().err


def test_commands_for_a_node_that_is_not_running(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write_site(tmp_path, cases=1))
    (tmp_path / "state").mkdir()
    assert run_program(["site", "stop", "--config", path]) == 0
    assert run_program(["site", "status", "--config", path]) == 1
    assert "gmmas site start" in capsys.readouterr().out
    assert run_program(["site", "pause", "--config", path]) == 0
    assert "will start paused" in capsys.readouterr().out


def test_the_screen_shows_what_the_trainer_is_doing() -> None:
    state = SupervisorState(
        pid=1,
        create_time=0,
        ready=True,
        written=0,
        processes=(ProcessStatus(name="trainer", state=ProcessState.RUNNING, pid=7, rss_mib=300),),
    )
    progress = Progress(
        state=State.TRAINING,
        site="north",
        run="r",
        round=2,
        rounds=20,
        step=3,
        steps=30,
        cases=9,
        cases_left_out=1,
        loss=0.25,
        rss_bytes=2**28,
    )
    console = Console(file=io.StringIO(), width=100)
    console.print(gmmas_cli.site._screen("north", state, progress))
    console.print(gmmas_cli.site._describe(None))
    shown = console.file.getvalue()
    for said in (
        "trainer",
        "running",
        "300 MiB",
        "training",
        "run r, round 2 of 20, step 3 of 30",
        "0.2500",
        "9 cases, 1 left out",
        "256 MiB",
    ):
        assert said in shown
    assert "does not answer" in shown


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (Progress(state=State.PREPARING), "preparing: reading the cohort"),
        (Progress(state=State.PREPARING, cases=3, cases_to_cache=5), "3 of 5 cases checked"),
        (Progress(state=State.PREPARING, cases=5, cases_cached=2, cases_to_cache=5), "2 of 5 cases preprocessed"),
        (Progress(state=State.IDLE, last_error="E_DATA"), "the last task failed: E_DATA"),
        (Progress(state=State.IDLE, notice="round 2: E_REPLY_REFUSED far"), "refused the last answer: round 2: E_REPLY_REFUSED far"),
    ],
)
def test_preparation_and_failures_are_told(progress: Progress, said: str) -> None:
    assert said in gmmas_cli.site._describe(progress).plain


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SiteConfig]:
    """A node in the background, connected to a real SuperLink."""
    site = read_site(tmp_path, cases=4, address=f"127.0.0.1:{free_port()}", runtime_port=free_port())
    with coordinator(site):
        try:
            yield site
        finally:
            run_program(["site", "stop", "--config", str(tmp_path / "site.yaml")])


@pytest.mark.integration
def test_a_node_in_the_background_is_shown_paused_resumed_and_stopped(
    node: SiteConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ["--config", str(tmp_path / "site.yaml")]
    assert run_program(["site", "start", "--background", *config]) == 0
    state = live_state(tmp_path / "state" / "node.json")
    assert state is not None
    assert [(process.name, process.state) for process in state.processes] == [
        (name, ProcessState.RUNNING) for name in ("trainer", "supernode", "executor")
    ]
    capfd.readouterr()
    assert run_program(["site", "status", *config]) == 0
    shown = capfd.readouterr().out
    assert "idle" in shown
    assert "4 cases" in shown
    assert run_program(["site", "start", *config]) == 1
    assert "running already" in capfd.readouterr().err
    assert run_program(["site", "pause", *config]) == 0
    assert run_program(["site", "status", *config]) == 0
    assert "paused" in capfd.readouterr().out
    assert run_program(["site", "resume", *config]) == 0
    shown_once, screen = threading.Event(), gmmas_cli.site._screen
    monkeypatch.setattr(gmmas_cli.site, "_screen", lambda *seen: shown_once.set() or screen(*seen))
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(run_program, ["site", "status", "--follow", *config])
        assert shown_once.wait(20)
        assert run_program(["site", "stop", *config]) == 0
        assert following.result(20) == 0
    assert "has stopped" in capfd.readouterr().out
    assert live_state(tmp_path / "state" / "node.json") is None
    assert not (tmp_path / "state" / "trainer.sock").exists()
    for log in (tmp_path / "state" / "logs").glob("*.log"):
        assert "Traceback" not in log.read_text(), log


@pytest.mark.integration
@pytest.mark.slow
def test_a_cohort_that_cannot_be_read_ends_the_start_with_its_explanation(node: SiteConfig, tmp_path: Path) -> None:
    scan = next(node.data.root.rglob("*_t1.nii"))
    scan.write_bytes(b"no scan")
    ended = subprocess.run(
        [sys.executable, "-m", "gmmas_cli.main", "site", "start", "--config", str(tmp_path / "site.yaml")],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1
    assert "1 of 4 cases do not pass the quality gate" in ended.stderr
    assert "skip_bad_cases" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert os.path.lexists(tmp_path / "state")


def test_a_key_is_never_overwritten(hospital: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_node_key(hospital / "node" / "keys" / "north")
    assert run_program(init(hospital)) == 1
    assert "never overwritten" in capsys.readouterr().err
    assert not (hospital / "node" / "site.yaml").exists()
