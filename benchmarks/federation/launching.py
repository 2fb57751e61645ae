"""Starting a system's processes, each with a role, and ending them all."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.federation.accounting import TreeSampler, descendants
from benchmarks.federation.stand_in import FOLDER_VARIABLE, SECONDS_VARIABLE
from gmmas_runtime.flower import quiet_environment
from gmmas_schema.errors import FederationError

ROOT: Final = Path(__file__).resolve().parents[2]
STOP_GRACE_S: Final = 60.0
LOOK_S: Final = 0.5


@dataclass
class Launcher:
    """Starts processes below this one.

    Attributes:
        folder: where their logs go.
        notes: where the stand-in training notes its times.
        train_s: seconds it takes.
        timeout_s: patience of every wait.
    """

    folder: Path
    notes: Path
    train_s: float
    sampler: TreeSampler
    timeout_s: float
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, argv: Sequence[str | Path], *, role: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a process with the stand-in's settings in its environment; its output goes to a log of its name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                start_new_session=True,
                env={
                    **os.environ,
                    **quiet_environment(),
                    "PYTHONPATH": str(ROOT),
                    "OMP_NUM_THREADS": "1",
                    "NO_COLOR": "1",
                    FOLDER_VARIABLE: str(self.notes),
                    SECONDS_VARIABLE: str(self.train_s),
                    **(environment or {}),
                },
            )
        self.sampler.roles[process.pid] = role
        self._running[name] = process

    def run(self, name: str, argv: Sequence[str | Path], *, role: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a process and wait for its good end.

        Raises:
            FederationError: it failed, or took too long.
        """
        self.start(name, argv, role=role, environment=environment)
        process = self._running[name]
        self.wait(lambda: process.poll() is not None, what=f"end of {name}", may_end=name)
        if process.returncode != 0:
            raise self._failed(name, f"exit code {process.returncode}")

    def wait(self, condition: Callable[[], bool], *, what: str, may_end: str = "") -> None:
        """Wait for a condition while all processes live.

        Raises:
            FederationError: it did not come true in time, or a process ended; carries the end of its log.
        """
        deadline = time.monotonic() + self.timeout_s
        while not condition():
            for name, process in self._running.items():
                if name != may_end and process.poll() not in (None, 0):
                    raise self._failed(name, f"exit code {process.returncode}")
            if time.monotonic() > deadline:
                raise FederationError(f"no {what}", where=self.folder, got=f"nothing in {self.timeout_s:g} s", expected=what)
            time.sleep(LOOK_S)

    def stop(self) -> None:
        """End every process that was started, the last one first, then whatever is left below this process."""
        for process in reversed(self._running.values()):
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + STOP_GRACE_S
        for process in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
        while left := [process.pid for process in descendants(os.getpid()) if process.state != "Z"]:
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(LOOK_S)

    def _failed(self, name: str, how: str) -> FederationError:
        log = (self.folder / f"{name}.log").read_text(errors="replace").splitlines()[-15:]
        return FederationError(
            f"{name} has ended", where=self.folder / f"{name}.log", got="\n".join([how, *log]), expected="a running process"
        )
