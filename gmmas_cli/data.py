"""`gmmas data check`: what a cohort holds, and what is wrong with it, before it joins a federation."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmmas_cli.dicom_import import import_dicom
from gmmas_cli.progress import progress_bar
from gmmas_data.cases import Case
from gmmas_data.layouts import read_cohort, survey_folder
from gmmas_data.quality import QualityReport, check_cohort
from gmmas_schema.vocabulary import MARKER_NAMES, MARKERS, MODALITIES, REQUIRED_TASKS, Layout, Task

app = typer.Typer(help="Look at a cohort on disk, or make one of DICOM studies.", no_args_is_help=True)
app.command("import")(import_dicom)

SHOWN_CASES = 20

MARKER_WORDS = {
    Task.IDH: ("mutant", "wildtype"),
    Task.CODELETION: ("codeleted", "intact"),
    Task.GRADE: ("high", "low"),
    Task.MGMT: ("methylated", "unmeth."),
}
"""The words for positive and negative; as short as the terminal needs them."""

_LAYOUTS = ("auto", *(str(layout) for layout in Layout))


@app.callback()
def _data() -> None:
    """Look at a cohort on disk, or make one of DICOM studies."""


@app.command()
def check(
    folder: Annotated[Path, typer.Argument(help="Folder of the cohort.", show_default=False)],
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV: patient_id, idh, codeletion; also grade, mgmt.", show_default=False),
    ] = None,
    layout: Annotated[str, typer.Option(help=f"Convention of the file names: {', '.join(_LAYOUTS)}.")] = "auto",
    processes: Annotated[int, typer.Option(help="Cases read at one time.", min=1)] = os.cpu_count() or 1,
    every: Annotated[bool, typer.Option("--all", help="List every case, not the first ones only.")] = False,
) -> None:
    """Read every case of a cohort as a site would. Exit code 1 if any is bad."""
    console = Console()
    cases = read_cohort(folder, layout=_layout_named(layout), labels=labels)
    with progress_bar(console, "checking") as update:
        report = check_cohort(cases, processes=processes, on_progress=update)
    bad = {case_id for case_id, _ in report.rejected}
    console.print(_case_table(cases, bad=bad, limit=len(cases) if every else SHOWN_CASES))
    console.print(_label_table(report.accepted))
    for reason, count in survey_folder(folder, layout=_layout_named(layout)).reasons().items():
        console.print(f"{_count(count, 'NIfTI file')} left out: {reason}", style="yellow")
    _print_verdict(console, report)
    if bad:
        raise typer.Exit(1)


def _layout_named(name: str) -> Layout | Literal["auto"]:
    """Return the layout an option names."""
    if name not in _LAYOUTS:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(_LAYOUTS)}", param_hint="--layout")
    return "auto" if name == "auto" else Layout(name)


def _case_table(cases: Sequence[Case], *, bad: set[str], limit: int) -> Table:
    """Return the cases, bad ones first: a long list is cut, and nobody may miss them."""
    patients = len({case.patient_id for case in cases})
    title = f"{_count(len(cases), 'case')} of {_count(patients, 'patient')}, layout {cases[0].layout}"
    table = Table(title=title, title_justify="left", box=SIMPLE)
    table.add_column("case", overflow="fold", ratio=1)
    markers = _markers_shown(cases)
    for column in (*MODALITIES, "seg", *(MARKER_NAMES[task] for task in markers), "quality"):
        table.add_column(column, no_wrap=True)
    for case in sorted(cases, key=lambda case: case.case_id not in bad)[:limit]:
        table.add_row(
            Text(case.case_id),
            *(_tick(modality in case.images) for modality in MODALITIES),
            _tick(case.segmentation is not None),
            *(_marker(case.marker(task), *MARKER_WORDS[task]) for task in markers),
            "[red]bad" if case.case_id in bad else "[green]good",
        )
    if len(cases) > limit:
        table.caption = f"and {len(cases) - limit} more; --all lists them"
    return table


def _label_table(cases: Sequence[Case]) -> Table:
    """Return how many good cases have each sequence, and how many of those each label."""
    table = Table(title="Good cases by sequence and label", title_justify="left", box=SIMPLE)
    markers = _markers_shown(cases)
    words = [word for task in markers for word in MARKER_WORDS[task]]
    table.add_column("")
    for column in ("cases", "seg", *words):
        table.add_column(column, justify="right", no_wrap=True)
    rows = [(str(modality), [case for case in cases if modality in case.images]) for modality in MODALITIES]
    rows.append(("all four", [case for case in cases if len(case.images) == len(MODALITIES)]))
    rows.append(("any", list(cases)))
    for name, held in rows:
        counts = (
            len(held),
            sum(case.segmentation is not None for case in held),
            *(sum(case.marker(task) is value for case in held) for task in markers for value in (True, False)),
        )
        table.add_row(name, *map(str, counts))
    return table


def _markers_shown(cases: Sequence[Case]) -> list[Task]:
    """Return the markers of every network, and of the others those that a case has a label of."""
    return [task for task in MARKERS if task in REQUIRED_TASKS or any(case.marker(task) is not None for case in cases)]


def _print_verdict(console: Console, report: QualityReport) -> None:
    """Print every bad case with its message, then one line."""
    for case_id, error in report.rejected:
        console.print(Text(f"\n{case_id}", style="bold red"))
        console.print(Text(error.explain()))
    total = len(report.accepted) + len(report.rejected)
    if report.rejected:
        console.print(Text(f"\n{len(report.rejected)} of {_count(total, 'case')} bad", style="bold red"))
    else:
        console.print(Text(f"{_count(total, 'case')}, all good", style="bold green"))


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


def _tick(there: bool) -> str:
    return "[green]yes" if there else "[dim]-"


def _marker(known: bool | None, yes: str, no: str) -> str:
    return "[dim]-" if known is None else yes if known else no
