import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from gmmas_runtime.worker import begin_worker, end_with_parent

PARENT = """
import sys
from tests.gmmas_runtime.test_worker import start_and_wait
start_and_wait()
"""


def work() -> None:
    begin_worker()
    while True:
        time.sleep(60)


def start_and_wait() -> None:
    """Start a worker, tell its number, and wait to be killed."""
    worker = multiprocessing.get_context("spawn").Process(target=work)
    worker.start()
    print(worker.pid, flush=True)  # noqa: T201
    worker.join()


def test_a_worker_ends_when_its_parent_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    # What the parent's helper of multiprocessing still has to clean up takes a moment.
    psutil.wait_procs([worker], timeout=60)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_a_process_without_a_parent_goes_on() -> None:
    end_with_parent()
    assert os.getpid() > 0
