"""`gmmas phantom make`: synthetic cohorts of glioma MRI from a specification."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from gmmas_cli.progress import progress_bar
from gmmas_schema.phantom import PhantomManifest, PhantomSpec
from gmmas_schema.vocabulary import MARKER_NAMES, Subtype, Task

app = typer.Typer(help="Make synthetic cohorts of glioma MRI.", no_args_is_help=True)

OVERVIEW = "phantom.png"
SUBTYPE_COLUMNS = {Subtype.GLIOBLASTOMA: "GBM", Subtype.ASTROCYTOMA: "astro", Subtype.OLIGODENDROGLIOMA: "oligo"}
TASK_COLUMNS = {Task.SEGMENTATION: "seg", **{task: MARKER_NAMES[task] for task in (Task.IDH, Task.CODELETION, Task.GRADE)}}


@app.callback()
def _phantom() -> None:
    """Make synthetic cohorts of glioma MRI."""


@app.command()
def make(
    spec: Annotated[Path, typer.Argument(help="Specification (YAML), as site_configs/phantom-demo.yaml.", show_default=False)],
    out: Annotated[
        Path, typer.Argument(help="New folder, or one that an earlier call of the same specification left.", show_default=False)
    ],
    processes: Annotated[int | None, typer.Option(help="Worker processes; default one per usable core.", min=1, show_default=False)] = None,
    picture: Annotated[bool, typer.Option(help=f"Draw an overview, OUT/{OVERVIEW}.")] = True,
) -> None:
    """Make every patient of a specification, hospital by hospital. An interrupted call goes on where it stopped."""
    from gmmas_data.phantom import draw_overview, make_cohorts

    console = Console()
    wanted = PhantomSpec.from_yaml(spec)
    with progress_bar(console, "making patients") as on_progress:
        manifest = make_cohorts(wanted, out, processes=processes, on_progress=on_progress)
    console.print(_site_table(manifest))
    if picture:
        draw_overview(wanted, out, out / OVERVIEW)
        console.print(f"overview: {out / OVERVIEW}", soft_wrap=True)


def _site_table(manifest: PhantomManifest) -> Table:
    """Return what was made: patients, subtypes, labels and sequences per hospital."""
    title = f"Phantom cohorts, seed {manifest.spec.seed}: patients, subtypes, labels"
    table = Table(title=title, title_justify="left", box=SIMPLE, pad_edge=False)
    table.add_column("site", overflow="fold", min_width=6)
    for column in ("cases", *SUBTYPE_COLUMNS.values(), *TASK_COLUMNS.values()):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("sequences", no_wrap=True)
    for site in manifest.spec.sites:
        counts = manifest.sites[site.name]
        numbers = (counts.cases, *(counts.subtypes[s] for s in SUBTYPE_COLUMNS), *(counts.labelled[t] for t in TASK_COLUMNS))
        table.add_row(site.name, *map(str, numbers), " ".join(site.modalities))
    return table
