"""`gmmas demo`: four phantom hospitals and a coordinator on this machine, through the very processes of a deployment.

north has four sequences and all labels; south no T1ce; east FLAIR and T2 only, and labels for half of its patients; west no
segmentations. A fifth hospital takes no part and tests the result.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gmmas_cli.calibration_report import HeadSummary
from gmmas_cli.demo_deployment import UNSEEN, DemoFolder, peak_memory_mib, prepare_deployment, running_deployment
from gmmas_cli.demo_report import DemoSummary, read_summary, show_closing, traffic, write_summary
from gmmas_cli.live import LiveRun
from gmmas_cli.progress import progress_bar
from gmmas_cli.run import failure_of
from gmmas_cli.run_report import CURVES, write_curves
from gmmas_schema.base import differing_keys
from gmmas_schema.calibration import Head
from gmmas_schema.errors import ConfigError
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_schema.messages import Evaluation
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.vocabulary import Split
from server.checkpoint import RunFolder
from server.deployment import prepare_run, submit_run
from server.folder import CoordinatorFolder
from server.following import follow_run
from server.records import Outcome

CONFIGS = Path(__file__).resolve().parents[1] / "site_configs"
SHEET_CASES = 6
ROUNDS_WITHOUT_BF16 = 16
"""Of the quick demo, where the processor has no bf16 instructions: a step takes twice as long there, and a quarter of an hour is to do."""
DEMO_ENTRIES = frozenset(
    {"cohorts", "coordinator", "sites", "run", "cache", "logs", "summary.json", "contact-sheet.png", CURVES}
    | {"baselines.md", "baselines.json", "prediction", "portal"}
)
"""All that a demo may leave in its folder; --fresh deletes nothing else."""


class Scale(StrEnum):
    """How long the demo may take."""

    QUICK = "quick"
    FULL = "full"


@dataclass
class Stages:
    """Numbered stages with their wall seconds."""

    console: Console
    total: int
    seconds: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def total_s(self) -> float:
        """Return the seconds since the first stage."""
        return round(time.perf_counter() - self.started, 1)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Announce a stage and measure it."""
        self.console.print(f"[bold cyan]{len(self.seconds) + 1}/{self.total}[/] {name}")
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 1)


def demo(
    out: Annotated[Path, typer.Option(help="Folder of everything the demo makes.")] = Path("runs/demo"),
    scale: Annotated[Scale, typer.Option(help="quick: within 15 minutes on two cores; full: overnight, 2 mm grid.")] = Scale.QUICK,
    rounds: Annotated[int | None, typer.Option(help="Rounds, instead of as many as the scale has time for.", min=1)] = None,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also train each hospital alone and all pooled, at the same step budget.")
    ] = False,
    portal: Annotated[
        bool, typer.Option("--portal", help="Then open the clinical platform on a patient of the unseen hospital, until Ctrl-C.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete what an earlier demo left in OUT and start anew.")] = False,
) -> None:
    """Train one model over four phantom hospitals on this machine, and test it on a fifth.

    An interrupted demo goes on where it stopped; a finished one is shown again, unless --fresh is given.
    """
    console = Console()
    folder = DemoFolder(out.resolve())
    if fresh:
        delete_demo(folder)
    spec = PhantomSpec.from_yaml(CONFIGS / ("phantom-demo.yaml" if scale is Scale.QUICK else "phantom-demo-full.yaml"))
    config = configure_demo(scale, rounds)
    summary = read_summary(folder)
    if summary is None:
        summary = _run(console, folder, spec, config)
    elif summary.federation != config:
        raise _other_demo(folder, summary, config)
    show_closing(console, folder, summary)
    if baselines:
        from gmmas_cli.demo_baselines import run_baselines

        console.print("[bold cyan]baselines[/] each hospital alone, and all pooled")
        run_baselines(console, folder, spec, config, summary.unseen)
    if portal:
        _open_portal(console, folder)


def _open_portal(console: Console, folder: DemoFolder) -> None:
    """Run the clinical platform with the demo's model, on the first patient of the hospital that took no part in training."""
    from gmmas_cli.portal import serve_portal

    authority = CoordinatorFolder.open(folder.coordinator).authority_certificate
    patient = min((folder.cohorts / UNSEEN).glob("PH-*"))
    serve_portal(
        console,
        folder.path / "portal",
        sample=patient,
        model=str(folder.run / "models" / "best"),
        authority=str(authority),
        institution="Phantom hospital",
    )


def configure_demo(scale: Scale, rounds: int | None = None) -> FederationConfig:
    """Return the federated run of the demo; without `rounds`, as many as the scale has time for on this machine's processor."""
    from gmmas_model.precision import native_bf16

    config = FederationConfig.from_yaml(CONFIGS / ("federation-demo.yaml" if scale is Scale.QUICK else "federation-demo-full.yaml"))
    if rounds is None and scale is Scale.QUICK and not native_bf16("cpu"):
        rounds = ROUNDS_WITHOUT_BF16
    return config if rounds is None else config.model_copy(update={"rounds": rounds})


