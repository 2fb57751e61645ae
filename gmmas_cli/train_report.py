"""What `gmmas train` shows at its end: the table of the test patients, the learning curves, where everything is."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from gmmas_cli.accuracy_report import accuracy_table
from gmmas_cli.demo_report import PROGRAMS
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.standalone import POOLED
from gmmas_schema.vocabulary import REGIONS, TASKS
from gmmas_workflows.scores import ModelScore, choose_best
from gmmas_workflows.tracking import store_uri
from gmmas_workflows.train_folder import TrainFolder, TrainResult, TrainRound
from server.wording import METRICS, format_metrics, format_seconds

Curve = list[tuple[int, float]]


def write_curves(folder: TrainFolder) -> Path | None:
    """Draw validation accuracy, and the training and validation loss of every task, over the rounds; None before the first."""
    records = folder.read_records()
    if not records:
        return None
    from gmmas_workflows.figures import learning_curves

    scores = [record.validation for record in records if record.validation is not None]
    learning_curves(curve_panels(records), folder.curves_path, best=choose_best(scores, fallback=records[-1].round))
    return folder.curves_path


def curve_panels(records: Sequence[TrainRound]) -> dict[str, dict[str, Curve]]:
    """Return per panel title its curves by name; panels and curves without a point are left out."""
    scores = [record.validation for record in records if record.validation is not None]
    panels: dict[str, dict[str, Curve]] = {
        f"validation {family}": {label: _validation_curve(scores, metric) for metric, label in names.items()}
        for family, names in METRICS.items()
    }
    for task in TASKS:
        training = [(record.round, record.training.losses[task]) for record in records if task in record.training.losses]
        panels[f"loss: {task}"] = {"training": training, "validation": _validation_curve(scores, f"loss_{task}")}
    shown = {title: {name: points for name, points in curves.items() if points} for title, curves in panels.items()}
    return {title: curves for title, curves in shown.items() if curves}


def table_rows(test: ModelScore) -> dict[str, Evaluation]:
    """Return the rows of the table: each cohort's test patients and, of several cohorts, their mean weighted by patients."""
    if len(test.sites) == 1:
        return dict(test.sites)
    every = test.sites.values()
    dice = {region: _mean(test, f"dice_{region}", [e.dice[region].n for e in every if region in e.dice]) for region in REGIONS}
    auc = {task: _mean(test, f"auc_{task}", [e.auc[task].n for e in every if task in e.auc]) for task in TASKS}
    return dict(test.sites) | {POOLED: Evaluation(split=test.split, cases=sum(e.cases for e in every), dice=dice, auc=auc)}


def show_result(console: Console, folder: TrainFolder, result: TrainResult) -> None:
    """Print what came of a training and where it is."""
    end = f"stopped early after round {result.rounds} of {result.planned_rounds}" if result.stopped_early else "has finished"
    console.print(
        Text.assemble(
            (f"Training {end}.", "bold green"),
            f" {result.steps} steps in {format_seconds(result.seconds)} on {result.device}. Best model: round {result.best_round}.",
        )
    )
    if result.validation is not None:
        console.print(f"validation  {format_metrics(result.validation.metrics)}", highlight=False)
    if result.test is not None:
        console.print(accuracy_table(table_rows(result.test), title=f"model of round {result.best_round} on the test patients"))
        console.print("Measured on the network's grid; `gmmas evaluate` measures on the scans' own voxels.")
    else:
        console.print("No cohort has test cases.", style="yellow")
    for name, place in _places(folder).items():
        console.print(f"{name:<12}{place}", soft_wrap=True, highlight=False)


def _places(folder: TrainFolder) -> dict[str, str]:
    best = folder.model_path("best")
    places = {"model": str(best), "result": str(folder.result_path), "curves": str(folder.curves_path)}
    tracking = folder.config.tracking
    if tracking is not None:
        uri = store_uri(tracking, folder.path)
        command = f"{PROGRAMS / 'mlflow'} ui --host 127.0.0.1 --backend-store-uri {uri}"
        places["MLflow"] = command if uri.startswith("sqlite:") else uri.rpartition("@")[2]  # without credentials
    return places | {"try it": f"{PROGRAMS / 'gmmas'} predict CASE_FOLDER --model {best} --out prediction"}


def _validation_curve(scores: Sequence[ModelScore], metric: str) -> Curve:
    return [(score.model_round, score.metrics[metric]) for score in scores if metric in score.metrics]


def _mean(test: ModelScore, metric: str, patients: Sequence[int]) -> Interval:
    return Interval(value=test.metrics.get(metric), n=sum(patients))
