"""Processor seconds of trees of real processes, against what the processes themselves say they used; and of trees that change while they
are read, from files like those of /proc."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.federation import accounting
from benchmarks.federation.accounting import TICK_S, Process, snapshot, unseen_s

SCRIPT = """
import json, subprocess, sys, time
from benchmarks.federation.accounting import TreeSampler, at, become_reaper
become_reaper()
burn = "import time, sys\\nwhile time.process_time() < float(sys.argv[1]): pass"
middle = "import subprocess, sys\\n" + sys.argv[1]
sampler = TreeSampler()
sampler.sample()
parent = subprocess.Popen([sys.executable, "-S", "-c", middle, burn])
sampler.roles[parent.pid] = "site"
deadline = time.monotonic() + 60
done = False
while not done and time.monotonic() < deadline:
    time.sleep(float(sys.argv[2]))
    sampler.sample()
    done = parent.poll() is not None and len([p for p in sampler.samples[-1].seconds if p[0] != "ended"]) == 0
sampler.sample()
totals = [sample.total_s for sample in sampler.samples]
print(json.dumps({
    "total": totals[-1],
    "unseen": sampler.samples[-1].unseen_s,
    "fell": max(before - after for before, after in zip(totals, totals[1:])),
    "roles": sorted({role for sample in sampler.samples for role, _ in sample.seconds}),
    "peak": sum(sampler.peaks_mib().values()),
    "held": sum(sampler.held_mib.values()),
    "half": at(sampler.samples, (sampler.samples[0].time + sampler.samples[-1].time) / 2).total_s,
}))
"""

WAITED = "subprocess.run([sys.executable, '-c', sys.argv[1], '0.5'], check=True)"
ORPHANED = "subprocess.Popen([sys.executable, '-c', sys.argv[1], '0.5'], start_new_session=True)"
MANY = "for _ in range(20): subprocess.run([sys.executable, '-S', '-c', sys.argv[1], '0.1'], check=True)"
IGNORED = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n" + WAITED


def account(middle: str, *, every_s: float = 0.05) -> dict:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", SCRIPT, middle, str(every_s)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(done.stdout)


@pytest.mark.parametrize("middle", [WAITED, ORPHANED])
def test_grandchildren_that_have_ended_count_waited_for_or_not(middle: str) -> None:
    found = account(middle)
    # The burner itself burns 0.5 s; two interpreters start, which takes a few hundredths to some tenths.
    assert 0.5 <= found["total"] < 2.5
    assert found["unseen"] == 0
    assert "site" in found["roles"]
    assert 5 < found["held"] <= found["peak"]
    assert 0 <= found["half"] <= found["total"]


def test_the_sum_does_not_fall_while_processes_end_and_are_looked_at_all_the_time() -> None:
    found = account(MANY, every_s=0.0)
    assert found["total"] >= 2.0
    assert found["fell"] <= 8 * TICK_S, "a child that ended was in neither of two places"
    assert found["unseen"] == 0
    assert found["held"] < found["peak"] / 4, "twenty children that ran in turn were never there at once"


def test_what_a_parent_that_ignores_its_children_loses_is_told() -> None:
    found = account(IGNORED)
    assert found["unseen"] == pytest.approx(0.5, abs=0.3)


class Machine:
    """A folder of stat files; `on_read` happens before a process is read, once."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.on_read = folder, {}
        real = accounting.read_process

        def read(pid: int) -> Process | None:
            self.on_read.pop(pid, lambda: None)()
            return real(pid)

        monkeypatch.setattr(accounting, "_PROC", folder)
        monkeypatch.setattr(accounting, "read_process", read)

    def put(self, pid: int, parent: int, *, own: int, children: int = 0, state: str = "S", start: int = 7) -> None:
        """Write a process; times in clock ticks."""
        (self.folder / str(pid)).mkdir(exist_ok=True)
        fields = [state, str(parent), *["0"] * 9, str(own), "0", str(children), "0", *["0"] * 4, str(start), "0"]
        (self.folder / str(pid) / "stat").write_text(f"{pid} (a (b) c) {' '.join(fields)}\n")

    def end(self, pid: int) -> None:
        """Take a process away."""
        shutil.rmtree(self.folder / str(pid))


def seconds(root: int) -> float:
    _, (first, *below) = snapshot(root)
    return round((first.children_s + sum(process.own_s + process.children_s for process in below)) / TICK_S)


def test_a_child_that_ends_between_its_parents_reading_and_its_own_is_counted_once(tmp_path, monkeypatch) -> None:
    machine = Machine(tmp_path, monkeypatch)
    machine.put(1, 0, own=5)
    machine.put(2, 1, own=10)
    machine.put(3, 2, own=400)

    def reap() -> None:
        machine.end(3)
        machine.put(2, 1, own=10, children=400)

    machine.on_read[3] = reap
    assert seconds(1) == 410


def test_a_child_that_is_read_before_the_parent_that_counts_it_is_counted_once(tmp_path, monkeypatch) -> None:
    machine = Machine(tmp_path, monkeypatch)
    machine.put(1, 0, own=5)
    machine.put(2, 3, own=400)
    machine.put(3, 1, own=10)

    def reap() -> None:
        machine.end(2)
        machine.put(3, 1, own=10, children=400)

    machine.on_read[3] = reap
    assert seconds(1) == 410


def test_what_is_below_a_parent_that_ends_while_the_tree_is_read_keeps_its_place(tmp_path, monkeypatch) -> None:
    machine = Machine(tmp_path, monkeypatch)
    machine.put(1, 0, own=5)
    machine.put(2, 3, own=400)
    machine.put(3, 4, own=10)
    machine.put(4, 1, own=1)

    def orphan() -> None:
        machine.end(3)
        machine.put(2, 1, own=400)
        machine.put(4, 1, own=1, children=10)

    machine.on_read[3] = orphan
    assert seconds(1) == 411


def test_a_number_that_is_used_again_is_another_process_and_a_tree_that_never_rests_is_no_sample(tmp_path, monkeypatch) -> None:
    machine = Machine(tmp_path, monkeypatch)
    machine.put(1, 0, own=5)
    machine.put(2, 1, own=400)
    before = snapshot(1)[1]
    machine.put(2, 1, own=1, start=9)
    assert unseen_s(before, snapshot(1)[1]) == pytest.approx(4.0, abs=5 * TICK_S)
    machine.put(1, 0, own=5, children=400)
    assert unseen_s(before, snapshot(1)[1]) == 0
    machine.put(3, 1, own=4, state="X")
    assert snapshot(1) is None, "a dead process is in what its parent counts, and still to be seen"
    machine.end(3)
    assert snapshot(1) is not None
    monkeypatch.setattr(accounting, "_is_unchanged", lambda _: False)
    assert snapshot(1) is None


def test_processes_whose_parents_are_hidden_do_not_stop_the_reading(tmp_path, monkeypatch) -> None:
    machine = Machine(tmp_path, monkeypatch)
    machine.put(1, 0, own=5)
    machine.put(2, 1, own=3)
    machine.put(8, 99, own=3)
    assert seconds(1) == 3
