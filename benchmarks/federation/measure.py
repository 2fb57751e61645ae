"""One cell, measured in a process of its own: `python -m benchmarks.federation.measure CELL.json FOLDER`.

The process is the root of everything the system starts, on a loopback of its own; result.json appears in the folder at the end.
"""

import importlib
import os
import platform
import signal
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

from pydantic import model_validator

from benchmarks.federation.accounting import Sample, TreeSampler, at, become_reaper
from benchmarks.federation.launching import Launcher
from benchmarks.federation.network import enter_own_loopback
from benchmarks.federation.notes import read_notes, summarise_notes
from benchmarks.federation.plan import Cell, System, notes_folder
from benchmarks.software import commit
from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import GmmasError

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

FAILURE: Final = "failure.txt"
"""File in a cell's folder that says in one line why there is no result."""
SHOWN_S: Final = 0.005
"""Processor seconds of a period from which on a program is named."""


class Result(FrozenModel):
    """What a cell cost.

    Attributes:
        periods: rounds that were measured: from the first training start of one to that of the next.
        wall_s: seconds of a period, mean.
        train_s: longest training of a period, mean.
        overhead_s: wall_s - train_s.
        cpu_s: processor seconds of all processes per period, the stand-in's own taken off.
        stand_in_cpu_s: what was taken off: the threads that trained.
        cpu_by_program: processor seconds of all processes per period by "role/program", the stand-in's own included; less where a
            program ended, whose seconds are then its parent's "ended children".
        loopback_bytes: bytes per period on loopback, headers and each node's inner traffic included; 0 where others use it.
        coordinator_peak_mib: what the coordinator's processes held at once, each with its largest resident memory so far.
        peak_by_program: largest memory by "role/program"; sums where a program ran more than once.
        unseen_s: processor seconds per period of processes that ended and that nobody counted; cpu_s lacks them.
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
    stand_in_cpu_s: float
    cpu_by_program: dict[str, float]
    loopback_bytes: float
    coordinator_peak_mib: float
    peak_by_program: dict[str, float]
    unseen_s: float
    load: float
    own_loopback: bool
    machine: str
    extra: dict[str, float]
    software: str = "unknown"

    @model_validator(mode="after")
    def _is_the_sum_of_its_parts(self) -> Self:
        parts_s = sum(self.cpu_by_program.values()) - self.stand_in_cpu_s
        if abs(parts_s - self.cpu_s) > 0.01 + 0.001 * len(self.cpu_by_program):
            raise ValueError(f"cpu_s {self.cpu_s:.3f} is not the sum of its parts without the stand-in, {parts_s:.3f}")
        return self

    @property
    def unseen_share(self) -> float:
        """Share of the processor seconds that was not seen."""
        return self.unseen_s / max(self.cpu_s + self.unseen_s, 1e-9)


def measure(cell: Cell, folder: Path, *, own_loopback: bool) -> Result:
    """Run a cell and return what it cost."""
    notes = notes_folder(folder)
    notes.mkdir(parents=True, exist_ok=True)
    sampler = TreeSampler()
    launcher = Launcher(folder / "logs", notes, cell.train_s, sampler, cell.patience_s)
    sampler.start()
    try:
        module = importlib.import_module(f"benchmarks.federation.{MODULES[cell.system]}")
        extra = module.run(cell, folder, launcher)
    finally:
        sampler.stop()
        launcher.stop()
    training = summarise_notes(read_notes(notes), sites=cell.sites, rounds=cell.rounds)
    starts, periods = training.starts, cell.rounds - 1
    begin, end = (at(sampler.samples, moment) for moment in (starts[0], starts[-1]))
    overheads = [(after - before) - longest for (before, after), longest in zip(pairwise(starts), training.longest, strict=False)]
    return Result(
        cell=cell,
        periods=periods,
        wall_s=(starts[-1] - starts[0]) / periods,
        train_s=sum(training.longest[:periods]) / periods,
        overhead_s=sum(overheads) / periods,
        overheads_s=tuple(round(each, 3) for each in overheads),
        cpu_s=(end.total_s - begin.total_s - training.cpu_s) / periods,
        stand_in_cpu_s=training.cpu_s / periods,
        cpu_by_program=by_program(begin, end, periods=periods),
        loopback_bytes=(end.loopback_bytes - begin.loopback_bytes) / periods if own_loopback else 0.0,
        coordinator_peak_mib=sampler.held_mib.get("coordinator", 0.0),
        peak_by_program={"/".join(key): round(peak, 1) for key, peak in sorted(sampler.peaks_mib().items())},
        unseen_s=(end.unseen_s - begin.unseen_s) / periods,
        load=os.getloadavg()[0],
        own_loopback=own_loopback,
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        extra=extra,
        software=commit(),
    )


def by_program(begin: Sample, end: Sample, *, periods: int) -> dict[str, float]:
    """Return the processor seconds of a period by "role/program", the largest first; what is hardly anything is put together."""
    spent = {key: (end.seconds.get(key, 0.0) - begin.seconds.get(key, 0.0)) / periods for key in end.seconds.keys() | begin.seconds.keys()}
    shown = {"/".join(key): round(value, 3) for key, value in sorted(spent.items(), key=lambda item: -item[1]) if abs(value) >= SHOWN_S}
    return shown | {"the rest": round(sum(value for value in spent.values() if abs(value) < SHOWN_S), 3)}


def reason_of(error: Exception) -> str:
    """Return in one line why a cell failed."""
    if isinstance(error, GmmasError):
        return error.brief()
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def main(arguments: Sequence[str]) -> int:
    """Measure the cell; returns the exit status."""
    cell, folder = Cell.model_validate_json(Path(arguments[0]).read_bytes()), Path(arguments[1]).resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    own = enter_own_loopback()
    become_reaper()
    start = time.monotonic()
    try:
        result = measure(cell, folder, own_loopback=own)
    except Exception as error:
        write_atomic(folder / FAILURE, f"{reason_of(error)}\n".encode(), mode=0o644)
        raise
    write_atomic(folder / "result.json", result.model_dump_json(indent=1).encode() + b"\n", mode=0o644)
    print(f"{cell.name}: {result.overhead_s:.2f} s, {result.cpu_s:.2f} cpu-s per round; {time.monotonic() - start:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
