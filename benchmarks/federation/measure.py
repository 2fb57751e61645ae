"""One cell, measured in a process of its own: `python -m benchmarks.federation.measure CELL.json FOLDER`.

The process is the root of everything the system starts, on a loopback of its own; result.json appears in the folder at the end.
"""

import importlib
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.federation.accounting import Sample, TreeSampler, at, become_reaper
from benchmarks.federation.launching import Launcher
from benchmarks.federation.network import enter_own_loopback
from benchmarks.federation.plan import Cell, System, notes_folder
from benchmarks.software import commit
from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel

MODULES: dict[System, str] = {
    "gmmas": "ours",
    "gmmas-plain": "ours",
    "flower": "flower",
    "flower-train-only": "flower",
    "nvflare": "flare",
    "nvflare-simulator": "flare",
    "gmmas-nodes": "simulated_nodes",
    "flower-nodes": "simulated_nodes",
}


class Result(FrozenModel):
    """What a cell cost.

    Attributes:
        periods: rounds that were measured: from the first training start of one to that of the next.
        wall_s: seconds of a period, mean.
        train_s: longest training of a period, mean.
        overhead_s: wall_s - train_s.
        cpu_s: processor seconds of all processes per period, the stand-in's own subtracted.
        cpu_by_program: the same by "role/program", the largest.
        loopback_bytes: bytes per period on loopback, headers and each node's inner traffic included; 0 where others use it.
        coordinator_peak_mib: sum of the largest resident memories of the coordinator's processes.
        peak_by_program: largest memory by "role/program"; sums where a program ran more than once.
        ended_unseen_s: how far the sum of processor seconds ever fell; the error of the method.
        extra: what a system tells of itself.
        software: commit that was measured.
    """

    cell: Cell
    periods: int
    wall_s: float
    train_s: float
    overhead_s: float
    overheads_s: tuple[float, ...]
    cpu_s: float
    cpu_by_program: dict[str, float]
    loopback_bytes: float
    coordinator_peak_mib: float
    peak_by_program: dict[str, float]
    ended_unseen_s: float
    load: float
    own_loopback: bool
    machine: str
    extra: dict[str, float]
    software: str = "unknown"


def measure(cell: Cell, folder: Path, *, own_loopback: bool) -> Result:
    """Run a cell and return what it cost."""
    notes = notes_folder(folder)
    notes.mkdir(parents=True, exist_ok=True)
    sampler = TreeSampler()
    launcher = Launcher(folder / "logs", notes, cell.train_s, sampler)
    sampler.start()
    try:
        module = importlib.import_module(f"benchmarks.federation.{MODULES[cell.system]}")
        extra = module.run(cell, folder, launcher)
    finally:
        sampler.stop()
        launcher.stop()
    trained = read_notes(notes)
    starts, longest, stand_in_s = summarise_notes(trained, rounds=cell.rounds)
    begin, end = (at(sampler.samples, moment) for moment in (starts[0], starts[-1]))
    periods = len(starts) - 1
    overheads = tuple((after - before) - most for (before, after), most in zip(pairwise(starts), longest, strict=False))
    peaks = sampler.peaks_mib()
    return Result(
        cell=cell,
        periods=periods,
        wall_s=(starts[-1] - starts[0]) / periods,
        train_s=sum(longest[:periods]) / periods,
        overhead_s=sum(overheads) / periods,
        overheads_s=tuple(round(each, 3) for each in overheads),
        cpu_s=(end.total_s - begin.total_s - stand_in_s) / periods,
        cpu_by_program=_by_program(begin, end, periods),
        loopback_bytes=(end.loopback_bytes - begin.loopback_bytes) / periods if own_loopback else 0.0,
        coordinator_peak_mib=sum(peak for (role, _), peak in peaks.items() if role == "coordinator"),
        peak_by_program={"/".join(key): round(peak, 1) for key, peak in sorted(peaks.items())},
        ended_unseen_s=sampler.ended_unseen_s,
        load=os.getloadavg()[0],
        own_loopback=own_loopback,
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        extra=extra,
        software=commit(),
    )


def read_notes(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return what each site noted."""
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in sorted(folder.glob("*.jsonl"))}


def summarise_notes(notes: dict[str, list[dict[str, Any]]], *, rounds: int) -> tuple[list[float], list[float], float]:
    """Return each round's first training start and longest training, and the stand-in's processor seconds in all rounds but the last."""
    by_round: dict[int, list[dict[str, Any]]] = {}
    for lines in notes.values():
        for line in lines:
            by_round.setdefault(line["round"], []).append(line)
    numbers = sorted(by_round)
    assert len(numbers) == rounds, f"rounds {numbers} were trained, not {rounds}"
    starts = [min(line["start"] for line in by_round[number]) for number in numbers]
    longest = [max(line["end"] - line["start"] for line in by_round[number]) for number in numbers]
    return starts, longest, sum(line["cpu_s"] for number in numbers[:-1] for line in by_round[number])


def _by_program(begin: Sample, end: Sample, periods: int) -> dict[str, float]:
    spent = {key: (end.seconds.get(key, 0.0) - begin.seconds.get(key, 0.0)) / periods for key in end.seconds.keys() | begin.seconds.keys()}
    ordered = sorted(spent.items(), key=lambda item: -item[1])
    return {"/".join(key): round(value, 3) for key, value in ordered if abs(value) >= 0.005}


def main(arguments: Sequence[str]) -> int:
    """Measure the cell; returns the exit status."""
    cell, folder = Cell.model_validate_json(Path(arguments[0]).read_bytes()), Path(arguments[1]).resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    own = enter_own_loopback()
    become_reaper()
    start = time.monotonic()
    result = measure(cell, folder, own_loopback=own)
    write_atomic(folder / "result.json", result.model_dump_json(indent=1).encode() + b"\n", mode=0o644)
    print(f"{cell.name}: {result.overhead_s:.2f} s, {result.cpu_s:.2f} cpu-s per round; {time.monotonic() - start:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
