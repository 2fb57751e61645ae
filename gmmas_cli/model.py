"""`gmmas model`: what a published model is, who vouches for it, how it compares with others, and which one is the champion."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.text import Text

from gmmas_cli.predict import AuthorityOption, StoreOption
from gmmas_runtime.manifest import Standing, check_manifest
from gmmas_schema.errors import ConfigError, GmmasError
from gmmas_schema.manifest import CARD_FILE
from gmmas_schema.model_card import ModelCard
from gmmas_schema.printable import printable
from gmmas_schema.promotion import GateRules

logger = logging.getLogger(__name__)

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


RULES: Final = GateRules()
EvidenceOption = Annotated[
    Path | None,
    typer.Option(help="Folder of a validation, or its matrix.json; by default the newest in the store.", show_default=False),
]
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
        told = f"{made}; model definition {manifest.model_digest[:12]}; published by gmmas-fed {manifest.software}"
        # Anybody may have written the manifest: its words stay on one line, and are no markup.
        console.print(Text("  " + printable(told)))
    if origin.standing is Standing.VOUCHED:
        console.print(Text(f"The model is as it was published, {origin.standing} ({origin.signer}).", style="green"), soft_wrap=True)
    elif origin.standing is Standing.SIGNED:
        told = f"The model is as it was signed, by a certificate called '{origin.signer}'. Whose that is, --authority authority.pem tells."
        console.print(Text(told, style="green"), soft_wrap=True)
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


@app.command("list")
def list_command(
    name: Annotated[str, typer.Argument(help="A registered model; by default all.", show_default=False)] = "",
    *,
    tracking_uri: StoreOption = "",
) -> None:
    """List the versions in the registry, with the aliases that name them. NAME may be the folder of a run: its store is listed then."""
    console = Console()
    with console.status("reading the registry"):
        from gmmas_cli.model_report import versions_table
        from server.registry import Registry

        is_folder = Path(name).is_dir()
        registry = Registry.open(name if is_folder else "", tracking_uri=tracking_uri)
        found = registry.versions("" if is_folder else name)
    if not found:
        raise ConfigError(
            "the registry has no such model",
            where=registry.uri.rpartition("@")[2],
            got=name or "no model at all",
            expected="a model that a run has registered",
            remedy="name another store by --tracking-uri",
        )
    console.print(versions_table(found))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="As of the other commands; the other one is compared with it.", show_default=False)],
    second: ModelArgument,
    *,
    evidence: EvidenceOption = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="PNG file to draw.", show_default=False)] = None,
    tracking_uri: StoreOption = "",
) -> None:
    """Compare two registered versions at every hospital: by the newest validation that measured both, else by their own runs' tests."""
    console = Console()
    with console.status("reading the registry"):
        from gmmas_cli.model_report import comparison_links, draw_comparison, find_comparison
        from gmmas_cli.validate import matrix_tables
        from server.registry import Registry

        registry = Registry.open(first, tracking_uri=tracking_uri)
        versions = registry.resolve(first), registry.resolve(second)
        comparison = find_comparison(registry, versions, evidence=evidence)
    for table in matrix_tables(comparison.matrix):
        console.print(table)
    console.print(comparison.told, style="" if comparison.validated else "yellow", highlight=False, soft_wrap=True)
    if picture is not None:
        draw_comparison(comparison.matrix, picture)
        console.print(f"  picture    {picture}", soft_wrap=True)
    for line in comparison_links(registry, versions):
        console.print(line, highlight=False, soft_wrap=True)


