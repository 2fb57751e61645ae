"""`gmmas portal`: the clinical platform of one hospital, on this machine."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmmas_runtime.process_state import SupervisorState, live_state, stop_supervisor
from gmmas_runtime.processes import ProcessEvent, ProcessEventKind, Supervisor
from gmmas_schema.errors import ConfigError

app = typer.Typer(help="Run the clinical platform: upload, viewer, findings, reports.", invoke_without_command=True)

DEFAULT_FOLDER = Path("portal")
PACKAGES = ("argon2", "dcm2niix", "highdicom", "httpx", "pydicom", "python_multipart", "reportlab", "SimpleITK")
"""Of the extra `portal`, by the names they are imported by."""


@app.callback()
def portal(
    ctx: typer.Context,
    *,
    folder: Annotated[Path, typer.Option("--folder", "-f", help="Folder of the platform.", envvar="GMMAS_PORTAL")] = DEFAULT_FOLDER,
    model: Annotated[
        str | None, typer.Option(help="A run's folder models/best, or models:/NAME@best. Kept for later starts.", show_default=False)
    ] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store of models:/NAME.", show_default=False)] = None,
    authority: Annotated[
        Path | None, typer.Option(help="The coordinator's authority.pem: take nothing but models signed under it.", show_default=False)
    ] = None,
    institution: Annotated[str | None, typer.Option(help="Name at the top of every page.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(help="TCP port on 127.0.0.1 (9094).", show_default=False)] = None,
    sample: Annotated[
        Path | None, typer.Option(help="Folder of a case to begin with, instead of a phantom made at the first start.", show_default=False)
    ] = None,
) -> None:
    """Run the clinical platform of one hospital until Ctrl-C. Research use only.

    The first start makes the folder and needs --model. Links that sign the first two accounts in are printed until they have a password.
    """
    ctx.obj = folder
    _check_packages()
    if ctx.invoked_subcommand is not None:
        return
    given = {
        "model": model if model is None or model.startswith(("models:/", "runs:/")) else str(Path(model).resolve()),
        "tracking_uri": tracking_uri,
        "authority": None if authority is None else str(authority.resolve()),
        "institution": institution,
        "port": port,
    }
    serve_portal(Console(), folder, sample=sample, **given)


@app.command()
def link(ctx: typer.Context, name: Annotated[str, typer.Argument(help="Name of the account.", show_default=False)]) -> None:
    """Print a link that signs an account in once, for whoever has lost a password."""
    from gmmas_portal.web.deployment import invite
    from gmmas_portal.web.settings import PortalFolder

    Console().print(Text(invite(PortalFolder.open(ctx.obj), name).address, style="bold"), soft_wrap=True)


@app.command()
def audit(ctx: typer.Context) -> None:
    """Check the whole audit, and print its head: note it outside of this machine."""
    from gmmas_portal.web.audit import AuditTrail
    from gmmas_portal.web.settings import PortalFolder
    from gmmas_portal.web.tables import Database

    state, console = AuditTrail(Database(PortalFolder.open(ctx.obj).database)).verify(), Console()
    if state.broken_at is not None:
        console.print(f"[bold red]The chain is broken[/]: line {state.broken_at} of {state.lines} is not as it was written.")
        raise typer.Exit(1)
    console.print(Text.assemble((f"{state.lines} lines, as they were written", "green"), f"; head {state.head}"), soft_wrap=True)


@app.command()
def threshold(
    ctx: typer.Context,
    *,
    keep: Annotated[bool, typer.Option("--keep", help="Use it from the next start on, for as long as this model is in use.")] = False,
) -> None:
    """Measure above which score a case counts as unlike known gliomas, on the hospital's own.

    Counts one case of each patient whose diagnosis from tissue was entered, as analysed by the model in use. Twenty are needed, and
    the model must not have been trained on them.
    """
    from gmmas_portal.analysis.novelty import DEFAULT_THRESHOLD, QUANTILE, choose_threshold
    from gmmas_portal.web.cases import CaseStore
    from gmmas_portal.web.known_cases import known_scores
    from gmmas_portal.web.model_copy import read_papers
    from gmmas_portal.web.settings import OwnThreshold, PortalFolder
    from gmmas_portal.web.tables import Database

    folder, console = PortalFolder.open(ctx.obj), Console()
    sha256 = read_papers(folder).sha256
    scores = known_scores(CaseStore(Database(folder.database)), weights_sha256=sha256)
    score, before = choose_threshold(list(scores.values())), folder.config.threshold_for(sha256)
    console.print(
        f"{QUANTILE:.0%} of {len(scores)} known gliomas have a score up to [bold]{score:.2f}[/]; cases above "
        f"{DEFAULT_THRESHOLD if before is None else before:.2f} are left open now ({'built in' if before is None else 'measured here'}).",
        soft_wrap=True,
    )
    if keep:
        own = OwnThreshold(score=score, patients=len(scores), weights_sha256=sha256)
        PortalFolder.make(folder.path, folder.config.model_copy(update={"novelty": own}))
        console.print("Kept in portal.yaml; start the platform again to use it. Earlier findings stay until a case is analysed again.")
    else:
        console.print("Add --keep to use it.")


@app.command()
def down(ctx: typer.Context) -> None:
    """Stop a platform that runs in another terminal."""
    from gmmas_portal.web.settings import PortalFolder

    was_running = stop_supervisor(PortalFolder.open(ctx.obj).state_file)
    Console().print("The platform has stopped." if was_running else "No platform was running.")


@app.command()
def status(ctx: typer.Context) -> None:
    """Show the platform's processes."""
    from gmmas_portal.web.settings import PortalFolder

    opened = PortalFolder.open(ctx.obj)
    state = live_state(opened.state_file)
    Console().print("No platform is running." if state is None else _processes(state))


