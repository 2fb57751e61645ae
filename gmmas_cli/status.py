"""`gmmas status`: a coordinator's processes and hospitals, how far a run has come, what happened in it and what it costs."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from gmmas_cli.cost_report import cost_tables
from gmmas_cli.live import LiveRun, draw_run
from gmmas_cli.run import failure_of, print_outcome
from gmmas_cli.screens import nodes_table, processes_table
from gmmas_runtime.probe import is_healthy
from gmmas_runtime.process_state import live_state
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ConfigError
from gmmas_schema.events import Event, EventKind
from server.checkpoint import SIMULATION
from server.deployment import list_nodes
from server.events import read_events
from server.folder import CoordinatorFolder
from server.following import follow_run
from server.ledger import read_ledger
from server.run_view import RoundReader, RunView, first_line
from server.submission import is_at_work, read_submission
from server.validation_folder import ValidationFolder, open_work

app = typer.Typer()


@app.command()
def status(
    run_dir: Annotated[Path | None, typer.Argument(help="Folder of a run.", show_default=False)] = None,
    *,
    server: Annotated[Path | None, typer.Option("--server", "-s", help="Folder of a coordinator.", show_default=False)] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show the run until it ends.")] = False,
    costs: Annotated[bool, typer.Option("--costs", help="Show what the run costs, by site and by round.")] = False,
    site: Annotated[str | None, typer.Option(help="With --costs: the rounds of this site.", show_default=False)] = None,
    events: Annotated[bool, typer.Option("--events", help="List what happened in the run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --costs or --events: one JSON object a line.")] = False,
) -> None:
    """Show a coordinator, its hospitals and a run. Exit code 1 if the coordinator does not answer or the run has failed."""
    console = Console()
    if (as_json and not (costs or events)) or (site and not costs):
        raise ConfigError(
            "--json and --site say how a record is shown",
            where="gmmas status",
            got="--site without --costs" if site else "neither --costs nor --events",
            expected="--costs, or with --json --events",
            remedy="for example: gmmas status runs/first --costs --json",
        )
    if costs or events:
        _tell_record(console, run_dir, costs=costs, site=site, as_json=as_json)
        return
    if run_dir is None and server is None:
        raise ConfigError(
            "nothing to show",
            where="gmmas status",
            got="neither a run nor a coordinator",
            expected="the folder of a run, or --server with the folder of a coordinator",
            remedy="for example: gmmas status runs/first, or gmmas status --server coordinator",
        )
    good = True
    if server is not None:
        good = show_coordinator(console, server)
    if run_dir is not None:
        good &= _follow(console, run_dir) if follow else show_run(console, run_dir)
    if not good:
        raise typer.Exit(1)


def _tell_record(console: Console, run_dir: Path | None, *, costs: bool, site: str | None, as_json: bool) -> None:
    """Print a run's ledger or its events."""
    if run_dir is None:
        raise ConfigError(
            "no run is named",
            where="gmmas status",
            got="--costs or --events alone",
            expected="the folder of a run",
            remedy="for example: gmmas status runs/first --costs",
        )
    path = open_work(run_dir).events_path
    if costs:
        entries = read_ledger(path)
        tables = cost_tables(entries, site=site)  # refuses a site that the run does not have
        if as_json:
            _print_lines(entry for entry in entries if site in (None, entry.site))
        for table in () if as_json else tables:
            console.print(table)
            console.print()
        return
    happened = read_events(path)
    if as_json:
        _print_lines(happened)
    for event in () if as_json else happened:
        console.print(event_line(event), soft_wrap=True)


def event_line(event: Event) -> Text:
    """Return one event as a line: when, what, round, site, code and the first line of its message."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.time))
    number = "" if event.round is None else str(event.round)
    style = "red" if event.code is not None else ""
    reason = " ".join(filter(None, [event.code, first_line(event)]))
    return Text.assemble((clock, "dim"), (f"  {event.kind:<18}{number:>4}  {event.site or '':<12} {reason}".rstrip(), style))


def _print_lines(models: Iterable[FrozenModel]) -> None:
    """Print one JSON object a line, for programs."""
    for model in models:
        typer.echo(model.model_dump_json())


def show_coordinator(console: Console, server: Path) -> bool:
    """Print a coordinator's processes and hospitals; returns whether it answers."""
    opened = CoordinatorFolder.open(server)
    state = live_state(opened.state_file)
    if state is not None:
        console.print(processes_table(state))
    answers = is_healthy(opened.config.local_address, authority_certificate=opened.authority_certificate)
    if answers:
        console.print(f"The coordinator answers on {opened.config.local_address}.", style="green")
        console.print(nodes_table(list_nodes(server)))
    else:
        console.print(f"The coordinator does not answer on {opened.config.local_address}.", style="red")
    return answers


def show_run(console: Console, run_dir: Path) -> bool:
    """Print how far a run, or a validation, has come; returns False if it has failed or its process is gone."""
    folder = open_work(run_dir)
    if isinstance(folder, ValidationFolder):
        return _show_validation(console, folder)
    view = RunView(RoundReader(run_dir))
    for event in read_events(folder.events_path):
        view.update(event)
    at_work = not view.ended and is_at_work(run_dir)
    view.rounds = view.rounds or folder.config.rounds
    if not at_work and not view.ended:
        begun = read_submission(run_dir) is not None or (run_dir / SIMULATION).exists()
        view.stage = "not at work" + ("" if begun else ", never submitted")
    console.print(draw_run(view))
    return at_work or view.succeeded


def _show_validation(console: Console, folder: ValidationFolder) -> bool:
    """Print a validation's matrix, or how many models have been measured; returns False if it ended without a matrix."""
    from gmmas_cli.validate import matrix_tables

    matrix = folder.read_matrix()
    for table in () if matrix is None else matrix_tables(matrix):
        console.print(table)
    if matrix is None:
        models = folder.config.models
        measured = sum(folder.read_row(model) is not None for model in models)
        at_work = is_at_work(folder.path)
        console.print(f"{measured} of {len(models)} models measured; {'at work' if at_work else 'not at work: gmmas validate --resume'}")
        return at_work
    return True


def _follow(console: Console, run_dir: Path) -> bool:
    with LiveRun(console, run_dir=run_dir) as live:
        end = follow_run(run_dir, on_event=live.update)
    submission = read_submission(run_dir)
    if end.kind is EventKind.RUN_FAILED:
        raise failure_of(end, run_dir, submission.coordinator if submission is not None else None)
    print_outcome(console, run_dir, end)
    return True
