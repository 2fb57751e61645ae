"""`gmmas site enrolment`, `fingerprint` and `new-key`: what proves who a site is."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from client.audit_renewal import renew_log
from client.folder import NodeFolder
from gmmas_cli.site_control import DEFAULT_CONFIG, ByOption, ConfigOption, operator_name
from gmmas_cli.site_setup import write_enrolment_file
from gmmas_runtime.enrolment_file import fingerprint_of, key_sha256
from gmmas_runtime.keys import load_node_key, make_node_key
from gmmas_runtime.process_state import is_supervised
from gmmas_schema.errors import FederationError
from gmmas_schema.site import SiteConfig

ContactOption = Annotated[str, typer.Option(help="Whom the coordinator can call: a person or a desk, with a number.")]


def enrolment(config: ConfigOption = DEFAULT_CONFIG, *, contact: ContactOption = "") -> None:
    """Write the enrolment file anew; the coordinator takes one for thirty days."""
    site = SiteConfig.from_yaml(config)
    print_enrolment(Console(), site.node.private_key, write_enrolment_file(site.node.private_key, site=site.site, contact=contact))


def fingerprint(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Show the fingerprint of this node's key, to read out to the coordinator."""
    site = SiteConfig.from_yaml(config)
    Console().print(Text(_fingerprint(site.node.private_key), style="bold"))


def new_key(
    config: ConfigOption = DEFAULT_CONFIG,
    *,
    contact: ContactOption = "",
    reason: Annotated[str, typer.Option(help="Why; stands in the audit log. Name no patient.")] = "a new key",
    by: ByOption = None,
) -> None:
    """Make a new key and its enrolment file; the old key and the record that it signed are put aside. Stop the node first."""
    site, console = SiteConfig.from_yaml(config), Console()
    if is_supervised(NodeFolder(site.node.state).state_file):
        raise FederationError(
            "this node is running",
            where=site.node.state,
            got="a live supervisor",
            expected="a stopped node",
            remedy="`gmmas site stop`, then try again",
        )
    key = site.node.private_key
    public = key.with_name(key.name + ".pub")
    aside = f"until-{datetime.now(UTC):%Y%m%dT%H%M%S}"
    for path in (key, public):
        if path.exists():
            path.rename(path.with_name(f"{path.name}.{aside}"))
    make_node_key(key)
    signed_with = public.with_name(f"{public.name}.{aside}")
    record = renew_log(site, reason=reason[:300], by=operator_name(by), signed_with=signed_with if signed_with.exists() else None)
    print_enrolment(console, key, write_enrolment_file(key, site=site.site, contact=contact))
    console.print(
        "The coordinator enrols it with `gmmas server enrol FILE --replace`. Give the new .pub file to hospitals that keep yours."
    )
    console.print(Text(f"The old key lies beside it as {key.name}.{aside}; delete it once the new one works."), soft_wrap=True)
    if record is not None:
        command = f"gmmas site audit verify --config {config} --folder {record} --key {signed_with}"
        console.print(Text(f"The record up to now is kept: {command}"), soft_wrap=True)


def print_enrolment(console: Console, private_key: Path, enrolment_file: Path) -> None:
    """Say what to send to the coordinator, and what to read out."""
    console.print("Send this file to the coordinator, who enrols it with `gmmas server enrol`. The private key beside it stays here:")
    console.print(Text(str(enrolment_file), style="bold green"), soft_wrap=True)
    console.print(Text.assemble("Read this out when they call: ", (_fingerprint(private_key), "bold")))


def _fingerprint(private_key: Path) -> str:
    return fingerprint_of(key_sha256(load_node_key(private_key).public_key()))
