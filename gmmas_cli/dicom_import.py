"""`gmmas data import`: a DICOM study to a case folder.

What headers and images say of the sequences is shown, and a person confirms it: it is never used silently.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from gmmas_cli.progress import progress_bar
from gmmas_data.dicom_import import import_study, look_at_images
from gmmas_data.dicom_series import Series, read_series
from gmmas_schema.dicom import ImportRecord, SeriesMap, SkullStripper
from gmmas_schema.errors import ConfigError
from gmmas_schema.vocabulary import MODALITIES, Modality


def import_dicom(
    folder: Annotated[Path, typer.Argument(help="Folder of one study, as the PACS exported it.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="Folder of the cohort; the case becomes a folder in it.", show_default=False)],
    *,
    named: Annotated[
        list[str] | None, typer.Option("--map", help="Series and sequence, as 5=t1ce; once per sequence.", show_default=False)
    ] = None,
    map_file: Annotated[Path | None, typer.Option(help="YAML for scripts: {t1: 3, t1ce: 5, flair: 4}.", show_default=False)] = None,
    look: Annotated[bool, typer.Option("--look/--no-look", help="Look at the images, too, before asking; seconds per series.")] = True,
    spacing: Annotated[float, typer.Option(help="Spacing of the common grid in mm.", min=0.5, max=4.0)] = 1.0,
    skull_stripper: Annotated[
        str | None,
        typer.Option(help="Program that takes the skull off, as 'hd-bet -i {image} -o {brain} -device cpu'.", show_default=False),
    ] = None,
) -> None:
    """Convert a DICOM study, co-register its sequences, and write them as one case; with a program for it, without the skull."""
    console = Console()
    stripper = None if skull_stripper is None else SkullStripper.parse({"command": skull_stripper}, where="--skull-stripper")
    with progress_bar(console, "reading headers") as update:
        series = read_series(folder, on_progress=update)
    with _steps(console) as update_steps:
        looks = look_at_images(series, target, on_progress=update_steps) if look else {}
    console.print(_series_table(series, looks))
    chosen = _choose(console, series, named=named or [], map_file=map_file)
    with _steps(console) as update_steps:
        path, record = import_study(series, chosen, target, looks=looks, spacing_mm=spacing, stripper=stripper, on_progress=update_steps)
    _print_record(console, path, record)


@contextmanager
def _steps(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar that names its steps."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda what, done, total: progress.update(task, description=what, completed=done, total=total)


def _series_table(series: Sequence[Series], looks: Mapping[int, tuple[Modality, ...]]) -> Table:
    table = Table(title="Series", title_justify="left", box=SIMPLE)
    for column in ("no.", "description", "files", "mm", "TR", "TE", "TI", "agent", "headers", "because", "image"):
        table.add_column(column, justify="right" if column in ("no.", "files", "TR", "TE", "TI") else "left", overflow="fold")
    for one in series:
        table.add_row(
            str(one.number),
            Text(one.description),
            str(len(one.files)),
            " x ".join(f"{mm:.2g}" for mm in one.spacing_mm),
            *(f"{ms:.0f}" if ms else "-" for ms in (one.repetition_ms, one.echo_ms, one.inversion_ms)),
            "yes" if one.agent else "-",
            Text(str(one.guess or "?"), style="green" if one.guess else "dim"),
            one.reason,
            _look(one, looks.get(one.number, ())),
        )
    return table


def _look(series: Series, fits: tuple[Modality, ...]) -> Text:
    """Return what the image says; red where it contradicts the headers."""
    contradicts = bool(fits) and series.guess is not None and series.guess not in fits
    return Text(" or ".join(fits) or "?", style="bold red" if contradicts else "green" if fits else "dim")


def _choose(console: Console, series: Sequence[Series], *, named: Sequence[str], map_file: Path | None) -> SeriesMap:
    """Return what a person says: by options, by a file, or at the terminal with the guess as a proposal."""
    if named and map_file is not None:
        raise ConfigError("the series are named twice", got="--map and --map-file", expected="one of them", remedy="leave one out")
    if map_file is not None:
        return SeriesMap.from_yaml(map_file)
    if named:
        return SeriesMap.parse(_parsed(named), where="--map")
    guessed = {m: [one.number for one in series if one.guess is m] for m in MODALITIES}
    if not sys.stdin.isatty():
        proposal = " ".join(f"--map {numbers[0]}={m}" for m, numbers in guessed.items() if numbers)
        raise ConfigError(
            "nobody is there to confirm the sequences",
            where="gmmas data import",
            got="no terminal and no --map",
            expected="which series is which sequence",
            remedy=f"look at the table above and name them{f'; the headers suggest {proposal}' if proposal else ''}",
        )
    console.print("Which series is which? Enter takes the proposal, 0 leaves a sequence out.")
    answers: dict[str, int | None] = {}
    for modality in MODALITIES:
        proposal_number = guessed[modality][0] if guessed[modality] else 0
        number = typer.prompt(f"  {modality}", default=proposal_number, type=int)
        answers[str(modality)] = number or None
    return SeriesMap.parse(answers, where="the answers")


def _parsed(named: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in named:
        number, _, name = text.partition("=")
        if not number.strip().isdecimal() or name.strip() not in set(Modality) or name.strip() in found:
            raise ConfigError(
                "a series is named wrongly",
                where="--map",
                got=text,
                expected=f"number=sequence, each sequence once: {', '.join(Modality)}",
                remedy="for example --map 5=t1ce",
            )
        found[name.strip()] = int(number)
    return found


def _print_record(console: Console, path: Path, record: ImportRecord) -> None:
    table = Table(box=SIMPLE)
    for column in ("sequence", "as acquired", "moved", "headers, image"):
        table.add_column(column)
    for modality, scan in record.scans.items():
        moved = "reference" if modality is record.reference else f"{scan.translation_mm:.1f} mm, {scan.rotation_degrees:.1f} degrees"
        agrees = scan.guessed == modality and (not scan.looks_like or modality in scan.looks_like)
        told = f"{scan.guessed}, {' or '.join(scan.looks_like) or 'not told'}"
        guess = Text(told, style="" if agrees else "bold yellow")
        table.add_row(modality, " x ".join(f"{mm:.2g}" for mm in scan.spacing_mm) + " mm", moved, guess)
    console.print(table)
    console.print(Text.assemble("The case is in ", (str(path), "bold green")), soft_wrap=True)
    if record.skull_stripped:
        console.print(f"{record.skull_stripper} took its skull off. Next: `gmmas site check`, whose report shows every brain.")
    else:
        console.print(
            "Its skull is still there: name --skull-stripper, or strip it (one mask for all sequences); then run `gmmas site check`."
        )
