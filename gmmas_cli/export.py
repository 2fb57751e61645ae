"""`gmmas export`: a trained model for other programs, as weights, as an ONNX file or as a MONAI bundle."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console

from gmmas_cli.predict import THREADS, AuthorityOption, StoreOption, ThreadsOption, tell_origin, tell_untrained
from gmmas_cli.progress import progress_bar
from gmmas_runtime.results import check_result_folder, result_folder

if TYPE_CHECKING:
    from gmmas_workflows.model_source import OpenedModel


class Format(StrEnum):
    """What a model can be exported as."""

    BUNDLE = "bundle"
    ONNX = "onnx"
    WEIGHTS = "weights"


_KINDS: Final = MappingProxyType(
    {
        Format.BUNDLE: ("a MONAI bundle", "configs/metadata.json"),
        Format.ONNX: ("an ONNX export", "onnx.json"),
        Format.WEIGHTS: ("a folder of weights", "model.json"),
    }
)
"""What a result is called, and a file that every result of that kind has."""


def export(
    model: Annotated[str, typer.Argument(help="Folder of weights, or models:/<name>@best, models:/<name>/<version>.", show_default=False)],
    out: Annotated[Path, typer.Argument(help="Folder to make; a bundle takes its name.", show_default=False)],
    form: Annotated[
        Format,
        typer.Option(
            "--format",
            help="bundle: MONAI bundle. onnx: the network for ONNX Runtime, checked against PyTorch. weights: safetensors and JSON.",
            show_default=False,
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export of the same format.")] = False,
    tracking_uri: StoreOption = "",
    authority: AuthorityOption = None,
    threads: ThreadsOption = THREADS,
) -> None:
    """Write a model for other programs. Research use only."""
    from gmmas_workflows.export.extra import BUNDLE_PACKAGES, ONNX_PACKAGES, require_packages

    kind, marker = _KINDS[form]
    needed = {Format.BUNDLE: BUNDLE_PACKAGES, Format.ONNX: ONNX_PACKAGES, Format.WEIGHTS: ()}[form]
    require_packages(needed, purpose=f"gmmas export --format {form}")
    check_result_folder(out, kind=kind, marker=marker, overwrite=force)
    console = Console()
    with console.status("loading the model"):
        import torch

        from gmmas_workflows.model_source import open_model

        torch.set_num_threads(threads)
        opened = open_model(model, tracking_uri=tracking_uri, authority=authority)
    tell_origin(console, opened.origin)
    tell_untrained(console, opened.weights)
    with result_folder(out) as folder:
        told = _WRITERS[form](folder, opened, out.absolute().name, console)
    console.print(told, highlight=False, soft_wrap=True)
    if opened.weights.calibration is None:
        console.print("the model is not calibrated: its probabilities are the network's own", style="yellow")
    console.print("Research use only. Not a medical device.", style="yellow")
    console.print(f"written to {out}", soft_wrap=True)


def _write_bundle(folder: Path, model: "OpenedModel", name: str, console: Console) -> str:
    with console.status("writing the bundle; MONAI verifies its metadata"):
        from gmmas_workflows.export.bundle import write_bundle

        write_bundle(folder, model.weights, name=name, documents=model.documents)
    return f"MONAI bundle {name}, metadata verified by MONAI; docs/README.md in it says how to run it"


def _write_onnx(folder: Path, model: "OpenedModel", _: str, console: Console) -> str:
    from gmmas_workflows.export.onnx_graph import write_onnx

    with progress_bar(console, "translating, comparing with PyTorch") as update:
        check = write_onnx(folder, model.weights, on_progress=update).check
    return (
        f"ONNX Runtime answers as PyTorch does: {check.subsets} subsets of sequences, logits within {check.largest:.1g}"
        f" (accepted: {check.tolerance:g})"
    )


def _write_weights(folder: Path, model: "OpenedModel", _: str, console: Console) -> str:
    from gmmas_workflows.export.weights import write_weights

    with console.status("writing the weights"):
        write_weights(folder, model.weights, documents=model.documents)
    return f"weights {model.weights.sha256[:12]}"


_WRITERS: Final[MappingProxyType[Format, Callable[[Path, "OpenedModel", str, Console], str]]] = MappingProxyType(
    {Format.BUNDLE: _write_bundle, Format.ONNX: _write_onnx, Format.WEIGHTS: _write_weights}
)
