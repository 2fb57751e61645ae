"""`gmmas server enrol`, `revoke` and `sites`: which hospitals may connect."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmmas_cli.screens import nodes_table
from gmmas_runtime.enrolment_file import fingerprint_of, is_fingerprint, key_sha256
from gmmas_runtime.keys import SERVER_CERTIFICATE, load_certificate
from gmmas_schema.errors import TrustError
from gmmas_schema.messages import PROTOCOL_VERSION
from server.deployment import enrol, list_nodes, revoke
from server.enrolment import Candidate, read_candidate
from server.folder import CoordinatorFolder
from server.site_register import SiteRegister

FolderOption = Annotated[Path, typer.Option("--server", "-s", help="Folder of the coordinator.", envvar="GMMAS_SERVER")]
DEFAULT_FOLDER = Path("coordinator")
WARNING_DAYS = 30


def enrol_command(
    file: Annotated[Path, typer.Argument(help="The enrolment file that the hospital sent, or its .pub file.", show_default=False)],
    *,
    name: Annotated[str | None, typer.Option(help="Name of the site; only a .pub file needs it.", show_default=False)] = None,
    fingerprint: Annotated[str | None, typer.Option(help="What the hospital read out; another key is refused.", show_default=False)] = None,
    replace: Annotated[bool, typer.Option("--replace", help="The site has a new key: revoke the one it has now.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask whether the fingerprint was compared.")] = False,
    server: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Let a hospital in, by the file that `gmmas site init` made there."""
    console = Console()
    candidate = read_candidate(file, name=name)
    console.print(_candidate_table(candidate))
    _compare(candidate, fingerprint)
    if candidate.enrolment is None:
        console.print("A bare key: nothing shows that its sender holds the private half, or whom to call.", style="yellow")
    elif candidate.enrolment.protocol != PROTOCOL_VERSION:
        spoken = candidate.enrolment.protocol
        console.print(f"It speaks protocol {spoken}, runs here {PROTOCOL_VERSION}: they leave it out until it is updated.", style="yellow")
    if fingerprint is None and not yes and sys.stdin.isatty():
        console.print("Call the hospital on a number that you knew before, and let it read out `gmmas site fingerprint`.")
        typer.confirm("Is it the same?", abort=True)
    site = enrol(server, file, name=name, replace=replace)
    console.print(Text.assemble(("Enrolled ", "green"), (site.name, "bold"), f" as node {site.node}."))
    print_handout(console, CoordinatorFolder.open(server))


def revoke_command(
    name: Annotated[str, typer.Argument(help="Name of the site.", show_default=False)],
    *,
    server: FolderOption = DEFAULT_FOLDER,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Shut a hospital out: its key can never come back, a new key can."""
    if not yes:
        typer.confirm(f"Revoke the key of '{name}' for good?", abort=True)
    site = revoke(server, name=name)
    Console().print(Text.assemble(("Revoked ", "yellow"), (site.name, "bold"), f" (node {site.node})."))


def sites(
    server: FolderOption = DEFAULT_FOLDER,
    *,
    keys: Annotated[bool, typer.Option("--keys", help="Show fingerprints, contacts and releases, too.")] = False,
) -> None:
    """List the enrolled hospitals and their connections."""
    console = Console()
    nodes = list_nodes(server)
    console.print(nodes_table(nodes))
    opened = CoordinatorFolder.open(server)
    if keys:
        register = SiteRegister(opened)
        table = Table(box=SIMPLE, title="keys", title_justify="left")
        for column in ("site", "fingerprint", "enrolled", "contact", "release"):
            table.add_column(column, overflow="fold")
        for node in nodes:
            known = register.find(node.key_sha256)
            contact, release = (known.contact, known.software) if known is not None else ("", "")
            table.add_row(node.name, fingerprint_of(node.key_sha256), f"{node.enrolled:%Y-%m-%d}", Text(contact), Text(release))
        console.print(table)
    warn_of_certificate(console, opened)


def warn_of_certificate(console: Console, opened: CoordinatorFolder) -> None:
    """Say what is to be done when the coordinator's certificate will expire soon."""
    last = load_certificate(opened.server / SERVER_CERTIFICATE).not_valid_after_utc
    days = (last - datetime.now(UTC)).days
    if days <= WARNING_DAYS:
        text = f"This coordinator's certificate expires in {days} days ({last:%Y-%m-%d}). Renew it: gmmas server renew {opened.path}"
        console.print(Text(text, style="yellow"), soft_wrap=True)


def print_handout(console: Console, opened: CoordinatorFolder) -> None:
    """Say what a hospital needs."""
    console.print("A hospital needs this address and this file (public; a copy of it is enough):")
    console.print(Text.assemble("  address      ", (opened.config.public_address, "bold")))
    console.print(Text.assemble("  certificate  ", (str(opened.authority_certificate), "bold")), soft_wrap=True)
    if opened.config.listen == "loopback":
        console.print("It serves this machine only (`listen: loopback` in coordinator.yaml).", style="yellow")


def _candidate_table(candidate: Candidate) -> Table:
    told = candidate.enrolment
    table = Table(box=SIMPLE, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    rows = [("site", candidate.name), ("fingerprint", candidate.fingerprint)]
    if told is not None:
        rows += [("contact", told.contact or "none given"), ("release", told.software), ("made", f"{told.made:%Y-%m-%d %H:%M} UTC")]
    for label, value in rows:
        table.add_row(label, Text(value, style="bold" if label == "fingerprint" else ""))
    return table


def _compare(candidate: Candidate, told: str | None) -> None:
    if told is not None and not is_fingerprint(told, key_sha256(candidate.key)):
        raise TrustError(
            "this is not the key that was read out",
            where=candidate.path,
            got=candidate.fingerprint,
            expected=told,
            remedy="do not enrol it: somebody may have exchanged the file on its way. Ask the hospital for it by another way",
        )
