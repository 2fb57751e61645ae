"""`gmmas site`: set up, start, watch, pause and stop the node of one hospital."""

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.prompt import Prompt
from rich.table import Table
from rich.text import Text

from client.folder import NodeFolder
from client.interventions import read_pause
from client.machine import certificate_warnings
from client.node import make_specs
from client.preflight import check_coordinator, check_files, check_port
from client.trainer_channel import TrainerChannel
from client.trainer_service_pb2 import Progress, State
from gmmas_cli.site_audit import app as audit
from gmmas_cli.site_check import check
from gmmas_cli.site_control import DEFAULT_CONFIG, ConfigOption, allow_command, describe_pause, pause, resume
from gmmas_cli.site_keys import ContactOption, enrolment, fingerprint, new_key, print_enrolment
from gmmas_cli.site_setup import SiteAnswers, write_site
from gmmas_cli.site_storage import prune_cache, rotate_key
from gmmas_runtime.process_state import ProcessState, SupervisorState, launch_in_background, live_state, read_state, stop_supervisor
from gmmas_runtime.processes import ProcessEvent, ProcessEventKind, Supervisor
from gmmas_schema.errors import ConfigError, FederationError, ReasonCode
from gmmas_schema.site import SiteConfig
from gmmas_schema.vocabulary import MODALITIES

app = typer.Typer(help="The node of one hospital.", no_args_is_help=True)

START_TIMEOUT_S = 24 * 3600.0
REFRESH_S = 0.5
MIB = 2**20

_STATE_STYLE = {
    ProcessState.RUNNING: "green",
    ProcessState.STARTING: "yellow",
    ProcessState.BACK_OFF: "yellow",
    ProcessState.FAILED: "bold red",
}


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Folder to set the site up in.")] = Path(),
    *,
    site: Annotated[str | None, typer.Option(help="Name of the site: lower-case letters, digits and hyphens.", show_default=False)] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of the cohort.", show_default=False)] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV: patient_id, idh, codeletion; also grade, mgmt.", show_default=False),
    ] = None,
    modalities: Annotated[str, typer.Option(help="Sequences to offer, comma-separated.")] = ",".join(MODALITIES),
    coordinator: Annotated[str | None, typer.Option(help="Address of the coordinator, host:port.", show_default=False)] = None,
    root_certificate: Annotated[Path | None, typer.Option(help="authority.pem from the coordinator.", show_default=False)] = None,
    runtime_port: Annotated[int, typer.Option(help="Free port on loopback; every node of one machine needs its own.")] = 19091,
    threads: Annotated[int, typer.Option(help="CPU threads of the trainer.", min=1)] = os.cpu_count() or 1,
    contact: ContactOption = "",
) -> None:
    """Write a commented site.yaml, make the node's key and the file to enrol it with; asks for what no option gives."""
    console = Console()
    answers = SiteAnswers(
        site=site or _ask("--site", "Name of the site (lower-case letters, digits, hyphens)", console=console),
        data=data or Path(_ask("--data", "Folder of the cohort", console=console)),
        labels=labels,
        modalities=tuple(name.strip() for name in modalities.split(",") if name.strip()),
        coordinator=coordinator or _ask("--coordinator", "Address of the coordinator (host:port)", console=console),
        root_certificate=root_certificate or Path(_ask("--root-certificate", "authority.pem from the coordinator", console=console)),
        runtime_port=runtime_port,
        threads=threads,
        contact=contact,
    )
    written = write_site(folder, answers)
    console.print(Text.assemble("Wrote ", (str(written.config), "bold"), " and the node's key."))
    print_enrolment(console, written.public_key.with_suffix(""), written.enrolment)
    console.print(Text(f"Then start the node: gmmas site start --config {written.config}"), soft_wrap=True)


