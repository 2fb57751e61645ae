"""`gmmas train`: training without a federation, on one site's cases or on several cohorts pooled; it can be interrupted and resumed.

What is trained comes from the cohorts named on the command line, from a YAML file (site_configs/train-example.yaml), or, to resume,
from the run's own folder; options change single values of it.
"""

import re
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.text import Text

from gmmas_cli.train_report import show_result, write_curves
from gmmas_cli.train_view import LiveTraining
from gmmas_schema.errors import ConfigError
from gmmas_schema.site import SiteConfig
from gmmas_schema.standalone import TrainConfig
from gmmas_workflows.train_folder import CONFIGURATION, TrainFolder

if TYPE_CHECKING:
    from gmmas_workflows.cohorts import Cohort
    from gmmas_workflows.train_folder import TrainResult

INTERRUPTED: Final = 130
LABELS: Final = "labels.csv"
_LONGEST_NAME: Final = 31


class Network(StrEnum):
    """Sizes of the network (gmmas_schema.model.SIZES)."""

    SMALL = "small"
    PAPER = "paper"


class Precision(StrEnum):
    """Numbers in convolutions and matrix products."""

    AUTO = "auto"
    BF16 = "bf16"
    FP32 = "fp32"


class Device(StrEnum):
    """What to compute on."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


def train(
    cohorts: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders of cohorts (molecular labels from labels.csv in them), or site.yaml files.", show_default=False),
    ] = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the training.", show_default=False)],
    config: Annotated[Path | None, typer.Option("--config", "-c", help="train.yaml.", show_default=False)] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in --out after its last finished round.")] = False,
    rounds: Annotated[int | None, typer.Option(help="Blocks of steps, with a checkpoint after each.", min=1, show_default=False)] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps a round.", min=1, show_default=False)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Cases a step.", min=1, show_default=False)] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak of AdamW.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed and same cases, same weights.", min=0, show_default=False)] = None,
    network: Annotated[Network | None, typer.Option(help="small: for a CPU; paper: for a GPU.", show_default=False)] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after so many validations without a rise; 0: never.", min=0, show_default=False)
    ] = None,
    validate_every: Annotated[int | None, typer.Option(help="Rounds between validations.", min=1, show_default=False)] = None,
    device: Annotated[Device | None, typer.Option(help="auto: CUDA where there is one, else CPU.", show_default=False)] = None,
    precision: Annotated[Precision | None, typer.Option(help="auto: bf16 where the device has it.", show_default=False)] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; by default all.", min=1, show_default=False)] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out cases that fail the quality gate.")] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of preprocessed cases, to share between trainings; by default OUT/cache.", show_default=False),
    ] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store; by default OUT/mlflow.db.", show_default=False)] = None,
    no_mlflow: Annotated[bool, typer.Option("--no-mlflow", help="Write nothing to MLflow.")] = False,
) -> None:
    """Train without a federation: one cohort, or several pooled in one place.

    COHORTS are folders of cases, with molecular labels in their labels.csv if there is one, or site.yaml files.

    Validation cases choose the best model and stop training early; test cases are looked at once, at the end.

    Ctrl-C stops; the same command with --resume goes on after the last finished round, to the same weights.
    """
    console = Console()
    plain = base_config(cohorts or [], config, out, resume=resume)
    single = {"rounds": rounds, "seed": seed, "validate_every": validate_every, "device": device, "threads": threads}
    plan = {"local_steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "precision": precision}
    changed = plain | _given(single) | {"training": plain.get("training", {}) | _given(plan)}
    changed |= _nested(plain, network=network, patience=patience, tracking_uri=tracking_uri, no_mlflow=no_mlflow)
    if skip_bad:
        changed["cohorts"] = [cohort | {"skip_bad_cases": True} for cohort in changed["cohorts"]]
    resolved = TrainConfig.parse(changed, where="the options of gmmas train" if config is None else config)
    folder = TrainFolder.prepare(out.resolve(), resolved, resume=resume)
    show_result(console, folder, run_to_end(console, folder, cache))


def base_config(cohorts: Sequence[Path], config: Path | None, out: Path, *, resume: bool) -> dict[str, Any]:
    """Return what options change, as plain values: the file, the run's own configuration, or the defaults; with the cohorts named.

    Raises:
        ConfigError: nothing says what to train on, or a file cannot be read.
    """
    if config is not None:
        plain = TrainConfig.from_yaml(config).model_dump(mode="json")
    elif not cohorts and (resume or (out / CONFIGURATION).exists()):
        plain = TrainFolder.open(out.resolve()).config.model_dump(mode="json")
    elif cohorts:
        plain = {}
    else:
        raise ConfigError(
            "a training needs cases",
            where="gmmas train",
            got="neither a cohort nor a configuration",
            expected="folders of cohorts, or --config train.yaml",
            remedy="name them (site_configs/train-example.yaml is commented), or go on with a training by --out and --resume",
        )
    return plain | {"cohorts": name_cohorts(cohorts)} if cohorts else plain


def name_cohorts(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the configuration of every cohort: a folder, called by its own name, or the data of a site.yaml, called as the site."""
    paths = [path.resolve() for path in paths]
    names = [_slug(path.name) for path in paths]
    found: list[dict[str, Any]] = []
    for path, name in zip(paths, names, strict=True):
        if path.is_file():
            site = SiteConfig.from_yaml(path)
            found.append(site.data.model_dump(mode="json") | {"name": site.site})
            continue
        # Two folders `train` are told apart by what they lie in.
        unique = name if names.count(name) == 1 else _slug(f"{path.parent.name}-{path.name}")
        labels = path / LABELS
        found.append({"name": unique, "root": str(path)} | ({"labels": str(labels)} if labels.is_file() else {}))
    return found


