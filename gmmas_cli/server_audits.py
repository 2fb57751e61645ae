"""`gmmas server salt` and `audits`: what the hospitals hold together, and which patients they share."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmmas_cli.server_sites import DEFAULT_FOLDER, FolderOption
from gmmas_runtime.keys import load_public_key
from gmmas_schema.audit import AuditAggregate
from gmmas_schema.vocabulary import MODALITIES, TASKS
from server.folder import CoordinatorFolder
from server.salt import make_salt
from server.site_register import SiteRegister

if TYPE_CHECKING:
    from server.audits import Overview, SharedPatients


def salt(server: FolderOption = DEFAULT_FOLDER) -> None:
    """Make the salt by which hospitals key the fingerprints of their scans."""
    path, console = make_salt(CoordinatorFolder.open(server)), Console()
    console.print(Text.assemble("Made the federation's salt: ", (str(path), "bold")), soft_wrap=True)
    console.print("Hand it to the hospitals by a safe way: `gmmas site check --consent --salt FILE`. Whoever has it, and a scan, can")
    console.print("test whether that scan is in a hospital's cohort.")


def audits(
    files: Annotated[list[Path], typer.Argument(help="Files that `gmmas site check --consent` wrote.", show_default=False)],
    *,
    key: Annotated[list[Path] | None, typer.Option(help="A .pub file of a site that is not enrolled here.", show_default=False)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    server: FolderOption = DEFAULT_FOLDER,
) -> None:
    """Verify the hospitals' signed counts and show what they hold together; what they withheld stays withheld."""
    from server.audits import overview_of, read_audits, shared_patients  # what they import would stay with a running coordinator

    register = SiteRegister(CoordinatorFolder.open(server))
    aggregates = read_audits(files, register, keys=[load_public_key(path) for path in key or ()])
    overview, shared = overview_of(aggregates), shared_patients(aggregates)
    console = Console()
    if as_json:
        console.print(json.dumps(_plain(overview, shared)), soft_wrap=True, markup=False, highlight=False)
        return
    console.print(_holdings_table(overview))
    console.print(_matrix(overview))
    console.print("few: under 11 in each part. ≥: the sum of the parts that are told. –: the site has none.", style="dim")
    _print_shared(console, aggregates, shared)


def _holdings_table(overview: "Overview") -> Table:
    table = Table(box=SIMPLE, title="Cases, sequences and labels by site", title_justify="left")
    table.add_column("")
    for site in (*overview.sites, "together"):
        table.add_column(site, justify="right")
    for row, counts in overview.rows.items():
        if ", " not in row:
            table.add_row(row, *(str(counts[site]) for site in overview.sites), str(overview.total(row)))
    return table


def _matrix(overview: "Overview") -> Table:
    """Return sequences against labels, over all sites."""
    tasks = [task for task in TASKS if any(f"{modality}, {task}" in overview.rows for modality in MODALITIES)]
    table = Table(box=SIMPLE, title="Labelled cases with each sequence, all sites together", title_justify="left")
    table.add_column("")
    for task in tasks:
        table.add_column(str(task), justify="right")
    for modality in MODALITIES:
        rows = [f"{modality}, {task}" for task in tasks]
        if any(row in overview.rows for row in rows):
            table.add_row(str(modality), *(str(overview.total(row)) if row in overview.rows else "–" for row in rows))
    return table


def _print_shared(console: Console, aggregates: tuple[AuditAggregate, ...], shared: "tuple[SharedPatients, ...]") -> None:
    with_prints = [aggregate.site for aggregate in aggregates if aggregate.fingerprints]
    if len(with_prints) < 2:
        console.print("Fewer than two hospitals sent fingerprints: whether they share patients is not known (`gmmas server salt`).")
        return
    for found in shared:
        console.print(
            Text.assemble(
                (" and ".join(found.sites), "bold"), f" share patients: {found} by {found.modality}. One of them should leave them out"
            ),
            soft_wrap=True,
        )
    if not shared:
        console.print(f"No patients found that two of {', '.join(with_prints)} share.")


def _plain(overview: "Overview", shared: "tuple[SharedPatients, ...]") -> dict[str, object]:
    rows = {
        row: {site: str(counts[site]) for site in overview.sites} | {"together": str(overview.total(row))}
        for row, counts in overview.rows.items()
    }
    return {"rows": rows, "shared": [{"sites": found.sites, "sequence": found.modality, "patients": str(found)} for found in shared]}
