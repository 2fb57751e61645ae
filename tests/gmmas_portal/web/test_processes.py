"""The platform's two processes under their supervisor: a worker that is killed loses nothing."""

import os
import signal
import urllib.request
from pathlib import Path

import pytest

from gmmas_portal.web.cases import CaseStore
from gmmas_portal.web.deployment import portal_processes, prepare_portal
from gmmas_portal.web.jobs import Job, JobQueue, JobState
from gmmas_portal.web.tables import Database
from gmmas_runtime.processes import Supervisor
from tests.gmmas_portal.web.conftest import CASE
from tests.gmmas_runtime.waiting import wait_until
from tests.server.ports import free_port

PATIENCE_S = 200.0


@pytest.mark.slow
@pytest.mark.integration
def test_a_killed_worker_is_started_again_and_finishes_its_job(model_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(CASE.parents[2]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = prepare_portal(tmp_path / "portal", sample=CASE, model=str(model_source), port=free_port())
    database = Database(folder.database)
    cases, queue = CaseStore(database), JobQueue(database)
    (case,) = cases.cases()

    def job() -> Job:
        found = queue.latest(case.key)
        assert found is not None
        return found

    with Supervisor(portal_processes(folder), state_file=folder.state_file) as supervisor:
        with urllib.request.urlopen(f"{folder.config.address}/health") as answer:
            assert answer.read() == b"ok\n"
        wait_until(lambda: job().state is JobState.RUNNING and job().step != "", what="a job at work", timeout_s=PATIENCE_S)
        (pid,) = (status.pid for status in supervisor.status() if status.name == "worker")
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: job().is_over, what="the end of the job", timeout_s=PATIENCE_S)
    assert (job().state, job().attempts, job().fault) == (JobState.DONE, 2, {})
    assert cases.case(case.key).versions == 1
    assert (folder.version(case.key, 1) / "segmentation.nii.gz").is_file()
    assert not [path for path in (folder.cases / case.key).iterdir() if path.name.startswith(".")]
