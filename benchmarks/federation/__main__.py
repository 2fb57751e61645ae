"""`python -m benchmarks.federation`: measures what is missing, writes tables and plot. Interrupted, it goes on where it was."""

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.committed import what_would_be_lost
from benchmarks.federation.figures import draw
from benchmarks.federation.measure import FAILURE, Result
from benchmarks.federation.plan import DEPLOYED, MODELS, WHAT, Cell, System, plan_cells
from benchmarks.federation.report import count_rows, name_missing, summarise, write_markdown
from gmmas_runtime.files import write_atomic

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "benchmarks" / "results"
NODES: tuple[System, ...] = ("gmmas-nodes", "flower-nodes")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = _parse(arguments)
    console = Console()
    cells = _cells(options)
    failed = 0 if options.report else _run(console, cells, options)
    results = [result for cell in cells if (result := read_result(options.out, cell)) is not None]
    if not results:
        return 1
    words = [word for word in (arguments if arguments is not None else sys.argv[1:]) if word != "--report"]
    missing = name_missing(cells, results, {cell.name: why for cell in cells if (why := read_failure(options.out, cell))})
    summary = summarise(results, command=shlex.join(["python", "-m", "benchmarks.federation", *words]), missing=missing)
    return 0 if _report(console, summary, options) and not failed else 1


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.federation", description=__doc__)
    parser.add_argument("--systems", type=_systems, default=DEPLOYED, help=f"with commas, of {', '.join(WHAT)}")
    parser.add_argument("--sites", type=_numbers, default=(4,), help="numbers of sites with real processes, with commas")
    parser.add_argument("--models", type=_words, default=tuple(MODELS), help=f"with commas, of {', '.join(MODELS)}")
    parser.add_argument("--nodes", type=_numbers, default=(4, 16, 64), help="numbers of simulated nodes, for memory; 0 for none")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of a run; one period less is measured")
    parser.add_argument("--train-s", type=float, default=2.0, help="seconds of the stand-in training")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each cell")
    parser.add_argument("--out", type=Path, help="working folder (runs/bench-federation)")
    parser.add_argument("--report", action="store_true", help="write the tables of what is there; run nothing")
    parser.add_argument("--fresh", action="store_true", help="throw away earlier results of these cells (after the software has changed)")
    parser.add_argument("--commit", action="store_true", help="write to benchmarks/results too, where no row of it would be lost")
    parser.add_argument("--replace", action="store_true", help="with --commit: whatever would be lost")
    parser.add_argument("--quick", action="store_true", help="two sites, a tiny model, two rounds: shows that it works, measures nothing")
    options = parser.parse_args(arguments)
    options.out = (options.out or ROOT / "runs" / ("bench-federation-quick" if options.quick else "bench-federation")).resolve()
    return options


def _cells(options: argparse.Namespace) -> list[Cell]:
    if options.quick:
        return plan_cells(systems=options.systems, sites=(2,), models=("tiny",), rounds=2, train_s=0.2, repeats=1)
    sizes = {"models": options.models, "rounds": options.rounds, "train_s": options.train_s}
    cells = plan_cells(systems=options.systems, sites=options.sites, repeats=options.repeats, **sizes)
    nodes = [count for count in options.nodes if count > 0]
    sizes |= {"models": tuple(options.models)[:1], "rounds": 2}
    return [*cells, *plan_cells(systems=NODES, sites=nodes, repeats=1, **sizes)]


def read_result(out: Path, cell: Cell) -> Result | None:
    """Return the result of a cell, or None where it has not been measured; one of other settings does not count."""
    try:
        result = Result.model_validate_json((out / cell.name / "result.json").read_bytes())
    except (OSError, ValidationError):
        return None
    return result if result.cell == cell else None


def read_failure(out: Path, cell: Cell) -> str:
    """Return in one line why the last run of a cell failed; empty where it did not."""
    path = out / cell.name / FAILURE
    return f"failed: {path.read_text().strip()}" if path.exists() else ""


def _run(console: Console, cells: Sequence[Cell], options: argparse.Namespace) -> int:
    """Measure what is missing, one cell after the other; returns how many failed."""
    if options.fresh:
        for cell in cells:
            shutil.rmtree(options.out / cell.name, ignore_errors=True)
    if any(cell.system.startswith("nvflare") for cell in cells):
        from benchmarks.federation.flare import make_environment

        make_environment()  # here, where the package index can be reached
    failed = 0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("runs", total=len(cells))
        for cell in cells:
            progress.update(task, description=cell.name)
            if read_result(options.out, cell) is None:
                failed += not measure_cell(console, options.out, cell)
            progress.advance(task)
    return failed


def measure_cell(console: Console, out: Path, cell: Cell) -> bool:
    """Measure a cell in a process of its own; returns whether that went well."""
    folder = out / cell.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(cell.model_dump_json(indent=1) + "\n")
    command = (sys.executable, "-m", "benchmarks.federation.measure", folder / "cell.json", folder)
    ended = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ})
    if ended.returncode != 0:
        if not (folder / FAILURE).exists():
            (folder / FAILURE).write_text(f"ended with {ended.returncode}\n")
        console.print(f"{cell.name} failed; logs in {folder}\n{ended.stderr[-3000:]}", style="red", markup=False)
        return False
    console.print(ended.stdout.strip(), markup=False, highlight=False)
    return True


def _report(console: Console, summary: dict[str, object], options: argparse.Namespace) -> bool:
    """Write and print the page; returns whether it went wherever it was to go."""
    page = write_markdown(summary)
    _write(options.out / "federation", summary, page)
    console.print(page, markup=False, highlight=False, soft_wrap=True)
    console.print(f"written to {options.out}/federation.json, .md, .png", highlight=False)
    if not options.commit or options.quick:
        return True
    lost = [] if options.replace else what_would_be_lost(COMMITTED / "federation.json", count_rows(summary), count=count_rows)
    if lost:
        console.print(f"not committed, for the table there has more: {'; '.join(lost)}. --replace puts this one there", style="red")
        return False
    _write(COMMITTED / "federation", summary, page)
    console.print(f"written to {COMMITTED}/federation.json, .md, .png", highlight=False)
    return True


def _write(target: Path, summary: dict[str, object], page: str) -> None:
    write_atomic(target.with_suffix(".json"), json.dumps(summary, indent=1).encode() + b"\n", mode=0o644)
    write_atomic(target.with_suffix(".md"), page.encode(), mode=0o644)
    draw(summary, target.with_suffix(".png"))


def _words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in _words(text))


def _systems(text: str) -> tuple[str, ...]:
    unknown = [word for word in _words(text) if word not in WHAT]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; systems are {', '.join(WHAT)}")
    return _words(text)


if __name__ == "__main__":
    sys.exit(main())
