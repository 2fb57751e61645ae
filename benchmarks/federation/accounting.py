"""Processor seconds and memory of a whole tree of processes, those that have ended included.

This process becomes the reaper of its orphans (prctl PR_SET_CHILD_SUBREAPER), so everything started below it stays below it, daemons too.
At any moment

    cpu = sum over living descendants of (utime + stime + cutime + cstime) + cutime + cstime of this process

where cutime and cstime are the kernel's sums over children that have ended and been waited for, and theirs: nothing is lost when a process
ends, and nothing counted twice. A child that nobody waits for stays a zombie and is read as one.

The kernel shows one process at a time, so a child that ends between the reading of its parent and its own would be in neither. A tree is
therefore read, and counts only if a second look at every process of it finds it there with the same ended children (snapshot).

Only a parent that ignores SIGCHLD would lose its children's seconds. `unseen_s` counts them: with V the processes that were there at one
sample and are not at the next, and S those that are at both, this process included,

    lost = max(0, sum over V of (utime + stime + cutime + cstime) - sum over S of the growth of cutime + cstime)

Memory is the kernel's own largest resident memory of each process, which no sampling misses. What a role holds at once is bounded by

    held = max over samples of the sum over its living processes of their largest so far

so a process that has ended before another grew does not count beside it; libraries that processes share count in each.

Resolution: one clock tick (10 ms) for each process. This process's own work, the measuring, is left out.
"""

import ctypes
import os
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final

TICK_S: Final = 1.0 / os.sysconf("SC_CLK_TCK")
SAMPLE_S: Final = 0.2
_PR_SET_CHILD_SUBREAPER: Final = 36
_PROC: Final = Path("/proc")
_LOOKS: Final = 10
"""Looks at a tree that keeps changing, before the sample is left out."""
_MIB: Final = 1024.0


def become_reaper() -> None:
    """Let orphans among the descendants become children of this process."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


@dataclass(frozen=True)
class Process:
    """One line of /proc/PID/stat.

    Attributes:
        start: clock ticks from the machine's start to that of the process: numbers of processes are used again.
        own_s: seconds of the process itself.
        children_s: of its children that have ended and were waited for.
    """

    pid: int
    parent: int
    state: str
    start: int
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
    return Process(pid, int(fields[1]), fields[0], int(fields[19]), utime + stime, cutime + cstime)


def read_processes() -> dict[int, Process]:
    """Return every process by its number, read one after the other."""
    numbers = sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return {number: process for number in numbers if (process := read_process(number)) is not None}


def descendants(root: int) -> list[Process]:
    """Return every process below `root`, zombies included, parents before children."""
    return _below(root, read_processes())


def _below(root: int, processes: Mapping[int, Process]) -> list[Process]:
    children: dict[int, list[Process]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += [process.pid for process in below]
    return found


def snapshot(root: int) -> tuple[float, list[Process]] | None:
    """Return the time and the tree, `root` first, as it was at that time; None where processes ended during every look at it."""
    for _ in range(_LOOKS):
        now, processes = time.monotonic(), read_processes()
        tree = [processes[root], *_below(root, processes)]
        # Where a parent ended between the reading of a child and its own, the child has no place in the tree.
        orphans = [process for process in processes.values() if process.parent and process.parent not in processes]
        if all(_is_unchanged(process) for process in (*tree, *orphans)):
            return now, tree
    return None


def _is_unchanged(process: Process) -> bool:
    again = read_process(process.pid)
    if again is None or again.state in "Xx":  # dead: counted by its parent already, and still to be seen
        return False
    return (again.start, again.parent, again.children_s) == (process.start, process.parent, process.children_s)


def unseen_s(before: Sequence[Process], after: Sequence[Process]) -> float:
    """Return the seconds of processes of one tree that are neither in a later one nor in what it counts of ended children."""
    later = {(process.pid, process.start): process for process in after}
    ended = [process for process in before if (process.pid, process.start) not in later]
    grown_s = sum(later[key].children_s - process.children_s for process in before if (key := (process.pid, process.start)) in later)
    rounding_s = 4 * TICK_S * len(ended)  # utime, stime, cutime and cstime are whole ticks each
    return max(0.0, sum(process.own_s + process.children_s for process in ended) - grown_s - rounding_s)


def peak_mib(pid: int) -> float:
    """Return the largest resident memory a process ever had (VmHWM), 0 if it is gone."""
    with suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) / _MIB
    return 0.0


@dataclass(frozen=True)
class Sample:
    """The tree at a moment of the monotonic clock.

    Attributes:
        seconds: processor seconds so far by (role, program).
        loopback_bytes: bytes over loopback so far.
        unseen_s: processor seconds that were lost so far (unseen_s above).
    """

    time: float
    seconds: Mapping[tuple[str, str], float]
    loopback_bytes: int
    unseen_s: float = 0.0

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
        held_mib: what each role held at once (above).
    """

    roles: dict[int, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    held_mib: dict[str, float] = field(default_factory=dict)
    _tree: Sequence[Process] = ()
    _known: dict[int, tuple[str, str]] = field(default_factory=dict)
    _roles_seen: dict[int, tuple[str, str]] = field(default_factory=dict)
    _peaks: dict[int, float] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def start(self) -> None:
        """Take a first sample and begin to sample in a thread."""
        self.sample()
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
        """Take one sample; none where processes end faster than they can be read, for two samples are joined by a line."""
        found = snapshot(os.getpid())
        if found is None:
            return
        now, tree = found
        root, below = tree[0], tree[1:]
        seconds: dict[tuple[str, str], float] = {}
        held_mib: dict[str, float] = {}
        for process in below:
            key = self._key(process, root.pid)
            seconds[key] = seconds.get(key, 0.0) + process.own_s
            ended = (key[0], f"{key[1]}: ended children")
            seconds[ended] = seconds.get(ended, 0.0) + process.children_s
            if process.state != "Z":
                self._roles_seen[process.pid] = key
                self._peaks[process.pid] = peak_mib(process.pid) or self._peaks.get(process.pid, 0.0)
                held_mib[key[0]] = held_mib.get(key[0], 0.0) + self._peaks[process.pid]
            elif process.parent == root.pid and process.pid not in self.roles:
                with suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
        seconds["ended", "ended"] = root.children_s
        self.held_mib = {role: max(mib, self.held_mib.get(role, 0.0)) for role, mib in (self.held_mib | held_mib).items()}
        lost_s = (self.samples[-1].unseen_s if self.samples else 0.0) + unseen_s(self._tree, tree)
        self._tree = tree
        self.samples.append(Sample(now, {key: value for key, value in seconds.items() if value > 0}, loopback_bytes(), lost_s))

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
            passed = int(_between(before.loopback_bytes, after.loopback_bytes, share))
            return Sample(moment, seconds, passed, _between(before.unseen_s, after.unseen_s, share))
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
