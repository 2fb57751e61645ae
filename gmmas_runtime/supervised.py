"""One supervised process: what it is (ProcessSpec), what happens to it (ProcessEvent) and its life under gmmas_runtime.processes."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import psutil

from gmmas_runtime import child as child_program
from gmmas_runtime.files import write_atomic
from gmmas_runtime.process_state import ProcessState, ProcessStatus, create_time_of
from gmmas_schema.errors import FederationError, GmmasError

READY_EVERY_S = 0.2
LOG_LIMIT_BYTES = 20 * 2**20
LOG_TAIL_BYTES = 4096
MIB = 2**20


@dataclass(frozen=True)
class ProcessSpec:
    """One process to run.

    Attributes:
        name: unique among the supervisor's processes.
        argv: program and arguments.
        environment: variables set on top of the supervisor's own.
        folder: working folder.
        log_file: stdout and stderr are appended here (rights 0600; beyond 20 MiB the last of it goes to `.1`, and it begins anew).
        ready: says whether the process serves; None: ready once started. Called often, from the supervisor's thread, so it must be quick.
        ready_timeout_s: longest wait for `ready`; for the first start including its restarts.
        restart: start again after an exit; off: an exit is final.
        back_off_s: first and longest wait before a restart; doubles each time, forgotten after a life longer than the longest wait.
        permanent_exit: given exit code (negative: signal) and the end of the log, returns the error that makes restarts pointless, or None.
    """

    name: str
    argv: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log_file: Path
    ready: Callable[[], bool] | None = None
    ready_timeout_s: float = 60.0
    restart: bool = True
    back_off_s: tuple[float, float] = (1.0, 60.0)
    permanent_exit: Callable[[int, str], GmmasError | None] | None = None


class ProcessEventKind(StrEnum):
    """What happened to a process."""

    STARTED = "started"
    READY = "ready"
    EXITED = "exited"
    BACK_OFF = "back_off"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class ProcessEvent:
    """One change of a process; `error` is there for FAILED only, `exit_code` where it ended, `wait_s` for BACK_OFF."""

    kind: ProcessEventKind
    name: str
    pid: int | None = None
    exit_code: int | None = None
    wait_s: float | None = None
    error: GmmasError | None = None


class SupervisedProcess:
    """One process and its life so far; only the supervisor's thread touches it."""

    def __init__(self, spec: ProcessSpec, emit: Callable[[ProcessEvent], None]) -> None:
        self.spec, self._emit = spec, emit
        self.state = ProcessState.WAITING
        self.process: subprocess.Popen[bytes] | None = None
        self.create_time = 0.0
        self.restarts = 0
        self.was_ready = False
        self.error: GmmasError | None = None
        self.rss_mib = self.peak_mib = 0.0
        self._first_start = self._started = self._next_start = 0.0
        self._next_check = 0.0
        self._wait_s = spec.back_off_s[0]
        self._log_offset = 0

    @property
    def settled(self) -> bool:
        """Nothing more is to be waited for at start-up."""
        return self.was_ready or self.state in (ProcessState.FAILED, ProcessState.EXITED)

    def advance(self, now: float) -> bool:
        """Do what is due; returns whether the state changed."""
        before = (self.state, self.process and self.process.pid)
        if self.state is ProcessState.WAITING or (self.state is ProcessState.BACK_OFF and now >= self._next_start):
            self._start(now)
        if self.state in (ProcessState.STARTING, ProcessState.RUNNING):
            assert self.process is not None
            exit_code = self.process.poll()
            if exit_code is not None:
                self._exited(exit_code, now)
            elif self.state is ProcessState.STARTING:
                self._check_ready(now)
        return before != (self.state, self.process and self.process.pid)

    def _start(self, now: float) -> None:
        spec = self.spec
        if self._first_start:
            self.restarts += 1
        self._first_start = self._first_start or now
        self._started, self._next_check = now, 0.0
        self.limit_log()
        descriptor = os.open(spec.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            self._log_offset = os.fstat(descriptor).st_size
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(child_program.__file__)), str(os.getpid()), *spec.argv],
                env={**os.environ, **spec.environment},
                cwd=spec.folder,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
            )
        finally:
            os.close(descriptor)
        self.create_time = create_time_of(self.process.pid) or 0.0
        self.state = ProcessState.STARTING
        self._emit(ProcessEvent(ProcessEventKind.STARTED, spec.name, self.process.pid))

    def _check_ready(self, now: float) -> None:
        assert self.process is not None
        if now < self._next_check:
            return
        self._next_check = now + READY_EVERY_S
        if self.spec.ready is None or self.spec.ready():
            self.state, self.was_ready = ProcessState.RUNNING, True
            self._emit(ProcessEvent(ProcessEventKind.READY, self.spec.name, self.process.pid))
        elif now - (self._started if self.was_ready else self._first_start) > self.spec.ready_timeout_s:
            self.terminate(grace_s=2.0)
            if self.was_ready:
                self._back_off(now)
            else:
                self._fail(self._too_late("nothing answered"))

    def _exited(self, exit_code: int, now: float) -> None:
        spec = self.spec
        assert self.process is not None
        self._emit(ProcessEvent(ProcessEventKind.EXITED, spec.name, self.process.pid, exit_code))
        error = spec.permanent_exit(exit_code, self.log_tail()) if spec.permanent_exit else None
        if error is not None:
            self._fail(error, exit_code)
        elif spec.restart and (self.was_ready or now - self._first_start <= spec.ready_timeout_s):
            self._back_off(now)
        elif self.was_ready or (exit_code == 0 and spec.ready is None):
            self.state, self.was_ready = ProcessState.EXITED, True
        else:
            self._fail(self._too_late(_describe_exit(exit_code)), exit_code)

    def _back_off(self, now: float) -> None:
        shortest, longest = self.spec.back_off_s
        if now - self._started > longest:
            self._wait_s = shortest
        self.state, self._next_start = ProcessState.BACK_OFF, now + self._wait_s
        self._emit(ProcessEvent(ProcessEventKind.BACK_OFF, self.spec.name, wait_s=self._wait_s))
        self._wait_s = min(self._wait_s * 2, longest)

    def _fail(self, error: GmmasError, exit_code: int | None = None) -> None:
        self.state, self.error = ProcessState.FAILED, error
        self._emit(ProcessEvent(ProcessEventKind.FAILED, self.spec.name, None, exit_code, error=error))

    def _too_late(self, got: str) -> FederationError:
        tail = self.log_tail().strip().splitlines()
        return FederationError(
            f"the process '{self.spec.name}' did not become ready",
            where=self.spec.log_file,
            got=f"{got}; last line of its log: {tail[-1]!r:.300}" if tail else got,
            expected=f"ready within {self.spec.ready_timeout_s:g} s",
            remedy="read the log named above",
        )

    def limit_log(self) -> None:
        """Keep the log from filling the disk: strangers can have a server write a line for each request that it refuses.

        The process keeps the file that it has and goes on at its beginning, since it appends.
        """
        path = self.spec.log_file
        with contextlib.suppress(OSError):
            with path.open("rb") as handle:
                size = handle.seek(0, os.SEEK_END)
                if size <= LOG_LIMIT_BYTES:
                    return
                handle.seek(size - LOG_LIMIT_BYTES)
                last = handle.read(LOG_LIMIT_BYTES)
            with contextlib.suppress(OSError):  # on a full disk the room counts for more than the lines
                write_atomic(path.with_name(path.name + ".1"), last, durable=False)
            os.truncate(path, 0)
            self._log_offset = 0

    def log_tail(self) -> str:
        """Return the end of what this start of the process has written."""
        try:
            with self.spec.log_file.open("rb") as handle:
                size = handle.seek(0, os.SEEK_END)
                handle.seek(max(self._log_offset, size - LOG_TAIL_BYTES))
                return handle.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def measure_memory(self, children_of: Mapping[int, list[int]]) -> None:
        """Update resident memory: the process and its descendants (a task's process counts for the executor that started it)."""
        if self.state not in (ProcessState.STARTING, ProcessState.RUNNING) or self.process is None:
            self.rss_mib = 0.0
            return
        total, queue = 0, [self.process.pid]
        while queue:
            pid = queue.pop()
            queue.extend(children_of.get(pid, ()))
            try:
                total += psutil.Process(pid).memory_info().rss
            except psutil.Error:
                continue
        self.rss_mib = total / MIB
        self.peak_mib = max(self.peak_mib, self.rss_mib)

    def status(self) -> ProcessStatus:
        """Return what others may know of it."""
        alive = self.process is not None and self.state in (ProcessState.STARTING, ProcessState.RUNNING)
        return ProcessStatus(
            name=self.spec.name,
            state=self.state,
            pid=self.process.pid if self.process is not None and alive else None,
            create_time=self.create_time if alive else None,
            restarts=self.restarts,
            rss_mib=round(self.rss_mib, 1),
            peak_mib=round(self.peak_mib, 1),
            log_file=str(self.spec.log_file),
            error=self.error.explain() if self.error else "",
        )

    def terminate(self, *, grace_s: float) -> None:
        """End the process and all its descendants: SIGTERM to its group, SIGKILL to what is left after the grace."""
        if self.process is None or self.process.poll() is not None:
            return
        tree = descendants(self.process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        kill_all(tree)


def descendants(pid: int) -> list[psutil.Process]:
    """Return all processes below one, wherever their session; those that are gone are left out."""
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL processes (by pid and creation time, so a recycled pid is safe) and wait until they are gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(list(processes), timeout=5)


def _describe_exit(exit_code: int) -> str:
    if exit_code >= 0:
        return f"it ended with exit code {exit_code}"
    return f"it was ended by {signal.Signals(-exit_code).name}"
