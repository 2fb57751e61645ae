"""`gmmas server operator`: who may use the dashboard, and what they did."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.folder import CoordinatorFolder
from server.operators import OperatorStore, Role, Way, system_user

app = typer.Typer(help="Let people use the dashboard, shut them out, see what they did.", no_args_is_help=True)

FolderOption = Annotated[Path, typer.Option("--server", "-s", help="Folder of the coordinator.", envvar="GMMAS_SERVER")]
NameArgument = Annotated[str, typer.Argument(help="Name of the operator.", show_default=False)]
DEFAULT_FOLDER = Path("coordinator")


@app.command("add")
def add_command(
    name: NameArgument,
    *,
    role: Annotated[Role, typer.Option(help="coordinator: everything; researcher: look only.", show_default=False)],
    server: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Make an operator and show their token, once."""
    opened = CoordinatorFolder.open(server)
    token = OperatorStore(opened.operators).add(name, role)
    _note(opened, f"operator add {name} --role {role}")
    console = Console()
    console.print(Text.assemble(("Added ", "green"), (name, "bold"), f" as {role}. Their token, which is shown this once:"))
    console.print(Text(f"  {token}", style="bold"), soft_wrap=True)
    if opened.config.dashboard is not None:
        console.print(f"They log in with it at {opened.config.dashboard.address} while the coordinator runs.")
        console.print(f"Programs send it: curl -H 'Authorization: Bearer TOKEN' {opened.config.dashboard.address}/api/runs", soft_wrap=True)
    else:
        console.print("This coordinator serves no dashboard: add `dashboard: {port: 9093}` to coordinator.yaml.", style="yellow")


@app.command("list")
def list_command(server: FolderOption = DEFAULT_FOLDER) -> None:
    """List the operators."""
    table = Table(box=SIMPLE, title="operators", title_justify="left")
    for column in ("name", "role", "since"):
        table.add_column(column)
    for each in OperatorStore(CoordinatorFolder.open(server).operators).operators():
        table.add_row(each.name, each.role, f"{datetime.fromtimestamp(each.created, UTC).astimezone():%Y-%m-%d}")
    Console().print(table)


@app.command("remove")
def remove_command(name: NameArgument, *, server: FolderOption = DEFAULT_FOLDER) -> None:
    """Shut an operator out: their token and open sessions end at once."""
    opened = CoordinatorFolder.open(server)
    OperatorStore(opened.operators).remove(name)
    _note(opened, f"operator remove {name}")
    Console().print(Text.assemble(("Removed ", "yellow"), (name, "bold"), "."))


@app.command("calls")
def calls_command(
    *,
    last: Annotated[int, typer.Option(help="How many.", min=1)] = 50,
    server: FolderOption = DEFAULT_FOLDER,
) -> None:
    """List what operators asked for and what came of it, the newest last."""
    console = Console()
    for call in reversed(OperatorStore(CoordinatorFolder.open(server).operators).calls(last=last)):
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(call.time))
        who = f"{call.operator or '(nobody known)':<16} {call.role or '':<12}"
        style = "red" if call.outcome.startswith(("refused", "failed")) else ""
        line = f"  {who} {call.way:<12} {call.client:<16} {call.action}  {call.outcome}"
        console.print(Text.assemble((clock, "dim"), (line, style)), soft_wrap=True)


def _note(opened: CoordinatorFolder, action: str) -> None:
    """Record what whoever owns the folder did, under the name that the system knows them by."""
    store = OperatorStore(opened.operators)
    store.note(f"gmmas server {action}", "done", operator=system_user(), role=None, way=Way.FILE_RIGHTS, client="this machine")
