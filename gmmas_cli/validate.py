"""`gmmas validate`: every hospital that is online measures published models on its own held-out patients."""

import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmmas_cli.model import Kind, published
from gmmas_cli.predict import StoreOption
from gmmas_cli.run import failure_of
from gmmas_cli.server_sites import DEFAULT_FOLDER, FolderOption
from gmmas_schema.errors import ConfigError
from gmmas_schema.events import Event, EventKind
from gmmas_schema.federation import TrackingConfig
from gmmas_schema.manifest import MANIFEST_FILE, MODEL_FILES
from gmmas_schema.validation import ValidatedModel, ValidationConfig, ValidationMatrix
from gmmas_schema.vocabulary import MARKER_NAMES, REGIONS, Split
from server.launching import check_server
from server.validation_folder import MATRIX, PICTURE, VALIDATION, ValidationFolder
from server.wording import format_metrics

if TYPE_CHECKING:
    from gmmas_schema.messages import Evaluation

app = typer.Typer()

METRICS: Final = {f"dice_{r}": f"Dice {r.upper()}" for r in REGIONS} | {f"auc_{task}": f"AUC {name}" for task, name in MARKER_NAMES.items()}
MOST_SITES: Final = 8
"""Hospitals that have a column of their own in the terminal's table."""
_SHOWN: Final = frozenset(
    {
        *(EventKind.SITE_JOINED, EventKind.SITE_REFUSED, EventKind.REPLY_ACCEPTED, EventKind.REPLY_REFUSED),
        *(EventKind.REPLY_MISSING, EventKind.MODEL_VALIDATED),
    }
)


@app.command()
def validate(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders of weights or of runs, or models:/<name>@best; LABEL=MODEL names one. The others are compared with the first.",
            show_default=False,
        ),
    ] = None,
    *,
    more: Annotated[list[str] | None, typer.Option("--models", help="The same.", show_default=False)] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make.", show_default=False)],
    server: FolderOption = DEFAULT_FOLDER,
    split: Annotated[Split, typer.Option(help="Which of their patients the hospitals measure on.")] = Split.TEST,
    sites: Annotated[int, typer.Option(help="Hospitals that must answer about every model.", min=1)] = 1,
    wait_s: Annotated[float, typer.Option("--wait", help="Longest wait for them to be online, seconds.", min=1)] = 60.0,
    deadline_s: Annotated[float, typer.Option("--deadline", help="Longest wait for the answers about one model, seconds.", min=1)] = 3600.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the validation in --out.")] = False,
    tracking_uri: StoreOption = "",
) -> None:
    """Ask every hospital that is online to measure models on its own held-out patients: one message a hospital and model.

    Writes matrix.json and matrix.png, and a run in MLflow: with --tracking-uri in the store of the models, where `gmmas model promote`
    looks for it.
    """
    console = Console()
    named = [*(more or []), *(models or [])]
    check_server(server)
    with console.status("reading the models"):
        folder = _open_folder(out, named) if resume else None
        if folder is None:
            entries = copy_models(named, out.resolve(), tracking_uri=tracking_uri)
            config = ValidationConfig(
                models=tuple(entries),
                split=split,
                sites=sites,
                join_deadline_s=wait_s,
                deadline_s=deadline_s,
                tracking=TrackingConfig(uri=tracking_uri),
            )
            folder = ValidationFolder.create(out.resolve(), config)
    matrix = _ask(console, folder, server)
    for table in matrix_tables(matrix):
        console.print(table)
    for name in (MATRIX, PICTURE):
        if (folder.path / name).exists():
            console.print(Text(f"  {folder.path / name}"), soft_wrap=True)


def copy_models(named: Sequence[str], folder: Path, *, tracking_uri: str = "") -> list[ValidatedModel]:
    """Copy models into the folder of a new validation and return what is known of each.

    Args:
        named: `MODEL` or `LABEL=MODEL`.
        folder: of the validation; it must not exist, or be empty.
        tracking_uri: MLflow store of names in it.

    Raises:
        ConfigError: no model is named, or the folder is in use.
        ModelError: a model cannot be read.
        TrustError: a model is not the one that was published.
    """
    from gmmas_model.weights import load_weights
    from gmmas_runtime.manifest import check_manifest
    from gmmas_workflows.model_source import model_folder

    if not named:
        raise ConfigError(
            "no model is named",
            where="gmmas validate",
            expected="the folder of a run or of weights, or models:/<name>@best",
            remedy="for example: gmmas validate champion=models:/gmmas@champion new=runs/second --out validation",
        )
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(
            "the output folder exists",
            where=folder,
            got="a validation" if (folder / VALIDATION).exists() else "something else",
            expected="no folder of this name, or an empty one",
            remedy="go on with a validation by --resume, or name another folder",
        )
    entries: list[ValidatedModel] = []
    for text in named:
        given, source = _parted(text)
        with model_folder(str(published(source, Kind.BEST)), tracking_uri=tracking_uri) as place:
            origin, weights = check_manifest(place), load_weights(place)
            label = given or _label_of(source, taken={entry.label for entry in entries})
            target = folder / "models" / label
            target.mkdir(parents=True)
            for name in (*MODEL_FILES, MANIFEST_FILE):
                if (place / name).exists():
                    shutil.copyfile(place / name, target / name)
        number = weights.metadata.get("round", "")
        entries.append(
            ValidatedModel(
                label=label,
                source=source,
                weights=weights.sha256,
                definition=weights.definition,
                run=origin.manifest.run if origin.manifest is not None else weights.metadata.get("run", ""),
                round=int(number) if number.isdigit() else 0,
            )
        )
    return entries


