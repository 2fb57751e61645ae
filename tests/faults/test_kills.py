"""SIGKILL for every kind of process at every stage of a run, and a line that is cut: the run ends in the weights of an unbroken one."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from client.trainer_service_pb2 import State
from gmmas_runtime.probe import serves_http
from gmmas_schema.events import EventKind
from server.checkpoint import RunFolder
from server.launching import stop_submitted_run
from tests.client.loopback import free_port
from tests.faults.federation import STAGES, Federation, Story, forget, kill, missing_replies, outcome, training
from tests.faults.table import EQUAL, MISSING, Row, write_row
from tests.gmmas_runtime.waiting import wait_until

pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(1500)]

VICTIMS = ("serverapp", "superlink", "superexec", "trainer", "executor", "supernode")


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with Federation(tmp_path_factory.mktemp("faults")).up() as up:
        yield up


@pytest.fixture(scope="module")
def unbroken(federation: Federation) -> dict[str, bytes | str]:
    folder, story = federation.run()
    found = outcome(folder)
    write_row(Row("none", "", EQUAL, story.resumes, failed_attempts(story), story.seconds))
    assert (story.resumes, missing_replies(folder)) == (0, 0)
    return found


def failed_attempts(story: Story) -> int:
    return sum(event.kind is EventKind.ROUND_FAILED for event in story.events)


def settle(fault: str, stage: str, folder: RunFolder, story: Story, unbroken: dict[str, bytes | str], *, note: str = "") -> None:
    """Compare a run with the unbroken one, and write it down whatever came out."""
    found, missing = outcome(folder), missing_replies(folder)
    result = EQUAL if found == unbroken else MISSING if missing else "other weights"
    write_row(Row(fault, stage, result, story.resumes, failed_attempts(story), story.seconds, note))
    assert missing == 0
    assert found == unbroken
    forget(folder)


@pytest.mark.parametrize("victim", VICTIMS)
@pytest.mark.parametrize("stage", ["training", "checkpointing", "calibrating", "replying", "waiting for sites"])
def test_a_killed_process_changes_nothing(federation: Federation, unbroken: dict[str, bytes | str], victim: str, stage: str) -> None:
    folder, story = federation.run(moment=STAGES[stage], fault=kill(victim))
    settle(f"SIGKILL of the {victim}", stage, folder, story, unbroken)


@pytest.mark.parametrize("seconds", [10, 60, 180])
@pytest.mark.parametrize("kind", ["stalled", "broken"])
def test_a_cut_line_changes_nothing(federation: Federation, unbroken: dict[str, bytes | str], kind: str, seconds: int) -> None:
    def cut(federation: Federation) -> None:
        assert federation.line is not None
        with getattr(federation.line, kind)():
            time.sleep(seconds)

    folder, story = federation.run(moment=training, fault=cut)
    settle(f"line {kind} for {seconds} s", "training", folder, story, unbroken)


def test_a_killed_mlflow_server_changes_nothing(
    federation: Federation, unbroken: dict[str, bytes | str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_until(lambda: serves_http(f"http://127.0.0.1:{port}"), timeout_s=300, what="the MLflow server")
        changes = {"tracking": {"uri": f"http://127.0.0.1:{port}"}}
        ended, story = federation.run(moment=training, fault=lambda _: os.killpg(server.pid, signal.SIGKILL), changes=changes)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    settle("SIGKILL of the MLflow server", "training", ended, story, unbroken, note="what the store lacks, a resume writes")


def test_a_stopped_run_does_not_keep_a_site_training(federation: Federation) -> None:
    path = federation.begin(changes={"training": {"local_steps": 100_000, "precision": "fp32"}, "rounds": 1})
    wait_until(lambda: is_training(federation), timeout_s=300, what="the training")
    stop_submitted_run(path)
    start = time.monotonic()
    wait_until(lambda: not is_training(federation), timeout_s=300, what="the end of the training")
    seconds = time.monotonic() - start
    write_row(Row("gmmas server stop-run", "training", "the site stops training", 0, 0, seconds, "seconds until the trainer was idle"))


def is_training(federation: Federation) -> bool:
    progress = federation.progress()
    return progress is not None and progress.state == State.TRAINING and progress.step >= 1
