"""Tables and lines that several commands show: processes, nodes, enrolled sites."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from gmmas_runtime.process_state import ProcessState, SupervisorState
from gmmas_runtime.processes import ProcessEvent, ProcessEventKind
from server.enrolment import Connection, NodeStatus
from server.wording import format_seconds

_STATE_STYLE = {
    ProcessState.RUNNING: "green",
    ProcessState.STARTING: "yellow",
    ProcessState.BACK_OFF: "yellow",
    ProcessState.FAILED: "bold red",
}
_CONNECTIONS = {
    Connection.ONLINE: ("online", "green"),
    Connection.OFFLINE: ("offline", "yellow"),
    Connection.REGISTERED: ("never connected", "cyan"),
    Connection.UNREGISTERED: ("revoked", "red"),
}


def processes_table(state: SupervisorState) -> Table:
    """Return the processes of a supervisor: state, pid, restarts, memory now and at most."""
    table = Table(box=SIMPLE, title="processes", title_justify="left")
    for column, justify in (
        ("process", "left"),
        ("state", "left"),
        ("pid", "right"),
        ("restarts", "right"),
        ("MiB", "right"),
        ("most", "right"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for process in state.processes:
        shown = Text(process.state.value.replace("_", " "), style=_STATE_STYLE.get(process.state, ""))
        pid = "" if process.pid is None else str(process.pid)
        table.add_row(process.name, shown, pid, str(process.restarts), f"{process.rss_mib:.0f}", f"{process.peak_mib:.0f}")
    return table


def nodes_table(nodes: Sequence[NodeStatus]) -> Table:
    """Return every enrolled node with its connection."""
    table = Table(box=SIMPLE, title="hospitals", title_justify="left")
    for column in ("site", "connection", "for", "enrolled", "node"):
        table.add_column(column)
    now = datetime.now(UTC)
    for node in nodes:
        label, style = _CONNECTIONS[node.connection]
        since = format_seconds((now - node.changed).total_seconds()) if node.changed else ""
        table.add_row(node.name, Text(label, style=style), since, f"{node.enrolled:%Y-%m-%d}", Text(node.node, style="dim"))
    return table


def describe_process_event(event: ProcessEvent) -> Text:
    """Return one line (a failure: its whole explanation) for the terminal."""
    clock = (time.strftime("%H:%M:%S "), "dim")
    match event.kind:
        case ProcessEventKind.STARTED:
            return Text.assemble(clock, f"{event.name} started (pid {event.pid})")
        case ProcessEventKind.READY:
            return Text.assemble(clock, (f"{event.name} is ready", "green"))
        case ProcessEventKind.EXITED:
            return Text.assemble(clock, (f"{event.name} ended with code {event.exit_code}", "yellow"))
        case ProcessEventKind.BACK_OFF:
            return Text.assemble(clock, (f"{event.name} starts again in {event.wait_s:g} s", "yellow"))
        case ProcessEventKind.FAILED:
            return Text.assemble(clock, (f"{event.name} failed", "bold red"))
        case ProcessEventKind.STOPPED:
            return Text.assemble(clock, f"{event.name} stopped")
