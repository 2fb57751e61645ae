"""What the trainer is doing, shared between the thread that does it and those that watch, pause or cancel it."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import psutil

from client.trainer_service_pb2 import Progress, State
from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.messages import Action, TaskRequest

_LARGEST_COUNT: Final = 2**31 - 1
"""Of client/trainer_service.proto, and of the rounds of a request."""

_STATE_OF = {Action.DESCRIBE: State.IDLE, Action.TRAIN: State.TRAINING, Action.EVALUATE: State.EVALUATING}


@dataclass(frozen=True)
class Cohort:
    """Counts of cases: accepted by the quality gate, left out by it, preprocessed so far, to be preprocessed."""

    cases: int = 0
    left_out: int = 0
    cached: int = 0
    to_cache: int = 0


@dataclass(frozen=True)
class _Task:
    """The running task."""

    action: Action
    run: str
    round: int
    rounds: int
    started: float
    step: int = 0
    steps: int = 0


class Activity:
    """State of the trainer. Every method may be called from any thread.

    Args:
        site: name of the site.
        paused: whether tasks are refused from the start.
    """

    def __init__(self, site: str, *, paused: bool = False) -> None:
        self._site = site
        self._changed = threading.Condition()
        self._version = 0
        self._preparing = True
        self._task: _Task | None = None
        self._last: _Task | None = None
        self._cohort = Cohort()
        self._loss: float | None = None
        self._last_error = self._notice = ""
        self._tasks_done = 0
        self._paused, self._closed = paused, False
        self._stop_code: ReasonCode | None = None
        self._process = psutil.Process()

    def count(self, **counts: int) -> None:
        """Update the counts of cases."""
        with self._change():
            self._cohort = replace(self._cohort, **counts)

    @contextmanager
    def preparing(self) -> Iterator[None]:
        """Show PREPARING inside: the cohort is read or the cache is filled."""
        with self._change():
            self._preparing = True
        try:
            yield
        finally:
            with self._change():
                self._preparing = False

    def admit(self) -> None:
        """Let a task in.

        Raises:
            FederationError: code PAUSED, the site refuses tasks.
        """
        with self._changed:
            if self._paused:
                raise FederationError("the site is paused", remedy="`gmmas site resume`", code=ReasonCode.PAUSED)

    @contextmanager
    def task(self, request: TaskRequest) -> Iterator[None]:
        """Run one admitted task inside; its steps and its end are shown, and what the coordinator said of the site's last answer."""
        with self._change():
            self._stop_code = None
            self._notice = "" if request.notice is None else f"round {request.notice.round}: {request.notice.code} {request.notice.reason}"
            self._task = _Task(request.action, request.run, request.round, request.rounds, time.monotonic())
        try:
            yield
        finally:
            with self._change():
                self._last, self._task = self._task, None

    def succeed(self, *, loss: float | None) -> None:
        """Note a finished task; `loss` is the mean of a training round, None where there is none."""
        with self._change():
            self._tasks_done += 1
            self._last_error = ""
            self._loss = self._loss if loss is None else loss

    def fail(self, code: ReasonCode) -> None:
        """Note the reason of a failed task."""
        with self._change():
            self._last_error = code

    def step(self, done: int, total: int) -> None:
        """Show the running task's steps."""
        with self._change():
            if self._task is not None:
                self._task = replace(self._task, step=done, steps=total)

    def check(self) -> None:
        """Hold the calling task while the site is paused.

        Raises:
            FederationError: the task is to end; code CANCELLED, DEADLINE or PAUSED.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._paused or self._stop_code is not None)
            if self._stop_code is not None:
                raise FederationError("the task was ended from outside", code=self._stop_code)

    def stop_task(self, code: ReasonCode = ReasonCode.CANCELLED) -> None:
        """End the running task, if there is one, at its next step."""
        with self._change():
            if self._task is not None:
                self._stop_code = code

    def pause(self, *, abandon: bool) -> None:
        """Refuse new tasks and hold the running one, or end it with code PAUSED."""
        with self._change():
            self._paused = True
            if abandon and self._task is not None:
                self._stop_code = ReasonCode.PAUSED

    def resume(self) -> None:
        """Accept tasks again."""
        with self._change():
            self._paused = False

    def require_open(self) -> None:
        """Let long work go on.

        Raises:
            FederationError: code CANCELLED, the trainer goes down.
        """
        with self._changed:
            if self._closed:
                raise FederationError("the trainer goes down", code=ReasonCode.CANCELLED)

    def close(self) -> None:
        """End the running task and every watcher: the trainer goes down."""
        with self._change():
            self._closed = True
            self._stop_code = ReasonCode.CANCELLED

    def snapshot(self) -> Progress:
        """Return the present state."""
        with self._changed:
            return self._snapshot()

    def watch(self, *, interval_s: float, heartbeat_s: float = 5.0) -> Iterator[Progress]:
        """Yield the state now, then after changes but no more often than `interval_s`, and at least every `heartbeat_s`."""
        while True:
            with self._changed:
                seen, progress, closed = self._version, self._snapshot(), self._closed
            yield progress
            if closed:
                return
            time.sleep(interval_s)
            with self._changed:
                self._changed.wait_for(lambda seen=seen: self._version != seen, timeout=heartbeat_s)  # type: ignore[misc]

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._changed:
            try:
                yield
            finally:
                self._version += 1
                self._changed.notify_all()

    def _snapshot(self) -> Progress:
        shown = self._task or self._last
        progress = Progress(
            state=self._state(),
            site=self._site,
            cases=self._cohort.cases,
            cases_left_out=self._cohort.left_out,
            cases_cached=self._cohort.cached,
            cases_to_cache=self._cohort.to_cache,
            tasks_done=self._tasks_done,
            last_error=self._last_error,
            notice=self._notice,
            rss_bytes=self._process.memory_info().rss,
            pid=os.getpid(),
            loss=self._loss,
        )
        if shown is not None:
            progress.run, progress.round, progress.rounds = shown.run, shown.round, shown.rounds
            # A plan may have more steps than a message can say; whoever watches, pauses or cancels needs an answer all the same.
            progress.step, progress.steps = min(shown.step, _LARGEST_COUNT), min(shown.steps, _LARGEST_COUNT)
        if self._task is not None:
            progress.task_seconds = time.monotonic() - self._task.started
        return progress

    def _state(self) -> State:
        if self._paused:
            return State.PAUSED
        if self._preparing:
            return State.PREPARING
        return _STATE_OF[self._task.action] if self._task is not None else State.IDLE