def run_to_end(console: Console, folder: TrainFolder, cache: Path | None) -> "TrainResult":
    """Train what is left; Ctrl-C ends the program with the way on.

    Raises:
        typer.Exit: after an interruption, code 130.
        GmmasError: as gmmas_workflows.train_run.run_training.
    """
    with console.status("loading"):
        from gmmas_data.cache import SampleCache
        from gmmas_workflows.cohorts import prepare_cohorts
        from gmmas_workflows.train_folder import TrainTracker
        from gmmas_workflows.train_run import run_training
    config = folder.config
    tracker = None if config.tracking is None else TrainTracker(folder)
    try:
        with LiveTraining(console, config) as live:

            def load() -> "tuple[Cohort, ...]":
                samples = SampleCache(cache or folder.path / "cache", config.model.grid)
                found = prepare_cohorts(config.cohorts, samples, processes=config.threads, on_progress=live.prepare)
                for cohort in found:
                    for case_id in cohort.left_out:
                        console.print(f"left out {case_id} of {cohort.name}: it fails the quality gate (`gmmas data check` says why)")
                return found

            result = run_training(folder, load, tracker=tracker, watch=live)
    except KeyboardInterrupt:
        write_curves(folder)
        finished = max(folder.finished_rounds(), default=0)
        console.print(f"Interrupted; {finished} of {config.rounds} rounds are safe. Go on with:", style="yellow")
        again = f"gmmas train --out {folder.path} --resume" + (f" --cache {cache}" if cache else "")
        console.print(Text(f"  {again}"), soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None
    write_curves(folder)
    return result


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _nested(
    plain: Mapping[str, Any], *, network: Network | None, patience: int | None, tracking_uri: str | None, no_mlflow: bool
) -> dict[str, Any]:
    """Return the sections that options change; what a section says beside the option stays."""
    changed: dict[str, Any] = {}
    if network is not None:
        model = plain.get("model", {})
        tasks = {name: value for name, value in model.get("network", {}).items() if name == "tasks"}
        changed["model"] = model | {"network": tasks | {"size": network.value}}
    if patience is not None:
        changed["early_stop"] = (plain.get("early_stop") or {}) | {"patience": patience} if patience else None
    if tracking_uri is not None:
        changed["tracking"] = (plain.get("tracking") or {}) | {"uri": tracking_uri}
    return changed | ({"tracking": None} if no_mlflow else {})


def _slug(name: str) -> str:
    """Return a folder's name as a cohort's: lower-case letters, digits, hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_LONGEST_NAME].rstrip("-") or "cohort"