def _run(console: Console, folder: DemoFolder, spec: PhantomSpec, config: FederationConfig) -> DemoSummary:
    """Run the demo's stages, each going on where an earlier call stopped; summary.json is written last."""
    folder.path.mkdir(parents=True, exist_ok=True)
    stages = Stages(console, 5)
    with stages.stage("phantom cohorts"):
        _make_cohorts(console, folder, spec)
    with stages.stage("keys, certificates and site.yaml of every hospital"):
        prepare_deployment(folder, spec)
    with stages.stage("federated training"):
        memory = _train(console, folder, spec, config)
    with stages.stage("test on the unseen hospital"):
        unseen, calibration = _test_unseen(console, folder)
    with stages.stage("summary"):
        return _summarise(folder, config, stages, unseen, calibration, memory)


def _make_cohorts(console: Console, folder: DemoFolder, spec: PhantomSpec) -> None:
    from gmmas_data.phantom import draw_overview, make_cohorts

    with progress_bar(console, "   cases") as update:
        make_cohorts(spec, folder.cohorts, on_progress=update)
    if not folder.overview.exists():
        draw_overview(spec, folder.cohorts, folder.overview)


def _train(console: Console, folder: DemoFolder, spec: PhantomSpec, config: FederationConfig) -> dict[str, float]:
    """Run the federation, or go on with it; return the largest memory per process in MiB."""
    if (folder.run / "result.json").exists():
        console.print("   finished earlier")
        return {}
    prepare_run(folder.run, config, resume=(folder.run / "federation.json").exists())
    with LiveRun(console, run_dir=folder.run) as live, running_deployment(folder, spec, on_wait=live.note):
        submit_run(folder.coordinator, folder.run)
        end = follow_run(folder.run, on_event=live.update)
        memory = peak_memory_mib(folder, spec)
    if end.kind is EventKind.RUN_FAILED:
        raise failure_of(end, folder.run, folder.coordinator)
    return memory


def _test_unseen(console: Console, folder: DemoFolder) -> tuple[Evaluation, dict[Head, HeadSummary]]:
    """Evaluate the best model and its calibration on the unseen hospital, on the scans' own voxels, and draw the contact sheet."""
    from gmmas_cli.demo_unseen import draw_contact_sheet, summarise_unseen
    from gmmas_workflows.evaluation import summarise

    with progress_bar(console, "   cases") as update:
        scores, calibration = summarise_unseen(folder, on_progress=update)
    draw_contact_sheet(folder, scores, cases=SHEET_CASES)
    return summarise(scores, split=Split.TEST, seed=0), calibration


def _summarise(
    folder: DemoFolder,
    config: FederationConfig,
    stages: Stages,
    unseen: Evaluation,
    calibration: dict[Head, HeadSummary],
    memory: dict[str, float],
) -> DemoSummary:
    """Draw the curves and write summary.json."""
    run = RunFolder.open(folder.run)
    records, result = run.read_records(), run.read_result()
    assert result is not None, "the run has finished"
    write_curves(records, folder.path / CURVES)
    bytes_of = traffic(records)
    summary = DemoSummary(
        software=version("gmmas-fed"),
        wall_seconds={**stages.seconds, "total": stages.total_s()},
        rounds=result.rounds,
        best_round=result.best_round,
        sites=dict(result.test.sites) if result.test else {},
        unseen=unseen,
        calibration=calibration,
        bytes_down=sum(each["down"] for each in bytes_of.values()),
        bytes_up=sum(each["up"] for each in bytes_of.values()),
        site_bytes=bytes_of,
        peak_memory_mib=memory,
        missing_replies=sum(site.outcome is not Outcome.ACCEPTED for record in records for site in record.sites),
        federation=config,
    )
    write_summary(folder, summary)
    return summary


def _other_demo(folder: DemoFolder, summary: DemoSummary, config: FederationConfig) -> ConfigError:
    differences = differing_keys(summary.federation.model_dump(mode="json"), config.model_dump(mode="json"))
    return ConfigError(
        "the folder holds a finished demo of another configuration",
        where=folder.path,
        got="; ".join(differences[:5]),
        expected="the same configuration, to show it again",
        remedy="name another folder by --out, or start anew by --fresh",
    )


def delete_demo(folder: DemoFolder) -> None:
    """Delete an earlier demo, and nothing that is not one."""
    if not folder.path.exists():
        return
    strange = sorted(entry.name for entry in folder.path.iterdir() if entry.name not in DEMO_ENTRIES)
    if strange:
        raise ConfigError(
            "the folder holds more than a demo",
            where=folder.path,
            got=", ".join(strange[:5]),
            expected="only what `gmmas demo` makes",
            remedy="name another folder by --out, or move these away",
        )
    shutil.rmtree(folder.path)
