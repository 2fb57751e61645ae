"""`gmmas run`: start or resume a federated run at a coordinator and follow it to its end."""

import re
import threading
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from gmmas_cli.live import LiveRun
from gmmas_cli.server_sites import DEFAULT_FOLDER, FolderOption
from gmmas_schema.errors import ConfigError, FederationError, ReasonCode
from gmmas_schema.events import Event, EventKind
from gmmas_schema.federation import FederationConfig
from server import launching
from server.checkpoint import RunFolder
from server.deployment import stop_run
from server.following import follow_run, resume_command
from server.launching import resume_run
from server.tracking import MlflowTracker
from server.wording import format_metrics

app = typer.Typer()

SECOND_PRESS_S: Final = 3.0
INTERRUPTED: Final = 130


@app.command()
def run(
    federation: Annotated[
        Path | None, typer.Argument(help="federation.yaml of the run; not needed with --resume.", show_default=False)
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.", show_default=False)],
    server: FolderOption = DEFAULT_FOLDER,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out after its last finished round.")] = False,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store; by default mlflow.db in the run's folder.", show_default=False)
    ] = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Show the run until it ends.")] = True,
) -> None:
    """Start or resume a federated run and follow it. Exit code 0 only if it has finished.

    Ctrl-C once: leave it running. Twice: stop it; it can be resumed.
    """
    console = Console()
    flower_run = start_run(federation, out, server, resume=resume, tracking_uri=tracking_uri)
    if not follow:
        console.print(f"Flower run {flower_run} has been submitted.")
        _print_commands(console, out, server)
        return
    try:
        with LiveRun(console, run_dir=out) as live:
            end = follow_run(out, on_event=live.update)
    except KeyboardInterrupt:
        raise typer.Exit(_interrupted(console, out, server, flower_run)) from None
    if end.kind is EventKind.RUN_FAILED:
        raise failure_of(end, out, server)
    print_outcome(console, out, end)


def start_run(federation: Path | None, out: Path, server: Path, *, resume: bool, tracking_uri: str | None = None) -> str:
    """Prepare the run's folder and submit the run; returns the number of the Flower run.

    Args:
        federation: federation.yaml; None to resume with the run's own configuration.
        out: folder of the run.
        server: folder of the coordinator.
        resume: go on with the run in `out`.
        tracking_uri: MLflow store in place of the configuration's.

    Raises:
        ConfigError: no configuration, or a wrong one, or the folder is not fit for it.
        FederationError: the coordinator does not answer or refuses.
    """
    config = _read_config(federation, out, resume=resume)
    if tracking_uri is not None:
        config = config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": tracking_uri})})
    return resume_run(out, server, config) if resume else launching.start_run(out, server, config)


def failure_of(end: Event, out: Path, server: Path | None) -> FederationError:
    """Return the run's own account of its failure, with the way on; `server` is None for a simulation."""
    what = end.message.partition("\n")[0].removesuffix(f" [{end.code}]")
    told = dict(re.findall(r"^  (got|expected|remedy): *(.*)$", end.message, re.MULTILINE))
    return FederationError(
        f"the run failed: {what}",
        where=out,
        got=told.get("got", ""),
        expected=told.get("expected", "all rounds; those that are finished are safe"),
        remedy=f"{told.get('remedy', 'mend the reason')}; then: {resume_command(out, server)}",
        code=end.code or ReasonCode.INTERNAL,
    )


def print_outcome(console: Console, out: Path, end: Event) -> None:
    """Say what came of a finished run, where its models are, and how to look at it in MLflow."""
    config = RunFolder.open(out).config
    best = end.detail.get("best_round")
    console.print(Text.assemble(("The run has finished.", "bold green"), f" Best model: round {best} of {config.rounds}."))
    for split in ("validation", "test"):
        if shown := format_metrics(end.detail.get(split) or {}):
            console.print(Text(f"  {split:<11}{shown}"), soft_wrap=True)
    console.print(Text(f"  models     {out / 'models'}"), soft_wrap=True)
    console.print(Text(f"  MLflow     mlflow ui --backend-store-uri {MlflowTracker(config.tracking, out).uri}"), soft_wrap=True)


def _read_config(federation: Path | None, out: Path, *, resume: bool) -> FederationConfig:
    if federation is not None:
        return FederationConfig.from_yaml(federation)
    if resume:
        return RunFolder.open(out).config
    raise ConfigError(
        "a new run needs a configuration",
        where="gmmas run",
        got="no federation.yaml",
        expected="the path of a federation.yaml",
        remedy="name one (site_configs/federation-example.yaml is commented), or go on with a run by --resume",
    )


def _interrupted(console: Console, out: Path, server: Path, flower_run: str) -> int:
    """Leave the run alone, or stop it on a second Ctrl-C; returns the exit code."""
    console.print(f"\nThe run goes on. Ctrl-C within {SECOND_PRESS_S:g} s stops it.", style="yellow")
    try:
        threading.Event().wait(SECOND_PRESS_S)
    except KeyboardInterrupt:
        stop_run(server, flower_run)
        console.print("The run has stopped; its finished rounds are safe. Go on with:", style="yellow")
        console.print(Text(f"  {resume_command(out, server)}"), soft_wrap=True)
        return INTERRUPTED
    _print_commands(console, out, server)
    return INTERRUPTED


def _print_commands(console: Console, out: Path, server: Path) -> None:
    console.print(Text(f"  watch it   gmmas status {out} --follow"), soft_wrap=True)
    console.print(Text(f"  stop it    gmmas server stop-run {out}"), soft_wrap=True)
    console.print(Text(f"  resume it  {resume_command(out, server)}"), soft_wrap=True)