def matrix_tables(matrix: ValidationMatrix) -> list[Table]:
    """Return a table per metric that anybody measured: a row per model, a column per hospital, and below each value the difference."""
    sites = matrix.sites if len(matrix.sites) <= MOST_SITES else ()
    tables = []
    for metric, title in METRICS.items():
        if not any(metric in row.metrics for row in matrix.rows):
            continue
        table = Table(title=f"{title}, {matrix.split} patients", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("model", overflow="fold")
        for column in (*sites, "mean"):
            table.add_column(column, justify="right")
        for row in matrix.rows:
            cells = [_cell(row.sites.get(site), metric) for site in sites]
            mean = f"{row.metrics[metric]:.3f}" if metric in row.metrics else "–"
            table.add_row(row.model.label, *cells, mean)
        if len(matrix.rows) > 1:
            table.caption = f"below: difference to {matrix.rows[0].model.label} on the same patients, 95 % interval"
        tables.append(table)
    return tables


def _cell(evaluation: "Evaluation | None", metric: str) -> Text:
    """Return a value, and below it the difference on the same patients."""
    kind, _, name = metric.partition("_")
    figures = {} if evaluation is None else {str(key): own for key, own in (evaluation.dice if kind == "dice" else evaluation.auc).items()}
    found = figures.get(name)
    if evaluation is None or found is None or found.value is None:
        return Text("–")
    text = Text(f"{found.value:.3f}")
    paired = evaluation.paired.get(metric)
    if paired is not None and paired.value is not None and paired.low is not None and paired.high is not None:
        style = "green" if paired.low > 0 else "red" if paired.high < 0 else "dim"
        text.append(f"\n{paired.value:+.3f}\n[{paired.low:+.2f}, {paired.high:+.2f}]", style=style)
    return text


def _open_folder(out: Path, named: Sequence[str]) -> ValidationFolder:
    """Return the folder of a validation to go on with."""
    if named:
        raise ConfigError(
            "a validation is resumed with the models it began with",
            where="gmmas validate --resume",
            got=", ".join(named),
            expected="no model",
            remedy="leave the models out, or start a new validation in another folder",
        )
    return ValidationFolder.open(out.resolve())


def _ask(console: Console, folder: ValidationFolder, server: Path) -> ValidationMatrix:
    """Submit a validation, show what comes, and return its matrix."""
    from server.following import follow_run
    from server.submission import submit_run

    submit_run(server, folder.path)
    end = follow_run(folder.path, on_event=lambda event: _tell(console, event))
    if end.kind is EventKind.RUN_FAILED:
        raise failure_of(end, folder.path, server)
    matrix = folder.read_matrix()
    assert matrix is not None, "a finished validation has a matrix"
    return matrix


def _tell(console: Console, event: Event) -> None:
    """Print an event that says something to whoever waits."""
    if event.kind not in _SHOWN:
        return
    clock = (time.strftime("%H:%M:%S ", time.localtime(event.time)), "dim")
    if event.kind is EventKind.MODEL_VALIDATED:
        label, metrics = str(event.detail.get("label", "")), event.detail.get("metrics") or {}
        console.print(Text.assemble(clock, (label, "bold"), f"  {format_metrics(metrics)}"), soft_wrap=True)
    elif event.kind is EventKind.SITE_JOINED:
        console.print(Text.assemble(clock, f"{event.site} takes part"))
    elif event.kind is EventKind.REPLY_ACCEPTED:
        console.print(Text.assemble(clock, f"{event.site} has answered"))
    else:
        what = "took no part" if event.kind is EventKind.SITE_REFUSED else "gave no figures"
        console.print(Text.assemble(clock, (f"{event.site or 'a node'} {what}: {event.code}", "red")))


def _parted(text: str) -> tuple[str, str]:
    """Return label and source of `LABEL=MODEL`; a source may hold an equals sign only after a label."""
    label, equals, source = text.partition("=")
    return (label, source) if equals and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,60}", label) else ("", text)


def _label_of(source: str, *, taken: set[str]) -> str:
    """Return what a model is called: its alias or version, or its run's folder, with a number where that is taken."""
    if source.startswith(("models:/", "runs:/")):
        base = source.rpartition(":/")[2]
    else:
        path = Path(source).resolve()
        base = path.parent.parent.name if path.parent.name == "models" else path.name
    base = re.sub(r"[^A-Za-z0-9._@-]+", "-", base).strip("-._@")[:50] or "model"
    label, number = base, 2
    while label in taken:
        label, number = f"{base}-{number}", number + 1
    return label
