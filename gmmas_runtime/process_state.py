"""The state file of a supervisor: how `status` and `down`, run from another terminal, see and stop it.

A process is known by pid and creation time together, so that a pid the system has given to somebody else is never touched. Whether
a supervisor is alive is told by a file lock it holds, which the kernel drops with it.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import psutil
from pydantic import Field, ValidationError

from gmmas_runtime.file_locks import is_locked, try_lock
from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import FederationError, GmmasError

CREATE_TIME_TOLERANCE_S = 1.0
POLL_S = 0.05


class ProcessState(StrEnum):
    """Where a process is in its life."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    BACK_OFF = "back_off"
    EXITED = "exited"
    FAILED = "failed"
    STOPPED = "stopped"


class ProcessStatus(FrozenModel):
    """One supervised process; memory in MiB, of the process and its descendants."""

    name: str
    state: ProcessState
    pid: int | None = None
    create_time: float | None = None
    restarts: int = Field(default=0, ge=0)
    rss_mib: float = 0.0
    peak_mib: float = 0.0
    log_file: str = ""
    error: str = ""


class SupervisorState(FrozenModel):
    """What a supervisor knows; `ready` once every process was, `written` in seconds since 1970."""

    pid: int
    create_time: float
    ready: bool
    written: float
    processes: tuple[ProcessStatus, ...]


class SupervisorLock:
    """The lock beside a state file, held for the life of its supervisor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def take(cls, state_file: Path) -> "SupervisorLock":
        """Take the lock.

        Raises:
            FederationError: another supervisor holds it.
        """
        descriptor = os.open(_lock_file(state_file), os.O_RDWR | os.O_CREAT, 0o600)
        if not try_lock(descriptor):
            os.close(descriptor)
            raise FederationError(
                "these processes are running already",
                where=state_file.parent,
                got="a live supervisor" + (f" (pid {state.pid})" if (state := read_state(state_file)) else ""),
                expected="none",
                remedy="use the running one, or stop it first with the `down` or `stop` command",
            )
        return cls(descriptor)

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._descriptor)


def write_state(state_file: Path, state: SupervisorState) -> None:
    """Write the state atomically."""
    write_atomic(state_file, state.model_dump_json(indent=1).encode(), durable=False)


def read_state(state_file: Path) -> SupervisorState | None:
    """Return what was last written, or None if there is no readable state."""
    try:
        return SupervisorState.model_validate_json(state_file.read_bytes())
    except (OSError, ValidationError):
        return None


def is_supervised(state_file: Path) -> bool:
    """Return whether a live supervisor holds this state file."""
    return is_locked(_lock_file(state_file))


def live_state(state_file: Path) -> SupervisorState | None:
    """Return the state of a live supervisor, or None if none is alive."""
    return read_state(state_file) if is_supervised(state_file) else None


def stop_supervisor(state_file: Path, *, timeout_s: float = 60.0) -> bool:
    """Stop the supervisor of a state file and with it its processes; returns whether one was alive.

    Raises:
        FederationError: it was still there after `timeout_s`.
    """
    if not is_supervised(state_file):
        _kill_orphans(read_state(state_file))
        return False
    supervisor: psutil.Process | None = None
    deadline = time.monotonic() + timeout_s
    while is_supervised(state_file):
        # One that is just starting has the lock, and beside it at most the state of the one before.
        if supervisor is None and (state := read_state(state_file)) is not None:
            supervisor = process_of(state.pid, state.create_time)
            if supervisor is not None:
                supervisor.send_signal(signal.SIGTERM)
        if time.monotonic() > deadline:
            raise _does_not_stop(state_file, supervisor, timeout_s)
        time.sleep(POLL_S)
    return True


def launch_in_background(
    argv: Sequence[str],
    *,
    state_file: Path,
    log_file: Path,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 180.0,
    on_change: Callable[[SupervisorState], None] | None = None,
) -> SupervisorState:
    """Start a command that runs a Supervisor, detached from this terminal; returns once all its processes are ready.

    Raises:
        FederationError: the command ended or was not ready within `timeout_s` (it is stopped then); carries the end of its log.
    """
    descriptor = os.open(log_file, os.O_WRONLY | os.O_TRUNC | os.O_CREAT, 0o600)
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
    finally:
        os.close(descriptor)
    deadline = time.monotonic() + timeout_s
    while True:
        state = live_state(state_file)
        if state is not None and state.pid == process.pid:
            if on_change is not None:
                on_change(state)
            if state.ready:
                process.returncode = 0  # handed over: it outlives us, and Popen must not warn about that
                return state
        exit_code = process.poll()
        if exit_code is not None or time.monotonic() > deadline:
            process.terminate()
            process.wait()
            raise _background_failure(log_file, exit_code, timeout_s)
        time.sleep(POLL_S)


def create_time_of(pid: int) -> float | None:
    """Return when a process was created (seconds since 1970), or None if there is none of that pid."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def process_of(pid: int, create_time: float) -> psutil.Process | None:
    """Return the process that has this pid and was created then, or None if it is gone."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - create_time) < CREATE_TIME_TOLERANCE_S and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if same else None


def _kill_orphans(state: SupervisorState | None) -> None:
    """Kill processes a dead supervisor has left (none on Linux, where they die with it)."""
    for status in state.processes if state else ():
        orphan = process_of(status.pid, status.create_time) if status.pid and status.create_time else None
        if orphan is not None:
            orphan.kill()


def _does_not_stop(state_file: Path, supervisor: psutil.Process | None, timeout_s: float) -> FederationError:
    return FederationError(
        "a supervisor does not stop",
        where=state_file,
        got=f"pid {supervisor.pid} still alive after {timeout_s:g} s" if supervisor is not None else "one that has not written who it is",
        expected="its end",
        remedy=(
            f"end it with `kill -9 {supervisor.pid}`" if supervisor is not None else f"end the process that holds {_lock_file(state_file)}"
        )
        + ": its processes end with it",
    )


def _background_failure(log_file: Path, exit_code: int | None, timeout_s: float) -> GmmasError:
    lines = log_file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return FederationError(
        "the processes did not start in the background",
        where=log_file,
        got="\n            ".join([f"exit code {exit_code}" if exit_code is not None else "no answer", *lines[-8:]]),
        expected=f"all ready within {timeout_s:g} s",
        remedy="mend what the lines above say, or start in the foreground to watch",
    )


def _lock_file(state_file: Path) -> Path:
    return state_file.with_name(state_file.name + ".lock")
