"""`python -m benchmarks.learning`: makes the cohorts, runs what is missing, writes the tables. Interrupted, it goes on where it was.

Without --final the table is about the development hospital and lies in the working folder; choices are made on it. With --final the
table is about the test hospital and goes to benchmarks/results, if it holds every main arm with every seed.
"""

import argparse
import os
import platform
import shlex
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.learning.figures import draw_curves, draw_differences
from benchmarks.learning.final import check_final, required
from benchmarks.learning.jobs import run_job
from benchmarks.learning.plan import LearningPlan, pick
from benchmarks.learning.quick import QUICK_ARMS, shrink
from benchmarks.learning.report import write_markdown
from benchmarks.learning.results import ArmResult, Job, Missing, discard, keep_result, read_result, why_missing
from benchmarks.learning.summary import summarise, write_json
from benchmarks.software import commit
from gmmas_data.parallel import map_in_processes
from gmmas_runtime.files import write_atomic
from gmmas_schema.errors import ConfigError, GmmasError

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "benchmarks" / "results"
KEPT = COMMITTED / "learning-runs"
FINAL = COMMITTED / "learning"
"""The final report, but for the endings of its files."""
ALL = "all"
LOOK_S = 5.0
SPEED_OVER_S = 3600.0
"""The time left is told from the speed of the last hour: arms differ in cost."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = _parse(arguments)
    console = Console()
    try:
        whole = LearningPlan.read()
        if options.quick:
            whole = shrink(whole)
        arms = options.arms or (QUICK_ARMS if options.quick else whole.main)
        plan = pick(whole, arms=() if arms == (ALL,) else arms, seeds=options.seeds)
        kept = None if options.quick else KEPT
        software = commit()
        jobs = [Job(options.out, plan, arm, seed, software, kept) for arm, seed in plan.runs]
        if options.final:  # hours of training must not end in a table that is refused
            _check_final(whole, jobs, options)
        failed = 0 if options.report else _run(console, jobs, options)
        failed += _keep(console, jobs) if options.keep else 0
        _report(console, whole, jobs, options, command=_command(sys.argv[1:] if arguments is None else arguments))
    except GmmasError as error:
        console.print(error.explain(), style="red", markup=False)
        return 1
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--arms", type=_names, default=(), help="arms to run and show, with commas, or `all`; the reference is always among them"
    )
    parser.add_argument("--seeds", type=_numbers, default=(), help="seeds, with commas")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="arms at one time, each with one thread")
    parser.add_argument("--out", type=Path, help="working folder (runs/bench-learning)")
    parser.add_argument("--report", action="store_true", help="write the tables of what is there; run nothing")
    parser.add_argument(
        "--final", action="store_true", help="look at the test hospital and write to benchmarks/results, if all main arms are done"
    )
    parser.add_argument(
        "--incomplete", action="store_true", help="with --final: though main arms lack results; the page says so at its head"
    )
    parser.add_argument("--replace", action="store_true", help="with --final: though the committed table has results that this one lacks")
    parser.add_argument(
        "--keep", action="store_true", help="put the results of single runs into benchmarks/results/learning-runs, to go on from elsewhere"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="throw away earlier results of these arms and seeds (after the software has changed)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny patients, network and run: shows that everything works, measures nothing"
    )
    options = parser.parse_args(arguments)
    options.out = options.out or ROOT / "runs" / ("bench-learning-quick" if options.quick else "bench-learning")
    if (options.incomplete or options.replace) and not options.final:
        parser.error("--incomplete and --replace are about the final table: they go with --final")
    if options.quick and (options.final or options.keep):
        parser.error("--quick measures nothing, so it has no final table and nothing to keep")
    return options


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in _names(text))


def _run(console: Console, jobs: Sequence[Job], options: argparse.Namespace) -> int:
    """Make what is missing; returns how many jobs failed."""
    # Before any child: each arm has one thread, or the processes would fight for the cores.
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
    if options.fresh:
        for job in jobs:
            discard(job)
    missing = [job for job in jobs if read_result(job) is None]
    console.print(f"{len(jobs)} runs ({len({job.seed for job in jobs})} seeds), {len(missing)} to do, {options.processes} at a time")
    if not missing:
        return 0
    for seed in dict.fromkeys(job.seed for job in missing):
        of_seed = [job for job in missing if job.seed == seed]
        grids = list({job.experiment.federation.model.grid.digest(): job.experiment.federation.model.grid for job in of_seed}.values())
        with _bar(console) as progress:
            on_scan, on_sample = (_updater(progress, f"seed {seed}: {what}") for what in ("scans", "samples"))
            of_seed[0].cohorts.make(grids, processes=options.processes, on_scan=on_scan, on_sample=on_sample)
    with _bar(console) as progress, _watch(progress, missing):
        failures = map_in_processes(run_job, missing, processes=options.processes)
    for job, failure in zip(missing, failures, strict=True):
        if failure:
            console.print(f"arm {job.arm.name}, seed {job.seed} failed: {failure}", style="red", markup=False)
    return sum(map(bool, failures))


def _keep(console: Console, jobs: Sequence[Job]) -> int:
    """Keep every result that may be kept; returns how many were refused."""
    kept = refused = 0
    for job in jobs:
        try:
            kept += keep_result(job)
        except ConfigError as error:
            refused += 1
            console.print(error.explain(), style="red", markup=False)
    console.print(f"{kept} results are kept in {KEPT}", highlight=False)
    return refused


def _updater(progress: Progress, what: str) -> Callable[[int, int], None]:
    """Add a bar and return what is to be called with (done, total)."""
    task = progress.add_task(what, total=None)
    return lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def _watch(progress: Progress, jobs: Sequence[Job]) -> Iterator[None]:
    """Show optimiser steps done, as the rounds on disk tell, while the context lasts."""
    steps = {job: job.experiment.steps for job in jobs}
    rounds = {job: job.experiment.federation.rounds for job in jobs}
    task = progress.add_task("training steps", total=sum(steps.values()))
    stop = threading.Event()

    def done(job: Job) -> int:
        return steps[job] if job.result_path.exists() else steps[job] * job.rounds_done() // rounds[job]

    def look() -> None:
        while not stop.wait(LOOK_S):
            progress.update(task, completed=sum(map(done, jobs)))

    # What an earlier call has trained is no speed of this one.
    progress.update(task, completed=sum(map(done, jobs)))
    progress.reset(task, completed=sum(map(done, jobs)), total=sum(steps.values()))
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, speed_estimate_period=SPEED_OVER_S)


def _check_final(plan: LearningPlan, jobs: Sequence[Job], options: argparse.Namespace) -> None:
    """Refuse a final table of these runs where it would not be whole (final.check_final)."""
    shown = {(job.arm.name, job.seed) for job in jobs}
    check_final(plan, shown, committed=FINAL.with_suffix(".json"), incomplete=options.incomplete, replace=options.replace)


def _report(console: Console, whole: LearningPlan, jobs: Sequence[Job], options: argparse.Namespace, *, command: str) -> None:
    """Write tables and plots of the results that are there."""
    plan = jobs[0].plan
    results: dict[str, dict[int, ArmResult]] = {}
    missing: list[Missing] = []
    for job in jobs:
        if (result := read_result(job)) is None:
            missing.append(why_missing(job))
        else:
            results.setdefault(job.arm.name, {})[job.seed] = result
    if options.final:
        _check_final(whole, [job for job in jobs if job.seed in results.get(job.arm.name, {})], options)
        named = {(job.arm.name, job.seed) for job in jobs}
        missing += [Missing(arm=arm, seed=seed, state="left out") for arm, seed in required(whole) if (arm, seed) not in named]
    if plan.reference not in results:
        console.print(f"nothing to show: no result of the reference {plan.reference}")
        return
    summary = summarise(
        plan,
        results,
        final=options.final,
        command=command,
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        missing=missing,
        incomplete=options.final and any((run.arm, run.seed) in required(whole) for run in missing),
    )
    target = FINAL if options.final else options.out / "development"
    target.parent.mkdir(parents=True, exist_ok=True)
    table = write_markdown(summary)
    write_atomic(target.with_suffix(".json"), write_json(summary), mode=0o644)
    write_atomic(target.with_suffix(".md"), table.encode(), mode=0o644)
    draw_differences(summary, target.with_name(f"{target.name}-differences.png"))
    draw_curves(summary, results, target.with_name(f"{target.name}-curves.png"))
    console.print(table, markup=False, highlight=False, soft_wrap=True)
    console.print(f"written to {target}.json, .md, -differences.png, -curves.png", highlight=False)


def _command(arguments: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "benchmarks.learning", *arguments])


if __name__ == "__main__":
    sys.exit(main())