@app.command()
def start(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    background: Annotated[bool, typer.Option("--background", help="Return once the node is connected; it goes on by itself.")] = False,
    wait_s: Annotated[float, typer.Option("--wait", help="Seconds to wait for an absent coordinator.", min=0)] = 10.0,
) -> None:
    """Start trainer, SuperNode and executor under one supervisor; stop them with Ctrl-C, SIGTERM or `gmmas site stop`."""
    console = Console()
    site = SiteConfig.from_yaml(config)
    if (running := live_state(NodeFolder(site.node.state).state_file)) is not None:
        raise FederationError(
            "this node is running already",
            where=site.node.state,
            got=f"a supervisor with pid {running.pid}",
            expected="none",
            remedy="`gmmas site status` shows it, `gmmas site stop` ends it",
        )
    check_files(site)
    check_port(site)
    with console.status(f"asking the coordinator at {site.coordinator.address}"):
        check_coordinator(site, wait_s=wait_s)
    specs = make_specs(site, config_path=config)
    folder = NodeFolder(site.node.state)
    if background:
        _start_in_background(console, config, folder)
    else:
        Supervisor(specs, _reporter(console, site.site), state_file=folder.state_file).run()
        console.print("stopped")


@app.command()
def stop(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Stop the node; a running task is ended and answered first."""
    console = Console()
    site = SiteConfig.from_yaml(config)
    stopped = stop_supervisor(NodeFolder(site.node.state).state_file)
    console.print(f"site {site.site} is stopped" if stopped else f"site {site.site} was not running")


@app.command()
def status(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing it until Ctrl-C.")] = False,
) -> None:
    """Show the node's processes and what the trainer is doing. Exit code 1 if the node is not running."""
    console = Console()
    site = SiteConfig.from_yaml(config)
    folder = NodeFolder(site.node.state)
    state = live_state(folder.state_file)
    if state is None:
        console.print(f"site {site.site} is not running; `gmmas site start` starts it")
        if (paused := read_pause(folder)) is not None:
            console.print(f"it is {describe_pause(paused)}", style="yellow")
        for process in last.processes if (last := read_state(folder.state_file)) is not None else ():
            if process.error:
                console.print(Text(f"its {process.name} stopped it:\n{process.error}", style="red"))
        raise typer.Exit(1)
    if not follow:
        console.print(_screen(site.site, state, _trainer_now(folder)))
        if (paused := read_pause(folder)) is not None:
            console.print(describe_pause(paused), style="yellow")
        for warning in certificate_warnings(site):
            console.print(Text(f"{warning.name}: {warning.found}; {warning.remedy}", style="yellow"), soft_wrap=True)
        return
    try:
        with Live(console=console, refresh_per_second=4) as live:
            while (state := live_state(folder.state_file)) is not None:
                _follow_once(live, site.site, folder, state)
    except KeyboardInterrupt:
        return
    console.print(f"site {site.site} has stopped")


def _ask(option: str, question: str, *, console: Console) -> str:
    """Ask at a terminal; without one, name the missing option."""
    if not sys.stdin.isatty():
        raise ConfigError("an option is missing", where="gmmas site init", got="nothing", expected=option, remedy=f"add {option}")
    answer = Prompt.ask(question, console=console)
    while not answer.strip():
        answer = Prompt.ask(question, console=console)
    return answer.strip()


def _start_in_background(console: Console, config: Path, folder: NodeFolder) -> None:
    """Start this very command detached, and wait until its processes are ready."""
    with console.status("starting") as spinner:

        def show(state: SupervisorState) -> None:
            waiting = next((p.name for p in state.processes if p.state is not ProcessState.RUNNING), "")
            progress = _trainer_now(folder) if waiting == "trainer" else None
            spinner.update(f"starting {waiting}" + (f": {_describe_preparation(progress)}" if progress else ""))

        state = launch_in_background(
            (sys.executable, "-m", "gmmas_cli.main", "site", "start", "--config", str(config.resolve()), "--wait", "0"),
            state_file=folder.state_file,
            log_file=folder.log("node"),
            timeout_s=START_TIMEOUT_S,
            on_change=show,
        )
    console.print(f"running in the background, pid {state.pid}; `gmmas site status --follow` shows it, `gmmas site stop` ends it")


def _reporter(console: Console, site: str) -> Callable[[ProcessEvent], None]:
    """Return what prints the supervisor's events as lines."""
    texts = {
        ProcessEventKind.STARTED: lambda event: f"{event.name} started, pid {event.pid}",
        ProcessEventKind.READY: lambda event: f"{event.name} ready",
        ProcessEventKind.EXITED: lambda event: f"{event.name} ended with code {event.exit_code}",
        ProcessEventKind.BACK_OFF: lambda event: f"{event.name} starts again in {event.wait_s:g} s",
        ProcessEventKind.STOPPED: lambda event: f"{event.name} stopped",
    }

    def report(event: ProcessEvent) -> None:
        if event.kind in texts:  # a failure is raised, and printed once, by the command
            console.print(Text(f"{time.strftime('%H:%M:%S')} {site}: {texts[event.kind](event)}"))

    return report


def _trainer_now(folder: NodeFolder) -> Progress | None:
    """Return the trainer's state, or None if it does not answer."""
    if not folder.socket.exists():
        return None
    try:
        with TrainerChannel(folder.socket) as trainer:
            return trainer.status()
    except FederationError:
        return None


def _follow_once(live: Live, site: str, folder: NodeFolder, state: SupervisorState) -> None:
    """Show the trainer's stream until it ends; the processes are looked at with every message."""
    try:
        if not folder.socket.exists():
            raise FederationError("the trainer is not there yet", code=ReasonCode.TRAINER_UNREACHABLE)
        with TrainerChannel(folder.socket) as trainer:
            for progress in trainer.follow(interval_s=REFRESH_S):
                current = live_state(folder.state_file)
                if current is None:
                    return
                live.update(_screen(site, current, progress))
    except FederationError:
        live.update(_screen(site, state, None))
        time.sleep(REFRESH_S)


def _screen(site: str, state: SupervisorState, progress: Progress | None) -> Group:
    """Return the processes as a table and the trainer's state below."""
    table = Table(title=f"site {site}", title_justify="left", box=None, pad_edge=False)
    for column in ("process", "state", "pid", "restarts", "memory"):
        table.add_column(column, justify="left" if column in ("process", "state") else "right")
    for process in state.processes:
        style = _STATE_STYLE.get(process.state, "")
        memory = f"{process.rss_mib:.0f} MiB" if process.rss_mib else ""
        table.add_row(process.name, Text(process.state, style=style), str(process.pid or ""), str(process.restarts), memory)
    return Group(table, Text(), _describe(progress))


def _describe(progress: Progress | None) -> Text:
    """Return the trainer's state in a few lines."""
    if progress is None:
        return Text("the trainer does not answer", style="yellow")
    lines = [State.Name(progress.state).lower()]
    if progress.state == State.PREPARING:
        lines[0] += f": {_describe_preparation(progress)}"
    if progress.run:
        step = f", step {progress.step} of {progress.steps}" if progress.steps else ""
        seconds = f", {progress.task_seconds:.0f} s" if progress.task_seconds else ""
        lines.append(f"run {progress.run}, round {progress.round} of {progress.rounds}{step}{seconds}")
    if progress.HasField("loss"):
        lines.append(f"training loss of the last round {progress.loss:.4f}")
    left_out = f", {progress.cases_left_out} left out" if progress.cases_left_out else ""
    lines.append(f"{progress.cases} cases{left_out}; {progress.tasks_done} tasks done; {progress.rss_bytes / MIB:.0f} MiB")
    if progress.notice:
        lines.append(f"the coordinator refused the last answer: {progress.notice}")
    if progress.last_error:
        lines.append(f"the last task failed: {progress.last_error} (logs/trainer.log says more)")
    return Text("\n".join(lines))


def _describe_preparation(progress: Progress) -> str:
    if progress.cases_to_cache and progress.cases_cached:
        return f"{progress.cases_cached} of {progress.cases_to_cache} cases preprocessed"
    if progress.cases_to_cache:
        return f"{progress.cases} of {progress.cases_to_cache} cases checked"
    return "reading the cohort"


# Last, for the page of help lists commands in the order in which they are made known.
app.command()(check)
app.command()(pause)
app.command()(resume)
app.command("allow")(allow_command)
app.add_typer(audit, name="audit")
app.command()(enrolment)
app.command()(fingerprint)
app.command("new-key")(new_key)
app.command("rotate-key")(rotate_key)
app.command("prune-cache")(prune_cache)
