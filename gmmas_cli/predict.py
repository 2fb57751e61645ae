"""`gmmas predict`: one case in, its segmentation, probability maps, findings and a picture out."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gmmas_cli.progress import progress_bar
from gmmas_runtime.manifest import Origin, Standing
from gmmas_schema.findings import Findings
from gmmas_schema.inference import MONTE_CARLO_PASSES, OVERLAP, Flip, InferencePlan
from gmmas_schema.vocabulary import HEAD_NAMES, MARKER_NAMES, MARKERS, MODALITIES, POSITIVE, REGIONS, SUBTYPES, Modality, Task

if TYPE_CHECKING:
    from gmmas_model.weights import Weights

ModelOption = Annotated[
    str, typer.Option("--model", help="Folder of weights, or models:/<name>@best, models:/<name>/<version>.", show_default=False)
]
StoreOption = Annotated[str, typer.Option(help="MLflow store of a models:/ address, for instance sqlite:///<run>/mlflow.db.")]
AuthorityOption = Annotated[
    Path | None,
    typer.Option(
        help="authority.pem of a coordinator: take no model but one signed under it.", envvar="GMMAS_AUTHORITY", show_default=False
    ),
]
THREADS: Final = os.cpu_count() or 1
ThreadsOption = Annotated[int, typer.Option(help="CPU threads.", min=1)]
NOT_TRAINED: Final = "not trained"


def predict(
    case_folder: Annotated[Path, typer.Argument(help="Folder of one case, with any of its sequences.", show_default=False)],
    model: ModelOption,
    out: Annotated[Path, typer.Option(help="Folder to make.", show_default=False)],
    modalities: Annotated[str, typer.Option(help="Sequences to use, for instance flair,t2; by default all that the model reads.")] = "",
    flip: Annotated[
        Flip, typer.Option(help="Average with mirror images: lr the left-right one (twice the time), all of the eight (eight times).")
    ] = Flip.NONE,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Repeat with dropped features and write uncertainty.nii.gz; about three times the time.")
    ] = False,
    overlap: Annotated[
        float, typer.Option(help="Share of a window's side that the next one covers again, for models trained on patches.", min=0, max=0.9)
    ] = OVERLAP,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier prediction.")] = False,
    tracking_uri: StoreOption = "",
    authority: AuthorityOption = None,
    threads: ThreadsOption = THREADS,
) -> None:
    """Segment one case and tell its molecular markers. Research use only."""
    from gmmas_workflows.prediction_files import check_target

    wanted = parse_modalities(modalities) if modalities else None
    check_target(out, overwrite=force)
    console = Console()
    with console.status("loading the model"):
        import torch

        from gmmas_workflows.inference import predict_case
        from gmmas_workflows.model_source import open_model
        from gmmas_workflows.prediction_files import write_prediction

        torch.set_num_threads(threads)
        opened = open_model(model, tracking_uri=tracking_uri, authority=authority)
    weights = opened.weights
    tell_origin(console, opened.origin)
    tell_untrained(console, weights)
    plan = InferencePlan(flip=flip, overlap=overlap, passes=MONTE_CARLO_PASSES if uncertainty else 0)
    with progress_bar(console, "windows") as update:
        prediction = predict_case(case_folder, weights, modalities=wanted, plan=plan, on_progress=update)
    with console.status("writing"):
        write_prediction(prediction, out, overwrite=force)
    console.print(findings_table(prediction.findings))
    for task, reason in prediction.findings.abstained.items():
        console.print(f"{MARKER_NAMES[task]} is left open: {reason}", highlight=False)
    console.print(prediction.findings.notice, style="yellow")
    console.print(f"written to {out}", soft_wrap=True)


def tell_origin(console: Console, origin: Origin) -> None:
    """Say who vouches for a model, and that nobody does where nobody does."""
    if origin.is_signed:
        told = f"the model is {origin.standing}" + (f" ({origin.signer})" if origin.signer else "")
        hint = "" if origin.standing is Standing.VOUCHED else "; --authority authority.pem checks by whom"
        console.print(Text(told + hint), soft_wrap=True)
    else:
        console.print(f"nobody vouches for this model: {origin.standing}", style="yellow")


def tell_untrained(console: Console, weights: "Weights") -> None:
    """Say which sequences a model does not read and which answers it cannot give, for nobody trained it on them."""
    if unread := [m for m in MODALITIES if m not in weights.readable]:
        console.print(f"the model was never trained on {', '.join(unread)}, and does not read it", style="yellow", soft_wrap=True)
    if heads := [HEAD_NAMES[head] for head in weights.untrained]:
        console.print(f"the model was never trained on {', '.join(heads)}, and does not tell it", style="yellow", soft_wrap=True)


def parse_modalities(text: str) -> tuple[Modality, ...]:
    """Return the modalities of a list such as `flair,t2`, in the order of MODALITIES.

    Raises:
        typer.BadParameter: a name is none of MODALITIES.
    """
    names = [name.strip().lower() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in MODALITIES]
    if unknown or not names:
        raise typer.BadParameter(f"{', '.join(unknown) or 'nothing'} is none of {', '.join(MODALITIES)}", param_hint="--modalities")
    return tuple(m for m in MODALITIES if m in names)


def findings_table(findings: Findings) -> Table:
    """Return what was found, one quantity a row."""
    used, missing = (", ".join(names) or "none" for names in (findings.modalities_used, findings.modalities_missing))
    table = Table(title=findings.case, title_justify="left", box=SIMPLE, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for region, name in zip(REGIONS, ("whole tumour", "tumour core", "enhancing tumour"), strict=True):
        volume_ml = findings.volume_ml.get(region)
        table.add_row(f"{name} ({region.upper()})", NOT_TRAINED if volume_ml is None else f"{volume_ml:.1f} ml")
    table.add_section()
    for task in (task for task in MARKERS if task in findings.probability or task in findings.untrained):
        table.add_row(f"P({POSITIVE[task]})", _probability_text(findings, task))
    for subtype in SUBTYPES:
        table.add_row(f"P({subtype})", f"{findings.subtype[subtype]:.2f}" if subtype in findings.subtype else NOT_TRAINED)
    if findings.uncertainty is not None:
        table.add_section()
        for region, std in findings.uncertainty.region_std.items():
            table.add_row(f"mean spread in {region.upper()}", f"{std:.2f}")
    table.add_section()
    table.add_row("calibrated", "yes" if findings.calibrated else "no")
    table.add_row("sequences used", used)
    table.add_row("sequences missing", missing)
    if findings.modalities_unread:
        table.add_row("of these there, but not read", ", ".join(findings.modalities_unread))
    table.add_row("weights", findings.weights_sha256[:12])
    table.add_row("seconds", f"{findings.seconds:.1f}")
    return table


def _probability_text(findings: Findings, task: Task) -> str:
    """Return a marker's probability with its spread, and whether it is left open."""
    if task not in findings.probability:
        return NOT_TRAINED
    spread = "" if findings.uncertainty is None else f" ± {findings.uncertainty.probability_std[task]:.2f}"
    left_open = " left open" if task in findings.abstained else ""
    return f"{findings.probability[task]:.2f}{spread}{left_open}"