@app.command()
def promote(
    model: ModelArgument,
    alias: Annotated[str, typer.Argument(help="Alias to give, for instance champion.", show_default=False)],
    *,
    evidence: EvidenceOption = None,
    override: Annotated[
        str, typer.Option(help="Give the alias although the gate does not hold, for this reason, which stays in the registry.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what the gate finds and change nothing.")] = False,
    dice: Annotated[float, typer.Option(help="How much worse a Dice may be at any hospital.", min=0, max=1)] = RULES.dice,
    auc: Annotated[float, typer.Option(help="How much worse an AUC may be at any hospital.", min=0, max=1)] = RULES.auc,
    auc_patients: Annotated[int, typer.Option(help="Patients at a hospital from which on its AUC is judged.", min=2)] = RULES.auc_patients,
    ece: Annotated[float, typer.Option(help="How much worse the calibration error of a region may be.", min=0, max=1)] = RULES.ece,
    nll: Annotated[float, typer.Option(help="How much worse the log-loss of a marker may be, nats.", min=0)] = RULES.nll,
    authority: AuthorityOption = None,
    tracking_uri: StoreOption = "",
) -> None:
    """Give a version an alias, if no hospital loses by it. Exit code 1 if the gate does not hold.

    Against the version that has the alias now, in a validation that measured both: at no hospital a metric worse than its margin, no task
    gone, calibration not worse than its margin; and the version is signed. The first holder of an alias need only be signed.
    """
    console = Console()
    rules = GateRules(dice=dice, auc=auc, auc_patients=auc_patients, ece=ece, nll=nll)
    with console.status("judging"):
        from gmmas_cli.model_report import gate_table, read_evidence
        from server import promotion
        from server.registry import Registry

        registry = Registry.open(model, tracking_uri=tracking_uri)
        candidate = registry.resolve(model)
        matrix = None if evidence is None else read_evidence(evidence)
        assessment = promotion.assess(registry, candidate, alias, rules=rules, authority=authority, evidence=matrix)
    console.print(gate_table(assessment, alias))
    if dry_run:
        console.print("The gate holds." if assessment.holds else "The gate does not hold.", style="green" if assessment.holds else "red")
        raise typer.Exit(0 if assessment.holds else 1)
    record = promotion.promote(registry, assessment, alias, rules=rules, override=override)
    replaced = f" in the place of version {record.replaced}" if record.replaced not in ("", record.version) else ""
    told = f"models:/{record.model}@{alias} is version {record.version} now{replaced}."
    console.print(told, style="green", highlight=False, soft_wrap=True)
    if record.override:
        console.print(Text(f"The gate did not hold; the reason is on record: {record.override}", style="yellow"), soft_wrap=True)


def published(model: str, kind: Kind) -> str | Path:
    """Return the folder of a run's model where `model` is the folder of a run, else `model` as it is."""
    return Path(model) / "models" / kind if is_run(Path(model)) else model


def is_run(folder: Path) -> bool:
    """Return whether a folder is that of a federated run."""
    return (folder / "federation.json").is_file() and (folder / "run.json").is_file()


def _read_card(model: str, kind: Kind, *, tracking_uri: str, rewrite: bool) -> ModelCard:
    from gmmas_workflows.model_source import model_folder
    from server.model_card import read_card

    place = Path(published(model, kind))
    run_dir = next((path for path in (Path(model), place.parent.parent) if is_run(path)), None)
    if run_dir is not None and (rewrite or not (place / CARD_FILE).exists()):
        return _renew_card(run_dir, place, tracking_uri=tracking_uri)
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


def _renew_card(run_dir: Path, place: Path, *, tracking_uri: str) -> ModelCard:
    """Make the card of a run's model, sign the model again, and bring both to the version in the registry, as far as there is one."""
    from server.card_text import card_summary
    from server.checkpoint import RunFolder
    from server.publishing import publish_card
    from server.registry import Registry

    made = publish_card(RunFolder.open(run_dir), "last" if place.name == "last" else "best")
    try:
        registry = Registry.open(str(run_dir), tracking_uri=tracking_uri)
        version = registry.resolve(str(place))
    except GmmasError as error:
        logger.info("the card is not in a registry: %s", error)
        return made
    registry.attach_card(version, place, description=card_summary(made))
    return made
