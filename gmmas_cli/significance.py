"""`gmmas significance`: what each sequence contributes to a model's accuracy on a labelled cohort, by Shapley values over all subsets."""

from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.table import Table

from gmmas_cli.accuracy_report import COLUMNS, interval_text
from gmmas_cli.predict import THREADS, AuthorityOption, ModelOption, StoreOption, ThreadsOption, tell_origin, tell_untrained
from gmmas_cli.progress import progress_bar
from gmmas_data.layouts import read_cohort
from gmmas_runtime.files import write_atomic
from gmmas_schema.errors import ConfigError, DataError
from gmmas_schema.messages import Interval
from gmmas_schema.vocabulary import Modality

if TYPE_CHECKING:
    from gmmas_model.weights import Weights
    from gmmas_workflows.significance import Significance
    from gmmas_workflows.subset_scores import SubsetScores

RESULT_FILE: Final = "significance.json"
PICTURE_FILE: Final = "significance.png"
SCORES_FOLDER: Final = "scores"
_SEED: Final = 0
_TITLES: Final = {f"{kind}_{name}": title for title, (kind, name) in COLUMNS.items()}


def significance(
    cohort: Annotated[Path, typer.Argument(help="Folder of the cohort.", show_default=False)],
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="Folder to make, or of an interrupted measurement to go on with.", show_default=False)],
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV: patient_id, idh, codeletion; also grade, mgmt.", show_default=False),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out cases that fail the quality gate.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier result; scores that still hold are used again.")] = False,
    tracking_uri: StoreOption = "",
    authority: AuthorityOption = None,
    threads: ThreadsOption = THREADS,
) -> None:
    """Tell what each sequence contributes to a model's accuracy. Every case is a test case: use none that the model was trained on."""
    check_folder(out, overwrite=force)
    console = Console()
    cases = read_cohort(cohort, labels=labels)
    with console.status("loading the model"):
        import torch

        from gmmas_workflows.model_source import open_model
        from gmmas_workflows.significance_figure import significance_picture
        from gmmas_workflows.subset_scores import measure_subsets

        torch.set_num_threads(threads)
        opened = open_model(model, tracking_uri=tracking_uri, authority=authority)
    weights = opened.weights
    tell_origin(console, opened.origin)
    tell_untrained(console, weights)
    with progress_bar(console, "predictions") as update:
        scores = measure_subsets(cases, weights, out / SCORES_FOLDER, skip_bad=skip_bad, on_progress=update)
    for case_id in scores.bad:
        console.print(f"left out {case_id}: it fails the quality gate (`gmmas data check` says why)", style="yellow")
    with console.status("resampling patients"):
        result = summarise_significance(scores, weights)
    significance_picture(result, out / PICTURE_FILE)
    write_atomic(out / RESULT_FILE, result.model_dump_json(indent=1).encode() + b"\n")
    console.print(shapley_table(result))
    console.print(gate_table(result))
    if scores.left_out:
        console.print(f"{len(scores.left_out)} of {len(cases)} cases lack a sequence that the model reads and do not count", style="yellow")
    console.print(f"written to {out}", soft_wrap=True)


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Refuse an output folder with a result that must not be replaced, or with something else in it.

    Raises:
        ConfigError: the folder cannot be used.
    """
    if (folder / RESULT_FILE).exists() and not overwrite:
        raise ConfigError(
            "the output folder holds an earlier result",
            where=folder,
            got=RESULT_FILE,
            expected="no such file",
            remedy="replace it with --force",
        )
    strangers = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else [folder.name] if folder.exists() else []
    if strangers and not {RESULT_FILE, SCORES_FOLDER} & set(strangers):
        raise ConfigError(
            "the output folder exists",
            where=folder,
            got="something that is not a measurement of this command",
            expected="no folder of this name, or an empty one",
            remedy="name another folder",
        )


def summarise_significance(scores: "SubsetScores", weights: "Weights") -> "Significance":
    """Return the result of a cohort's scores.

    Raises:
        DataError: nothing is labelled.
    """
    from gmmas_workflows.significance import Significance, attribute_figures, summarise_gates

    measured = next(iter(scores.scores.values()))
    figures = attribute_figures(scores.scores, seed=_SEED)
    if not figures:
        raise DataError(
            "the cohort has no label to measure a model with",
            got=f"{len(measured)} cases without segmentation, and markers of one class only or unknown",
            expected="segmentations, or patients of both classes of a marker",
            remedy="pass the table of markers with --labels",
        )
    spacing_mm = weights.definition.grid.spacing_mm
    return Significance(
        software=f"gmmas-fed {version('gmmas-fed')}",
        model_digest=weights.definition.digest(),
        weights_sha256=weights.sha256,
        modalities=max(scores.scores, key=len),
        cases=len(measured),
        left_out=len(scores.left_out),
        bad=len(scores.bad),
        seed=_SEED,
        figures=figures,
        gates=summarise_gates(scores.gates, [score.patient_id for score in measured], grid_spacing_mm=spacing_mm, seed=_SEED),
    )


def shapley_table(result: "Significance") -> Table:
    """Return a table with one row per figure: its value for nothing and for everything, and each sequence's share of the step."""
    from gmmas_workflows.figures import MODALITY_NAMES
    from gmmas_workflows.significance import NOTHING, subset_name

    table = Table(
        title=f"Shapley value of each sequence, {result.cases} cases",
        caption="95 % bootstrap intervals over patients; a row's values sum to the step from nothing shown to all shown",
    )
    for column in ("", "n", "nothing", "all", *(MODALITY_NAMES[m] for m in result.modalities)):
        table.add_column(column, justify="right" if column else "left")
    for name, figure in result.figures.items():
        nothing, everything = figure.value[NOTHING], figure.value[subset_name(result.modalities)]
        cells = [interval_text(figure.shapley[m]) for m in result.modalities]
        table.add_row(_TITLES.get(name, name), str(nothing.n), _value(nothing), _value(everything), *cells)
    return table


def gate_table(result: "Significance") -> Table:
    """Return a table of the mean fusion weights: a row per level, finest first."""
    from gmmas_workflows.figures import MODALITY_NAMES

    table = Table(title="Mean fusion weight, in the tumour / in the brain")
    for column in ("level", *(MODALITY_NAMES[m] for m in result.modalities)):
        table.add_column(column, justify="right")
    for level in result.gates:
        table.add_row(f"{level.spacing_mm:g} mm", *(f"{_share(level.tumour, m)} / {_share(level.brain, m)}" for m in result.modalities))
    return table


def _value(interval: Interval) -> str:
    return "–" if interval.value is None else f"{interval.value:.2f}"


def _share(weights: Mapping[Modality, Interval], modality: Modality) -> str:
    interval = weights.get(modality)
    return "–" if interval is None or interval.value is None else f"{interval.value:.0%}"
