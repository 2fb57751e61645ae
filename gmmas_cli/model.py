"""`gmmas model`: what a published model is, who vouches for it, how it compares with others, and which one is the champion."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown

from gmmas_cli.predict import AuthorityOption, StoreOption
from gmmas_runtime.manifest import Standing, check_manifest
from gmmas_schema.errors import ConfigError
from gmmas_schema.manifest import CARD_FILE
from gmmas_schema.model_card import ModelCard

app = typer.Typer(help="Model cards, signatures, comparison and promotion of published models.", no_args_is_help=True)

ModelArgument = Annotated[
    str,
    typer.Argument(help="Folder of weights or of a run, or models:/<name>@best, models:/<name>/<version>.", show_default=False),
]


class CardForm(StrEnum):
    """How a card is shown."""

    SCREEN = "screen"
    MARKDOWN = "markdown"
    JSON = "json"


class Kind(StrEnum):
    """Which model of a run."""

    BEST = "best"
    LAST = "last"


KindOption = Annotated[Kind, typer.Option(help="Which model, where MODEL is the folder of a run.")]


@app.command()
def verify(
    model: ModelArgument, *, authority: AuthorityOption = None, kind: KindOption = Kind.BEST, tracking_uri: StoreOption = ""
) -> None:
    """Check a model's files against its manifest, and the manifest's signature. Exit code 1 unless somebody signed it.

    Without --authority a signature says that nothing was changed since, not who signed.
    """
    console = Console()
    with console.status("checking"):
        from gmmas_workflows.model_source import model_folder

        with model_folder(str(published(model, kind)), tracking_uri=tracking_uri) as folder:
            origin = check_manifest(folder, authority=authority)
    manifest = origin.manifest
    if manifest is not None:
        for name, digest in manifest.files.items():
            console.print(f"  {digest[:16]}  {name}", highlight=False)
        made = f"round {manifest.round} of {manifest.run}" if manifest.run else "not a run's"
        console.print(
            f"  {made}; model definition {manifest.model_digest[:12]}; published by gmmas-fed {manifest.software}", highlight=False
        )
    if origin.standing is Standing.VOUCHED:
        console.print(f"The model is as it was published, {origin.standing} ({origin.signer}).", style="green", soft_wrap=True)
    elif origin.standing is Standing.SIGNED:
        console.print(
            f"The model is as it was signed, by a certificate called '{origin.signer}'. Whose that is, --authority authority.pem tells.",
            style="green",
            soft_wrap=True,
        )
    else:
        console.print(f"Nobody vouches for this model: {origin.standing}.", style="yellow")
        raise typer.Exit(1)


@app.command()
def card(
    model: ModelArgument,
    *,
    kind: KindOption = Kind.BEST,
    form: Annotated[CardForm, typer.Option("--format", help="How it is shown.")] = CardForm.SCREEN,
    rewrite: Annotated[
        bool, typer.Option("--rewrite", help="MODEL is the folder of a finished run: make its card anew and sign the model again.")
    ] = False,
    tracking_uri: StoreOption = "",
) -> None:
    """Show the card of a model: intended use, training data, accuracy, calibration, privacy, cost, limits.

    A run's model that has none yet, from before there were cards, gets one.
    """
    console = Console()
    with console.status("reading the card"):
        found = _read_card(model, kind, tracking_uri=tracking_uri, rewrite=rewrite)
        from server.card_text import card_markdown
    if form is CardForm.JSON:
        typer.echo(found.model_dump_json(indent=1))
    elif form is CardForm.MARKDOWN:
        typer.echo(card_markdown(found), nl=False)
    else:
        console.print(Markdown(card_markdown(found)))


def published(model: str, kind: Kind) -> str | Path:
    """Return the folder of a run's model where `model` is the folder of a run, else `model` as it is."""
    return Path(model) / "models" / kind if is_run(Path(model)) else model


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a federated run."""
    return (folder / "federation.json").is_file() and (folder / "run.json").is_file()


def _read_card(model: str, kind: Kind, *, tracking_uri: str, rewrite: bool) -> ModelCard:
    from gmmas_workflows.model_source import model_folder
    from server.checkpoint import RunFolder
    from server.model_card import read_card
    from server.publishing import publish_card

    place = Path(published(model, kind))
    run_dir = next((path for path in (Path(model), place.parent.parent) if is_run(path)), None)
    if run_dir is not None and (rewrite or not (place / CARD_FILE).exists()):
        return publish_card(RunFolder.open(run_dir), "last" if place.name == "last" else "best")
    if rewrite:
        raise ConfigError(
            "a card is made from the folder of its run",
            where=model,
            got="a model without its run",
            expected="the folder that `gmmas run --out` named",
            remedy="name that folder",
        )
    with model_folder(str(published(model, kind)), tracking_uri=tracking_uri) as folder:
        check_manifest(folder)
        found = read_card(folder)
    if found is None:
        raise ConfigError(
            "this model has no card",
            where=model,
            got=f"no {CARD_FILE}",
            expected="a model that a federated run published",
            remedy="make it where the run's folder is: gmmas model card RUN",
        )
    return found