def serve_portal(console: Console, folder: Path, *, sample: Path | None = None, **given: str | int | None) -> None:
    """Prepare a platform and run it until Ctrl-C.

    Raises:
        GmmasError: as of gmmas_portal.web.deployment.prepare_portal and of a process that does not start.
    """
    from gmmas_portal.web.deployment import invite_newcomers, portal_processes, prepare_portal

    with console.status("preparing the platform"):
        opened = prepare_portal(folder, sample=sample, **given)
        specs = portal_processes(opened)

    def report(event: ProcessEvent) -> None:
        if event.kind in (ProcessEventKind.EXITED, ProcessEventKind.FAILED):
            console.print(f"[yellow]{event.name} ended[/] and is started again; see {opened.logs / event.name}.log", soft_wrap=True)
        if event.kind is ProcessEventKind.READY and event.name == "web":
            console.print(Text.assemble(("The platform serves", "green"), " on ", (opened.config.address, "bold"), ". Ctrl-C stops it."))
            for invitation in invite_newcomers(opened):
                console.print(Text(f"Open it as {invitation.account.name} ({invitation.account.role}), once:"))
                console.print(Text(f"  {invitation.address}", style="bold"), soft_wrap=True)

    Supervisor(specs, report, state_file=opened.state_file).run()
    console.print("The platform has stopped. A job at work is taken up again at the next start.")


def _check_packages() -> None:
    """Say what to install before anything is made."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise ConfigError(
            "packages of the platform are not installed",
            got=f"no {', '.join(missing)}",
            expected="gmmas-fed with its extra `portal`",
            remedy="pip install --constraint constraints.txt 'gmmas-fed[portal]'",
        )


def _processes(state: SupervisorState) -> Table:
    table = Table(box=SIMPLE)
    for column in ("process", "state", "restarts", "MiB"):
        table.add_column(column)
    for process in state.processes:
        table.add_row(process.name, process.state.value, str(process.restarts), f"{process.rss_mib:.0f}")
    return table
