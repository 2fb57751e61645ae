"""What `gmmas runs compare` shows: a table of the keys that differ, a table of outcomes and costs, and curves over the rounds."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ConfigError
from gmmas_workflows import train_folder
from gmmas_workflows.records import FinishedRound, FinishedRun
from gmmas_workflows.train_folder import TrainFolder, TrainResult
from server import checkpoint
from server.checkpoint import RunFolder
from server.events import EVENTS_FILE
from server.ledger import add_up, read_ledger
from server.records import RunResult
from server.wording import METRICS, format_bytes, format_seconds

NAMELESS: Final = ("name", "tracking.uri", "tracking.experiment", "tracking.registered_model")
"""Keys that tell runs apart and say nothing of what was done."""
NONE: Final = "–"


@dataclass(frozen=True)
class ComparedRun:
    """One run.

    Attributes:
        label: its folder's name, with a number where two folders share it.
        kind: federated, simulated or local.
        settings: resolved configuration, keys joined by dots.
        records: finished rounds, oldest first.
        result: its end; None while it has none.
        costs: what it cost, in words, by name; of a federated run only.
    """

    label: str
    kind: str
    settings: Mapping[str, Any]
    records: Sequence[FinishedRound]
    result: FinishedRun | None
    costs: Mapping[str, str] = field(default_factory=dict)


def read_runs(paths: Sequence[Path]) -> list[ComparedRun]:
    """Read the folders of runs.

    Raises:
        ConfigError: a folder is that of no run, or cannot be read.
    """
    found: list[ComparedRun] = []
    for path in map(Path.resolve, paths):
        taken = {run.label for run in found}
        label, number = path.name, 2
        while label in taken:
            label, number = f"{path.name} ({number})", number + 1
        found.append(_read_run(path, label))
    return found


def configuration_table(runs: Sequence[ComparedRun], *, every: bool = False) -> Table:
    """Return the keys whose values differ, a column per run; `every` includes names and stores."""
    table = _table("What differs", "key", runs)
    table.add_row("kind", *(run.kind for run in runs))
    for key in dict.fromkeys(key for run in runs for key in run.settings):
        if not every and key in NAMELESS:
            continue
        values = [json.dumps(run.settings[key]) if key in run.settings else NONE for run in runs]
        if len(set(values)) > 1:
            table.add_row(key, *(Text(value) for value in values))
    return table


def outcome_table(runs: Sequence[ComparedRun]) -> Table:
    """Return what came of the runs: rounds, the best model's validation and test, epsilon, time, bytes."""
    table = _table("What came of it", "", runs)
    rows: dict[str, Callable[[ComparedRun], str]] = {
        "rounds": lambda run: f"{run.records[-1].round if run.records else 0} of {run.settings.get('rounds', NONE)}",
        "state": lambda run: "finished" if run.result is not None else "not finished",
        "best round": lambda run: NONE if run.result is None else str(run.result.best_round),
    }
    for split in ("validation", "test"):
        for family, names in METRICS.items():
            rows |= {f"{split} {family} {label}": _figure(split, metric) for metric, label in names.items()}
    rows["epsilon"] = _epsilon
    rows["wall time of the rounds"] = lambda run: format_seconds(sum(record.seconds for record in run.records))
    for name in dict.fromkeys(name for run in runs for name in run.costs):
        rows[name] = _cost(name)
    for name, tell in rows.items():
        values = [tell(run) for run in runs]
        if set(values) != {NONE}:
            table.add_row(name, *values)
    return table


def draw_curves(runs: Sequence[ComparedRun], path: Path) -> None:
    """Write a PNG with a panel per metric of the validation and a curve per run.

    Raises:
        ConfigError: nothing was validated in any of them.
    """
    from gmmas_workflows.figures import learning_curves

    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for family, names in METRICS.items():
        for metric, label in names.items():
            curves = {run.label: _curve(run, metric) for run in runs}
            if shown := {name: points for name, points in curves.items() if points}:
                panels[f"validation {family} {label}"] = shown
    if not panels:
        raise ConfigError(
            "there is nothing to draw",
            where=", ".join(run.label for run in runs),
            got="no validated round",
            expected="runs with validation patients",
            remedy="leave --picture out",
        )
    learning_curves(panels, path)


def _read_run(path: Path, label: str) -> ComparedRun:
    if (path / checkpoint.CONFIGURATION).is_file():
        folder = RunFolder.open(path)
        kind = "simulated" if (path / checkpoint.SIMULATION).exists() else "federated"
        return ComparedRun(label, kind, _settings(folder.config), folder.read_records(), folder.read_result(), _costs(path))
    if (path / train_folder.CONFIGURATION).is_file():
        alone = TrainFolder.open(path)
        return ComparedRun(label, "local", _settings(alone.config), alone.read_records(), alone.read_result())
    raise ConfigError(
        "this is not the folder of a run",
        where=path,
        got="no such folder" if not path.is_dir() else "neither federation.json nor train.json in it",
        expected="what `gmmas run`, `gmmas simulate` or `gmmas train` named with --out",
        remedy="name that folder",
    )


def _settings(config: FrozenModel) -> dict[str, Any]:
    """Return a configuration flat: keys joined by dots."""
    flat: dict[str, Any] = {}

    def add(value: Any, key: str) -> None:
        if isinstance(value, dict) and value:
            for name, inner in value.items():
                add(inner, f"{key}.{name}".lstrip("."))
        else:
            flat[key] = value

    add(config.model_dump(mode="json"), "")
    return flat


def _costs(path: Path) -> dict[str, str]:
    """Return what the hospitals' answers cost, refused and repeated ones included."""
    cost = add_up(entry for entry in read_ledger(path / EVENTS_FILE) if entry.site is not None)
    if not cost.asked:
        return {}
    return {
        "answers of hospitals": f"{cost.answered} of {cost.asked}",
        "bytes down": format_bytes(cost.bytes_down),
        "bytes up": format_bytes(cost.bytes_up),
        "processor time at hospitals": format_seconds(cost.cpu_seconds),
        "largest memory of a trainer": f"{cost.peak_memory_mib:.0f} MiB",
    }


def _figure(split: str, metric: str) -> Callable[[ComparedRun], str]:
    def tell(run: ComparedRun) -> str:
        score = None if run.result is None else getattr(run.result, split)
        return NONE if score is None or metric not in score.metrics else f"{score.metrics[metric]:.3f}"

    return tell


def _epsilon(run: ComparedRun) -> str:
    privacy = run.result.privacy if isinstance(run.result, RunResult) else None
    return NONE if privacy is None else f"{privacy.epsilon:.3g}"


def _cost(name: str) -> Callable[[ComparedRun], str]:
    return lambda run: run.costs.get(name, NONE)


def _curve(run: ComparedRun, metric: str) -> list[tuple[int, float]]:
    scores = [record.validation for record in run.records if record.validation is not None]
    last = None if run.result is None or isinstance(run.result, TrainResult) else run.result.last
    scores += [last] if last is not None else []
    return [(score.model_round, score.metrics[metric]) for score in scores if metric in score.metrics]


def _table(title: str, first: str, runs: Sequence[ComparedRun]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold")
    for run in runs:
        table.add_column(Text(run.label), justify="right", overflow="fold")
    return table
