"""`gmmas site audit`: show and verify the record of what was asked of the node and what it answered."""

import json
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from client.audit_line import AuditKind, AuditLine, AuditOutcome
from client.audit_renewal import renew_log
from client.audit_verification import AuditVerdict, read_lines, verify_log
from client.folder import NodeFolder
from gmmas_cli.site_control import DEFAULT_CONFIG, ByOption, ConfigOption, operator_name
from gmmas_runtime.keys import load_node_key, load_public_key
from gmmas_schema.site import SiteConfig

app = typer.Typer(help="The record of what was asked of this node and what it answered.", invoke_without_command=True)

_LAST = 20
_FAULT = 1
_STYLES = {AuditOutcome.ANSWERED: "green", AuditOutcome.REFUSED: "yellow", AuditOutcome.FAILED: "red"}
_KINDS = {
    AuditKind.DESCRIBE: "describe",
    AuditKind.STARTED: "node started",
    AuditKind.RECOVERED: "a torn line was recognised",
    AuditKind.RENEWED: "a new record begins",
}


@app.callback()
def audit(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    last: Annotated[int, typer.Option(help="How many lines to show; 0 for all.", min=0)] = _LAST,
) -> None:
    """Show the last lines. `verify` checks the whole record."""
    if context.invoked_subcommand is None:
        show(config, last=last)


@app.command()
def show(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    last: Annotated[int, typer.Option(help="How many lines to show; 0 for all.", min=0)] = _LAST,
    run: Annotated[str | None, typer.Option(help="Only of this run.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, as it is kept.")] = False,
) -> None:
    """Show requests and their answers, the newest last."""
    console = Console()
    folder = NodeFolder(SiteConfig.from_yaml(config).node.state).audit_log
    lines = deque((line for line in read_lines(folder) if run is None or line.run == run), maxlen=last or None)
    if as_json:
        for line in lines:
            console.print(json.dumps(line.model_dump(mode="json")), soft_wrap=True, markup=False, highlight=False)
        return
    if not lines:
        console.print("nothing was asked yet" if run is None else f"nothing was asked for run {run}")
        return
    table = Table(box=SIMPLE, title="Record of requests", title_justify="left")
    for column in ("line", "time (UTC)", "what", "run", "round", "policy", "outcome", "bytes out", "by, reason"):
        justify: JustifyMethod = "right" if column in ("line", "round", "bytes out") else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column not in ("run", "by, reason"))
    for line in lines:
        table.add_row(*_row(line))
    console.print(table)


@app.command()
def verify(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    folder: Annotated[Path | None, typer.Option(help="An older record that was put aside.", show_default=False)] = None,
    key: Annotated[Path | None, typer.Option(help="The .pub file of the key that signed it.", show_default=False)] = None,
) -> None:
    """Check every line: unchanged, in order, none missing. Exit code 1 if something was tampered with."""
    console = Console()
    site = SiteConfig.from_yaml(config)
    public_key = load_node_key(site.node.private_key).public_key() if key is None else load_public_key(key)
    with console.status("verifying"):
        verdict = verify_log(folder or NodeFolder(site.node.state).audit_log, public_key)
    _print_verdict(console, verdict)
    if not verdict.is_whole:
        raise typer.Exit(_FAULT)


@app.command()
def renew(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    reason: Annotated[str, typer.Option(help="Why; stands in the first line of the new record.", show_default=False)],
    by: ByOption = None,
) -> None:
    """Put the record aside and begin another: after a new key, or where the old one was damaged. Stop the node first."""
    site = SiteConfig.from_yaml(config)
    aside = renew_log(site, reason=reason[:300], by=operator_name(by))
    console = Console()
    console.print(
        Text.assemble("The old record is kept in ", (str(aside), "bold")) if aside else "There was no record yet.", soft_wrap=True
    )
    console.print("A new one has begun; its first line names who began it and why.")


def _row(line: AuditLine) -> tuple[str | Text, ...]:
    what = f"secure, phase {line.phase}" if line.phase is not None else _KINDS.get(line.kind, line.kind.value)
    outcome = Text(line.outcome or "", style=_STYLES[line.outcome] if line.outcome else "")
    if line.code is not None and line.code != line.verdict:
        outcome.append(f" {line.code}")
    words = "; ".join(
        filter(None, [": ".join(filter(None, [line.by, line.reason])), ", ".join(f"without {part}" for part in line.withheld)])
    )
    return (
        str(line.n),
        f"{line.time.astimezone(UTC):%Y-%m-%d %H:%M:%S}",
        what,
        line.run,
        "" if line.round is None else str(line.round),
        line.verdict,
        outcome,
        f"{line.bytes_out:,}" if line.outcome is AuditOutcome.ANSWERED else "",
        words,
    )


def _print_verdict(console: Console, verdict: AuditVerdict) -> None:
    if verdict.is_whole:
        console.print(Text.assemble(("whole: ", "bold green"), f"{verdict.lines} lines, none changed, moved or missing"))
    else:
        console.print(Text.assemble(("tampered with", "bold red"), f" at {verdict.where}: {verdict.fault}"), soft_wrap=True)
        console.print(f"The {verdict.lines} lines before it are good. Keep the folder as it is, and ask who could write to it.")
    if verdict.torn:
        console.print(f"{verdict.torn} unfinished by a power cut; their answers never left")
    if verdict.lines:
        console.print(Text.assemble(f"line {verdict.lines} has the hash ", (verdict.head, "bold")), soft_wrap=True)
        today = datetime.now(UTC)
        console.print(f"Note it elsewhere ({today:%Y-%m-%d}): who restores an old copy of the record cannot make it end so again.")
