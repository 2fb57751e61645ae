"""What the demo shows at its end: the table, summary.json, and where everything is."""

import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from rich.console import Console

from gmmas_cli.accuracy_report import accuracy_table
from gmmas_cli.calibration_report import HeadSummary, calibration_table
from gmmas_cli.demo_deployment import UNSEEN, DemoFolder
from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.calibration import Head
from gmmas_schema.federation import FederationConfig
from gmmas_schema.messages import Evaluation
from server.records import RoundRecord

PROGRAMS = Path(sys.executable).parent
"""Where this environment's commands are."""


class DemoSummary(FrozenModel):
    """Contents of summary.json.

    Attributes:
        wall_seconds: of the whole demo and of its stages.
        rounds: finished rounds; `best_round` is the one whose model is evaluated here, chosen on validation cases.
        sites: best model on each hospital's held-out test cases, measured at the hospital on the network's grid.
        unseen: best model on the unseen hospital, on the scans' own voxels, all sequences shown.
        calibration: best model's temperature per head, and calibration errors before and after.
        bytes_down: sent to all hospitals over all rounds; `bytes_up` received from them.
        peak_memory_mib: largest resident memory per process.
    """

    software: str
    wall_seconds: dict[str, float]
    rounds: int
    best_round: int
    sites: dict[str, Evaluation]
    unseen: Evaluation
    calibration: dict[Head, HeadSummary] = Field(default_factory=dict)
    bytes_down: int
    bytes_up: int
    site_bytes: dict[str, dict[str, int]]
    peak_memory_mib: dict[str, float]
    missing_replies: int
    federation: FederationConfig


def traffic(records: Sequence[RoundRecord]) -> dict[str, dict[str, int]]:
    """Return bytes per site and direction, summed over rounds."""
    total: dict[str, dict[str, int]] = {}
    for site in (site for record in records for site in record.sites):
        counts = total.setdefault(site.site, {"down": 0, "up": 0})
        counts["down"] += site.bytes_down
        counts["up"] += site.bytes_up
    return total


def write_summary(folder: DemoFolder, summary: DemoSummary) -> None:
    """Write summary.json."""
    write_atomic(folder.path / "summary.json", summary.model_dump_json(indent=1).encode() + b"\n", mode=0o644)


def read_summary(folder: DemoFolder) -> DemoSummary | None:
    """Return the summary of an earlier call, or None."""
    path = folder.path / "summary.json"
    return DemoSummary.model_validate_json(path.read_bytes()) if path.exists() else None


def show_closing(console: Console, folder: DemoFolder, summary: DemoSummary) -> None:
    """Print the table and where everything is."""
    title = f"Federated model of round {summary.best_round} of {summary.rounds}"
    console.print(accuracy_table({**summary.sites, UNSEEN: summary.unseen}, title=title))
    console.print("Hospitals measured their own patients on the network's grid; the unseen one is measured on the scans' own voxels.")
    if summary.calibration:
        console.print(calibration_table(summary.calibration, title="Is its confidence right? Before and after calibration"))
    mib = 2**20
    console.print(
        f"[bold]{summary.wall_seconds['total']:.0f} s[/] in all; "
        f"{summary.bytes_down / mib:.0f} MiB down, {summary.bytes_up / mib:.0f} MiB up; "
        f"largest process {max(summary.peak_memory_mib.values(), default=0):.0f} MiB"
    )
    model, store = folder.run / "models" / "best", folder.run / "mlflow.db"
    case = min((folder.cohorts / UNSEEN).glob("PH-*"), default=folder.cohorts / UNSEEN)
    places = {
        "summary": folder.path / "summary.json",
        "cohorts": folder.overview,
        "contact sheet": folder.path / "contact-sheet.png",
        "curves": folder.path / "learning-curves.png",
        "model": model,
        "MLflow": f"{PROGRAMS / 'mlflow'} ui --host 127.0.0.1 --backend-store-uri sqlite:///{store}",
        "try it": f"{PROGRAMS / 'gmmas'} predict {case} --model {model} --out {folder.path / 'prediction'}",
    }
    for name, place in places.items():
        console.print(f"{name:<15}{place}", soft_wrap=True, highlight=False)
