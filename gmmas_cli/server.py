"""`gmmas server`: set up, run and stop a coordinator; enrol and revoke hospitals."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from gmmas_cli import operators
from gmmas_cli.screens import describe_process_event
from gmmas_cli.server_audits import audits, salt
from gmmas_cli.server_sites import DEFAULT_FOLDER, enrol_command, print_handout, revoke_command, sites, warn_of_certificate
from gmmas_cli.server_storage import compact, rotate_key
from gmmas_runtime.keys import load_certificate
from gmmas_runtime.process_state import SupervisorState, launch_in_background, stop_supervisor
from gmmas_runtime.processes import ProcessEvent, Supervisor
from gmmas_schema.coordinator import DEFAULT_DASHBOARD_PORT, DEFAULT_PORT
from server.deployment import (
    coordinator_processes,
    init_coordinator,
    renew_certificate,
)
from server.folder import CoordinatorFolder
from server.launching import stop_submitted_run
from server.operators import OperatorStore

app = typer.Typer(help="Set up and run a coordinator, enrol and revoke hospitals.", no_args_is_help=True)
app.add_typer(operators.app, name="operator")
app.command("enrol")(enrol_command)
app.command("revoke")(revoke_command)
app.command()(sites)
app.command()(salt)
app.command()(audits)
app.command("rotate-key")(rotate_key)
app.command()(compact)

FolderArgument = Annotated[Path, typer.Argument(help="Folder of the coordinator.", envvar="GMMAS_SERVER")]
HostOption = Annotated[
    list[str] | None,
    typer.Option("--host", help="Name or address by which hospitals reach this machine; may be repeated.", show_default=False),
]


@app.command("init")
def init_command(
    folder: FolderArgument = DEFAULT_FOLDER,
    *,
    host: HostOption = None,
    port: Annotated[int, typer.Option(help="TCP port to serve on.")] = DEFAULT_PORT,
    name: Annotated[str, typer.Option(help="Name of the federation.")] = "gmmas",
    network: Annotated[bool, typer.Option("--network", help="Serve every network interface, not loopback only.")] = False,
    dashboard_port: Annotated[
        int, typer.Option(help="TCP port of the dashboard, on 127.0.0.1; 0 for no dashboard.")
    ] = DEFAULT_DASHBOARD_PORT,
) -> None:
    """Make a coordinator's folder: keys, certificates, configuration.

    Without --network nothing listens beyond 127.0.0.1. With it, enrolled hospitals can connect; administration stays on loopback.
    """
    console = Console()
    made = init_coordinator(
        folder, hosts=host or (), port=port, name=name, listen="network" if network else "loopback", dashboard_port=dashboard_port or None
    )
    console.print(
        Text.assemble("Made the coordinator's folder ", (str(made.path), "bold"), ". Keep it private and back it up."), soft_wrap=True
    )
    print_handout(console, made)
    console.print(Text.assemble("Next: ", (f"gmmas server up {folder}", "bold")), soft_wrap=True)


@app.command()
def up(
    folder: FolderArgument = DEFAULT_FOLDER,
    *,
    background: Annotated[bool, typer.Option("--background", help="Return once it serves; stop it with `gmmas server down`.")] = False,
) -> None:
    """Run the coordinator until Ctrl-C, or in the background."""
    console = Console()
    opened = CoordinatorFolder.open(folder)
    warn_of_certificate(console, opened)
    if background:
        state = _start_in_background(console, opened)
        console.print(Text.assemble(("The coordinator serves", "green"), f" on {opened.config.local_address} (pid {state.pid})."))
        _print_dashboard(console, opened)
        console.print(Text(f"Stop it with: gmmas server down {folder}"), soft_wrap=True)
        return
    supervisor = Supervisor(coordinator_processes(folder), _reporter(console, opened), state_file=opened.state_file)
    supervisor.run()
    console.print("The coordinator has stopped. Runs that were at work can be resumed.")


@app.command()
def down(folder: FolderArgument = DEFAULT_FOLDER) -> None:
    """Stop a coordinator that runs in the background or in another terminal."""
    opened = CoordinatorFolder.open(folder)
    was_running = stop_supervisor(opened.state_file)
    Console().print("The coordinator has stopped." if was_running else "No coordinator was running.")


@app.command()
def renew(folder: FolderArgument = DEFAULT_FOLDER, *, host: HostOption = None) -> None:
    """Issue a new TLS certificate, for further host names if given; hospitals need nothing new."""
    renewed = renew_certificate(folder, hosts=host or ())
    last = load_certificate(renewed.server / "server.pem").not_valid_after_utc
    names = ", ".join([*renewed.config.hosts, "127.0.0.1", "localhost"])
    console = Console()
    console.print(Text(f"New certificate for {names}, valid until {last:%Y-%m-%d}."), soft_wrap=True)
    console.print("A running coordinator takes it at its next start: gmmas server down, gmmas server up.")


@app.command("stop-run")
def stop_run_command(run_dir: Annotated[Path, typer.Argument(help="Folder of the run.", show_default=False)]) -> None:
    """Stop a run that goes on in the background; it can be resumed."""
    stop_submitted_run(run_dir)
    Console().print("The run has stopped; its finished rounds are safe.")


def _print_dashboard(console: Console, opened: CoordinatorFolder) -> None:
    """Say where the dashboard is, and how to be let in."""
    if opened.config.dashboard is None:
        return
    console.print(Text.assemble("Dashboard: ", (opened.config.dashboard.address, "bold")))
    if not OperatorStore(opened.operators).operators():
        folder = os.path.relpath(opened.path)
        console.print(Text(f"Be let in: gmmas server operator add NAME --role coordinator --server {folder}"), soft_wrap=True)


def _start_in_background(console: Console, opened: CoordinatorFolder) -> SupervisorState:
    coordinator_processes(opened.path)  # faults of the folder are told here, not in a log
    argv = [sys.executable, "-m", "gmmas_cli.main", "server", "up", str(opened.path)]
    with console.status("starting the coordinator"):
        return launch_in_background(
            argv, state_file=opened.state_file, log_file=opened.logs / "supervisor.log", environment={"NO_COLOR": "1", "COLUMNS": "200"}
        )


def _reporter(console: Console, opened: CoordinatorFolder) -> Callable[[ProcessEvent], None]:
    """Return what prints the changes of the processes, and once that all are ready."""
    waiting = {"superlink", "superexec"} | ({"dashboard"} if opened.config.dashboard is not None else set())

    def report(event: ProcessEvent) -> None:
        console.print(describe_process_event(event), soft_wrap=True)
        if event.kind == "ready" and event.name in waiting:
            waiting.remove(event.name)
            if not waiting:
                console.print(Text.assemble(("The coordinator serves", "green"), f" on {opened.config.local_address}. Ctrl-C stops it."))
                _print_dashboard(console, opened)
                console.print(Text(f"Enrol a hospital: gmmas server enrol SITE.enrolment.json --server {os.path.relpath(opened.path)}"))

    return report
