"""A supervisor of long-lived processes: ordered start with readiness, restarts with exponential back-off, ordered stop.

One thread owns every child: it starts, watches, restarts and reaps them, so a child's life is bound to that thread's
(gmmas_runtime.child) and no lock guards the children. What other processes need to know is in a state file
(gmmas_runtime.process_state).

    WAITING -> STARTING -> RUNNING -> (exit) -> BACK_OFF -> STARTING ...
                   |          |                     |
                   +----------+--> FAILED (permanent), EXITED (restart off), STOPPED
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from gmmas_runtime.process_state import ProcessState, ProcessStatus, SupervisorLock, SupervisorState, create_time_of, write_state
from gmmas_runtime.supervised import ProcessEvent, ProcessEventKind, ProcessSpec, SupervisedProcess
from gmmas_schema.errors import GmmasError

__all__ = ["ProcessEvent", "ProcessEventKind", "ProcessSpec", "ProcessState", "ProcessStatus", "Supervisor"]

logger = logging.getLogger(__name__)

TICK_S = 0.1
LOOK_EVERY_S = 2.0
STOP_GRACE_S = 10.0


class Supervisor:
    """Runs processes as a unit.

    Args:
        specs: processes in the order of their start; stopped in reverse.
        on_event: told of every change, from the supervisor's own thread; must be quick.
        state_file: where status() is kept for other processes (JSON, 0600); None: nowhere. A disk that takes neither it nor what on_event
            prints ends no process: what is kept is older then, and written again as soon as there is room.
        stop_grace_s: seconds between SIGTERM and SIGKILL per process.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        on_event: Callable[[ProcessEvent], None] | None = None,
        *,
        state_file: Path | None = None,
        stop_grace_s: float = STOP_GRACE_S,
    ) -> None:
        assert len({spec.name for spec in specs}) == len(specs), "process names must be unique"
        self._on_event, self._state_file, self._stop_grace_s = on_event, state_file, stop_grace_s
        self._children = [SupervisedProcess(spec, self._emit) for spec in specs]
        self._statuses: tuple[ProcessStatus, ...] = tuple(child.status() for child in self._children)
        self._stop, self._settled, self._ended = threading.Event(), threading.Event(), threading.Event()
        self._crash: BaseException | None = None
        self._disk_refuses = False
        self._lock: SupervisorLock | None = None
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def start(self) -> None:
        """Start the processes in order, each after the one before is ready; returns when all are.

        Raises:
            FederationError: another supervisor of the same state file is alive, or a process did not become ready in time.
            GmmasError: what a spec's permanent_exit said. All processes are stopped then.
        """
        if self._state_file is not None:
            self._lock = SupervisorLock.take(self._state_file)
        self._thread.start()
        try:
            self._settled.wait()
        except BaseException:
            self.stop()
            raise
        error = self._crash or self.failure()
        if error is not None:
            self.stop()
            raise error

    def stop(self) -> None:
        """Stop all processes in reverse order; returns when they are gone. May be called twice."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the supervision is over: stop() was called, a process failed for good, or all ended; returns whether it is."""
        return self._ended.wait(timeout_s)

    def run(self) -> None:
        """Start, supervise until SIGINT or SIGTERM or a permanent failure, stop. For the main thread of a command.

        Raises:
            GmmasError: as start(), or the permanent failure of a process.
        """
        before = {number: signal.signal(number, lambda *_: self._stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self.start()
            self.wait()
            error = self._crash or self.failure()
        finally:
            self.stop()
            for number, handler in before.items():
                signal.signal(number, handler)
        if error is not None:
            raise error

    def failure(self) -> GmmasError | None:
        """Return the error of the first process that failed for good."""
        return next((child.error for child in self._children if child.error is not None), None)

    def status(self) -> tuple[ProcessStatus, ...]:
        """Return every process's state, restarts and memory."""
        return self._statuses

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Stop."""
        self.stop()

    def _supervise(self) -> None:
        """Run until stopped (the thread's whole life)."""
        next_look = 0.0
        try:
            while not self._stop.is_set():
                now = time.monotonic()
                changed = self._advance(now)
                if now >= next_look:
                    self._measure_memory()
                    for child in self._children:
                        child.limit_log()
                    next_look, changed = now + LOOK_EVERY_S, True
                if changed:
                    self._publish()
                if all(child.settled for child in self._children) or self.failure() is not None:
                    self._settled.set()
                if self.failure() is not None or all(child.state is ProcessState.EXITED for child in self._children):
                    self._ended.set()
                self._stop.wait(TICK_S)
        except BaseException as error:  # a spec's own function raised: told to whoever called start() or run()
            self._crash = error
        finally:
            try:
                self._end_children()
            except BaseException as error:
                self._crash = self._crash or error
            finally:  # whoever waits must not wait for ever
                self._settled.set()
                self._ended.set()

    def _end_children(self) -> None:
        for child in reversed(self._children):
            child.terminate(grace_s=self._stop_grace_s)
            if child.state not in (ProcessState.FAILED, ProcessState.WAITING):
                child.state = ProcessState.STOPPED
                self._emit(ProcessEvent(ProcessEventKind.STOPPED, child.spec.name))
        self._publish()

    def _advance(self, now: float) -> bool:
        changed = False
        for child in self._children:
            changed |= child.advance(now)
            if not child.settled:
                break
        return changed

    def _measure_memory(self) -> None:
        children_of: dict[int, list[int]] = {}
        for process in psutil.process_iter(["ppid"]):
            children_of.setdefault(process.info["ppid"], []).append(process.pid)
        for child in self._children:
            child.measure_memory(children_of)

    def _publish(self) -> None:
        self._statuses = tuple(child.status() for child in self._children)
        if self._state_file is not None:
            ready = all(child.settled for child in self._children) and self.failure() is None and not self._stop.is_set()
            state = SupervisorState(
                pid=os.getpid(), create_time=create_time_of(os.getpid()) or 0.0, ready=ready, written=time.time(), processes=self._statuses
            )
            try:
                write_state(self._state_file, state)
            except OSError as error:
                if not self._disk_refuses:
                    logger.warning("the state of the processes cannot be written to %s: %s", self._state_file, error.strerror)
                self._disk_refuses = True
            else:
                self._disk_refuses = False

    def _emit(self, event: ProcessEvent) -> None:
        try:
            if self._on_event is not None:
                self._on_event(event)
        except OSError as error:  # it prints, and its terminal is gone or its log's disk is full
            logger.warning("a change of '%s' could not be told: %s", event.name, error.strerror)
