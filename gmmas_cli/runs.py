"""`gmmas runs compare`: what tells runs apart, in configuration, accuracy and cost."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gmmas_schema.errors import ConfigError

app = typer.Typer(help="Runs beside one another.", no_args_is_help=True)

FEWEST_RUNS = 2


@app.callback()
def _runs() -> None:
    """Runs beside one another."""


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, federated, simulated or of `gmmas train`.", show_default=False)],
    *,
    picture: Annotated[Path | None, typer.Option("--picture", help="PNG file to draw their curves in.", show_default=False)] = None,
    all_keys: Annotated[bool, typer.Option("--all", help="Show every key that differs, names and stores too.")] = False,
) -> None:
    """Show where the configurations of runs differ, what came of them, and what they cost. Reads their folders and nothing else."""
    console = Console()
    if len(runs) < FEWEST_RUNS:
        raise ConfigError(
            "one run cannot be compared",
            where="gmmas runs compare",
            got=f"{len(runs)} run",
            expected="two or more",
            remedy="for example: gmmas runs compare runs/first runs/second",
        )
    with console.status("reading the runs"):
        from gmmas_cli.runs_report import configuration_table, draw_curves, outcome_table, read_runs

        told = read_runs(runs)
    console.print(configuration_table(told, every=all_keys))
    console.print(outcome_table(told))
    console.print(
        "Test figures: each run's best model on the test patients of its own hospitals; where these differ they do not compare. "
        "Patient by patient: gmmas validate."
    )
    if picture is not None:
        draw_curves(told, picture)
        console.print(f"  picture    {picture}", soft_wrap=True)
