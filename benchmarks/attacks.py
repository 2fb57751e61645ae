"""What bad hospitals do to the model, with and without defences, and what defences cost where nobody is bad.

    python -m benchmarks.attacks            what is missing of the table, then the table in runs/bench-attacks
    python -m benchmarks.attacks --final    the table goes to benchmarks/results too, where nothing of the one there would be lost
    python -m benchmarks.attacks --quick    every step of it in seconds, on runs too small to measure anything

Hospitals of phantoms with every sequence and every label, so that each group has as many holders, train through the real round loop; the
last of them is bad. The model of the last round is scored on a held-out hospital, with all sequences (attack_table has the figures). All
cells of a seed share patients, start and random draws. A cell that is done is kept, and one of the committed table need not be done
again, on another machine for instance; one that was interrupted begins anew, for a bad site has a memory.

`no checks` takes away the checks of form, identity and values that every reply passes before it is averaged. What it leaves is not a check
of replies: no round writes a model with a value that is not finite, and arrays of other shapes cannot be added. So `nan` and `shape` end
such a run in its first round. A run that ends before its last round has broken down, and has no Dice.
"""

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from rich.console import Console
from rich.progress import track

from benchmarks.attack_runs import DEFENCES, FULL, QUICK, SCANNERS, Bench, pairs
from benchmarks.attack_table import Cell, write_table
from benchmarks.committed import what_would_be_lost
from benchmarks.hostile_sites import ATTACKS
from benchmarks.software import commit
from gmmas_runtime.files import write_atomic

ROOT: Final = Path(__file__).resolve().parents[1]
COMMITTED: Final = ROOT / "benchmarks" / "results"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = _parse(arguments)
    console, software = Console(), commit()
    wanted = pairs(options.attacks, options.defences)
    kept = () if options.fresh or options.quick else _committed_cells()
    benches = [Bench(options.out, QUICK if options.quick else FULL, seed, kept=kept) for seed in options.seeds]
    planned = [(bench, *pair) for bench in benches for pair in wanted]
    for bench, *pair in planned if options.fresh else ():
        bench.discard(*pair)
    failed = 0 if options.report else _run(console, planned, software=software, processes=options.processes)
    cells = [cell for bench, attack, defence in planned if (cell := bench.read(attack, defence)) is not None]
    if not cells:
        console.print("there is no result", style="red")
        return 1
    done = {cell.name for cell in cells}
    missing = {name: bench.why_not(*pair) for bench, *pair in planned if (name := bench.name(*pair)) not in done}
    words = [word for word in (sys.argv[1:] if arguments is None else arguments) if word != "--report"]
    summary = {
        "command": shlex.join(["python", "-m", "benchmarks.attacks", *words]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "software": software,
        "missing": missing,
        "cells": [cell.model_dump(mode="json") for cell in cells],
    }
    page = write_table(cells, defences=tuple(DEFENCES), sites=len(SCANNERS), missing=missing)
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    return 0 if _write(console, options, summary, page) and not failed else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.attacks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--attacks", default=",".join(ATTACKS), help="rows, with commas")
    parser.add_argument("--defences", default=",".join(DEFENCES), help="columns, with commas")
    parser.add_argument("--seeds", default="201", help="with commas")
    parser.add_argument("--processes", type=int, default=1, help="that make the patients")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench-attacks")
    parser.add_argument("--report", action="store_true", help="only the table of what is there")
    parser.add_argument("--final", action="store_true", help="write the table to benchmarks/results too, where no cell of it would be lost")
    parser.add_argument("--replace", action="store_true", help="with --final: whatever would be lost")
    parser.add_argument("--fresh", action="store_true", help="anew, whatever was done before (after the software has changed)")
    parser.add_argument("--quick", action="store_true", help="tiny")
    options = parser.parse_args(arguments)
    if options.quick and options.final:
        parser.error("--quick measures nothing, so it has no final table")
    if options.fresh and options.report:
        parser.error("--fresh does cells anew, and --report does none")
    options.attacks, options.defences = options.attacks.split(","), options.defences.split(",")
    options.seeds = [int(seed) for seed in options.seeds.split(",")]
    for named, known in ((options.attacks, ATTACKS), (options.defences, DEFENCES)):
        if unknown := set(named) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    return options


def _committed_cells() -> list[Cell]:
    """Return the cells of the committed table that can still be read."""
    cells = []
    with suppress(FileNotFoundError):
        for raw in json.loads((COMMITTED / "attacks.json").read_text())["cells"]:
            with suppress(ValidationError):
                cells.append(Cell.model_validate(raw))
    return cells


def _run(console: Console, planned: Sequence[tuple[Bench, str, str]], *, software: str, processes: int) -> int:
    """Do what is missing; returns how many cells failed."""
    missing = [(bench, attack, defence) for bench, attack, defence in planned if bench.read(attack, defence) is None]
    for bench in dict.fromkeys(bench for bench, *_ in missing):
        bench.prepare(processes=processes)
    todo = track(missing, "cells", console=console, transient=True)
    return sum(not bench.try_to_run(attack, defence, software=software) for bench, attack, defence in todo)


def _write(console: Console, options: argparse.Namespace, summary: Mapping[str, Any], page: str) -> bool:
    """Write the table; returns whether it went wherever it was to go."""
    targets = [options.out]
    lost = what_would_be_lost(COMMITTED / "attacks.json", count_cells(summary), count=count_cells) if options.final else []
    if options.final and (options.replace or not lost):
        targets.append(COMMITTED)
    for target in targets:
        target.mkdir(parents=True, exist_ok=True)
        write_atomic(target / "attacks.json", json.dumps(summary, indent=1).encode() + b"\n", mode=0o644)
        write_atomic(target / "attacks.md", page.encode(), mode=0o644)
    if options.final and COMMITTED not in targets:
        console.print(f"not committed, for the table there has more: {'; '.join(lost)}. --replace puts this one there", style="red")
        return False
    return True


def count_cells(summary: Mapping[str, Any]) -> dict[str, int]:
    """Return the cells of a summary."""
    return {f"{cell['attack']}, {cell['defence']}, seed {cell['seed']}": 1 for cell in summary["cells"]}


if __name__ == "__main__":
    sys.exit(main())
