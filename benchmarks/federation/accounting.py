"""Processor seconds and memory of a whole tree of processes, those that have ended included.

This process becomes the reaper of its orphans (prctl PR_SET_CHILD_SUBREAPER), so everything started below it stays below it, daemons too.
At any moment

    cpu = sum over living descendants of (utime + stime + cutime + cstime) + cutime + cstime of this process

where cutime and cstime are the kernel's sums over children that have ended and been waited for, and theirs: nothing is lost when a process
ends, and nothing counted twice. A child that nobody waits for stays a zombie and is read as one. Only a parent that ignores SIGCHLD would
lose its children's seconds; `ended_unseen_s` tells how far the sum ever fell, and must be 0. Resolution: one clock tick (10 ms) for each
process. This process's own work, the measuring, is left out.
"""

import ctypes
import os
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

TICK_S: Final = 1.0 / os.sysconf("SC_CLK_TCK")
SAMPLE_S: Final = 0.2
_PR_SET_CHILD_SUBREAPER: Final = 36
_PROC: Final = Path("/proc")
_MIB: Final = 1024.0


def become_reaper() -> None:
    """Let orphans among the descendants become children of this process."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat; seconds of the process itself, and of its children that were waited for."""

    pid: int
    parent: int
    state: str
    own_s: float
    children_s: float


def read_process(pid: int) -> Process | None:
    """Return a process, or None if it is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = text[text.rindex(")") + 2 :].split()
    utime, stime, cutime, cstime = (int(each) * TICK_S for each in fields[11:15])
    return Process(pid, int(fields[1]), fields[0], utime + stime, cutime + cstime)


def descendants(root: int) -> list[Process]:
    """Return every process below `root`, zombies included, parents before children."""
    children: dict[int, list[Process]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (process := read_process(int(entry.name))) is not None:
            children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += [process.pid for process in below]
    return found


def _consistent(root: int) -> tuple[float, list[Process], float]:
    """Return the time, the descendants, and the seconds of ended children, read while no child of this process was waited for."""
    while True:
        before, now, below, after = read_process(root), time.monotonic(), descendants(root), read_process(root)
        assert before is not None
        assert after is not None
        if before.children_s == after.children_s:
            return now, below, after.children_s


def peak_mib(pid: int) -> float:
    """Return the largest resident memory a process ever had (VmHWM), 0 if it is gone."""
    with suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / _MIB
    return 0.0


@dataclass(frozen=True)
class Sample:
    """The tree at a moment of the monotonic clock: processor seconds so far by (role, program), bytes over loopback so far."""

    time: float
    seconds: Mapping[tuple[str, str], float]
    loopback_bytes: int

    @property
    def total_s(self) -> float:
        """Return the processor seconds of all."""
        return sum(self.seconds.values())


@dataclass
class TreeSampler:
    """Samples the tree below this process until it is stopped.

    Attributes:
        roles: what each process that was started here is for, by its pid; descendants inherit it.
        programs: what a process is for by the end of its program's name, where systems start their processes themselves.
    """

    roles: dict[int, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    ended_unseen_s: float = 0.0
    _known: dict[int, tuple[str, str]] = field(default_factory=dict)
    _roles_seen: dict[int, tuple[str, str]] = field(default_factory=dict)
    _peaks: dict[int, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Begin to sample in a thread."""
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Take a last sample and end."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_S):
            self.sample()
        self.sample()

    def sample(self) -> None:
        """Take one sample."""
        root = os.getpid()
        now, below, ended_s = _consistent(root)
        seconds: dict[tuple[str, str], float] = {}
        for process in below:
            key = self._key(process, root)
            seconds[key] = seconds.get(key, 0.0) + process.own_s
            ended = (key[0], f"{key[1]}: ended children")
            seconds[ended] = seconds.get(ended, 0.0) + process.children_s
            if process.state != "Z":
                self._roles_seen[process.pid] = key
                self._peaks[process.pid] = peak_mib(process.pid) or self._peaks.get(process.pid, 0.0)
            elif process.parent == root and process.pid not in self.roles:
                with suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
        seconds["ended", "ended"] = ended_s
        sample = Sample(now, {key: value for key, value in seconds.items() if value > 0}, loopback_bytes())
        if self.samples:
            self.ended_unseen_s = max(self.ended_unseen_s, max(each.total_s for each in self.samples[-5:]) - sample.total_s)
        self.samples.append(sample)

    def _key(self, process: Process, root: int) -> tuple[str, str]:
        """Return (role, program): the role is inherited, and kept when a parent ends."""
        known = self._known.get(process.pid)
        if known is None or known[1] == "?":
            inherited = self.roles.get(process.pid) or (self._known.get(process.parent, ("?", ""))[0] if process.parent != root else None)
            role = inherited or (known[0] if known else "?")
            known = self._known[process.pid] = (role, _program(process.pid))
        elif (now := _program(process.pid)) not in ("?", known[1]):
            known = self._known[process.pid] = (known[0], now)  # after exec
        own = next((role for program, role in self.programs.items() if known[1].endswith(program)), known[0])
        return (own, known[1])

    def peaks_mib(self) -> dict[tuple[str, str], float]:
        """Return the largest memory of each process by (role, program), added up where a program ran several times at once or in turn."""
        peaks: dict[tuple[str, str], float] = {}
        for pid, peak in self._peaks.items():
            key = self._roles_seen[pid]
            peaks[key] = peaks.get(key, 0.0) + peak
        return peaks


def at(samples: list[Sample], moment: float) -> Sample:
    """Return the tree at a moment, between two samples on a straight line.

    Raises:
        ValueError: the moment lies outside of what was sampled.
    """
    for before, after in pairwise(samples):
        if before.time <= moment <= after.time:
            share = (moment - before.time) / max(after.time - before.time, 1e-9)
            keys = before.seconds.keys() | after.seconds.keys()
            seconds = {key: _between(before.seconds.get(key, 0.0), after.seconds.get(key, 0.0), share) for key in keys}
            return Sample(moment, seconds, int(_between(before.loopback_bytes, after.loopback_bytes, share)))
    raise ValueError(f"{moment} is not between {samples[0].time} and {samples[-1].time}")


def _between(before: float, after: float, share: float) -> float:
    return before + share * (after - before)


def loopback_bytes() -> int:
    """Return the bytes that have passed this network namespace's loopback, headers included."""
    for line in (_PROC / "net" / "dev").read_text().splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    return 0


def _program(pid: int) -> str:
    """Return what a process runs: a module, a script or a program, without its folder."""
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return "?"
    words = [word for word in words if word]
    if not words:
        return "?"
    if Path(words[0]).name.startswith("python"):
        for index, word in enumerate(words[1:], start=1):
            if word == "-m":
                return words[index + 1] if index + 1 < len(words) else "?"
            if not word.startswith("-"):
                return Path(word).name
    return Path(words[0]).name
