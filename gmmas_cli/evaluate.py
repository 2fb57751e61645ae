"""`gmmas evaluate`: a model on a labelled cohort, scored on the scans' own voxels, for all sequences or for every subset of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from gmmas_cli.accuracy_report import accuracy_table
from gmmas_cli.calibration_report import HeadSummary, calibration_table, summarise_calibration
from gmmas_cli.predict import THREADS, AuthorityOption, ModelOption, StoreOption, ThreadsOption, tell_origin, tell_untrained
from gmmas_cli.progress import progress_bar
from gmmas_data.cases import Case
from gmmas_data.layouts import read_cohort
from gmmas_data.samples import Sample
from gmmas_runtime.files import write_atomic
from gmmas_schema.calibration import CalibrationQuery
from gmmas_schema.errors import ConfigError, DataError
from gmmas_schema.messages import Evaluation
from gmmas_schema.vocabulary import REGIONS, Region, Split, Task

if TYPE_CHECKING:
    from gmmas_model.weights import Weights
    from gmmas_workflows.evaluation import CaseScore, Observe

EVERYTHING = "all there are"
COHORT = "this cohort"


class Subsets(StrEnum):
    """Which sequences the network is shown."""

    FULL = "full"
    ALL = "all"


def evaluate(
    cohort: Annotated[Path, typer.Argument(help="Folder of the cohort.", show_default=False)],
    model: ModelOption,
    labels: Annotated[
        Path | None,
        typer.Option(help="CSV: patient_id, idh, codeletion; also grade, mgmt.", show_default=False),
    ] = None,
    subsets: Annotated[Subsets, typer.Option(help="full: all sequences of a case. all: every subset of them.")] = Subsets.FULL,
    out: Annotated[Path | None, typer.Option(help="JSON file to write: the table and one row per case.", show_default=False)] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out cases that fail the quality gate.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the JSON file.")] = False,
    tracking_uri: StoreOption = "",
    authority: AuthorityOption = None,
    threads: ThreadsOption = THREADS,
) -> None:
    """Measure a model on a labelled cohort. Every case is a test case: use none that the model was trained on."""
    if out is not None and out.exists() and not force:
        raise ConfigError("the output file exists", where=out, expected="no file of this name", remedy="replace it with --force")
    console = Console()
    cases = read_cohort(cohort, labels=labels)
    with console.status("loading the model"):
        import torch

        from gmmas_workflows.calibration import StatisticsCollector, reliability_of
        from gmmas_workflows.evaluation import summarise
        from gmmas_workflows.model_source import open_model

        torch.set_num_threads(threads)
        opened = open_model(model, tracking_uri=tracking_uri, authority=authority)
    weights = opened.weights
    tell_origin(console, opened.origin)
    tell_untrained(console, weights)
    query = CalibrationQuery(temperatures=weights.temperatures)
    collector = StatisticsCollector(query, spacing_mm=weights.definition.grid.spacing_mm)
    with progress_bar(console, "cases") as update:
        scores, bad = score_subsets(
            cases, weights, every=subsets is Subsets.ALL, skip_bad=skip_bad, on_progress=update, observe=collector.add
        )
    for case_id in bad:
        console.print(f"left out {case_id}: it fails the quality gate (`gmmas data check` says why)", style="yellow")
    rows = {name: summarise(found, split=Split.TEST, seed=0) for name, found in scores.items()}
    console.print(accuracy_table(rows, title=f"{len(cases) - len(bad)} cases, by sequences shown", first="sequences"))
    if subsets is Subsets.ALL:
        console.print("mean Dice over the subsets: " + "  ".join(f"{r.upper()} {v:.3f}" for r, v in mean_dice(rows).items()))
    heads = summarise_calibration(weights.calibration, {COHORT: reliability_of(collector.statistics(split=Split.TEST))})
    heads = {head: summary for head, summary in heads.items() if head not in weights.untrained}
    console.print(calibration_table(heads, title="never calibrated" if weights.calibration is None else "calibrated"))
    if out is not None:
        write_atomic(out, evaluation_json(weights, rows, scores, heads).encode(), mode=0o600)
        console.print(f"written to {out}", soft_wrap=True)


def score_subsets(
    cases: Sequence[Case],
    weights: "Weights",
    *,
    every: bool,
    skip_bad: bool,
    on_progress: Callable[[int, int], None],
    observe: "Observe | None" = None,
) -> tuple[dict[str, list["CaseScore"]], list[str]]:
    """Return the scores of the model as it is used, calibrated or not, by the sequences shown, and the cases that were left out.

    Sequences and heads that nobody trained take no part.

    Args:
        cases: the cohort.
        weights: the model.
        every: show every subset of a case's sequences, not just all of them.
        skip_bad: go on after a case that fails the quality gate.
        on_progress: called with (done, total) cases.
        observe: takes each case's prediction from all its sequences, before calibration.

    Raises:
        DataError: a case fails the quality gate and `skip_bad` is off.
    """
    from gmmas_data.preprocessing import preprocess_case
    from gmmas_model.weights import make_network
    from gmmas_workflows.evaluation import score_cases
    from gmmas_workflows.evaluation import subsets as subsets_of
    from gmmas_workflows.inference import readable_modalities

    network = make_network(weights, modalities=readable_modalities(weights))
    order = {"+".join(subset): subset for subset in subsets_of(network.modalities)} if every else {EVERYTHING: network.modalities}
    scores: dict[str, list[CaseScore]] = {name: [] for name in order}
    bad: list[str] = []
    for done, case in enumerate(cases):
        try:
            sample = preprocess_case(case, weights.definition.grid)
        except DataError:
            if not skip_bad:
                raise
            bad.append(case.case_id)
        else:

            def prepared(_: Case, ready: Sample = sample) -> Sample:
                return ready

            for name, subset in order.items():
                if not every or set(subset) <= set(case.modalities):
                    found = score_cases(
                        network,
                        [case],
                        prepared,
                        modalities=subset,
                        patch=weights.definition.grid.patch,
                        temperatures=weights.temperatures,
                        observe=observe if set(case.modalities) & set(network.modalities) <= set(subset) else None,
                    )
                    scores[name] += [score.without(weights.untrained) for score in found]
        on_progress(done + 1, len(cases))
    return {name: found for name, found in scores.items() if found}, bad


def mean_dice(rows: Mapping[str, Evaluation]) -> dict[str, float]:
    """Return per region the mean over the rows that have it."""
    values = {region: [row.dice[region].value for row in rows.values() if region in row.dice] for region in REGIONS}
    known = {region: [value for value in found if value is not None] for region, found in values.items()}
    return {region.value: sum(found) / len(found) for region, found in known.items() if found}


def evaluation_json(
    weights: "Weights",
    rows: Mapping[str, Evaluation],
    scores: Mapping[str, Sequence["CaseScore"]],
    heads: Mapping[Region | Task, HeadSummary],
) -> str:
    """Return the model's identity, the tables and the rows per case as JSON. It names cases, so it stays where they are."""
    content = {
        "model_digest": weights.definition.digest(),
        "weights_sha256": weights.sha256,
        "modalities": [str(m) for m in weights.readable],
        "untrained": [str(head) for head in weights.untrained],
        "evaluation": {name: row.model_dump(mode="json") for name, row in rows.items()},
        "mean_dice": mean_dice(rows),
        "calibration": {str(head): found.model_dump(mode="json") for head, found in heads.items()},
        "cases": [score.row() for found in scores.values() for score in found],
    }
    return json.dumps(content, indent=1) + "\n"
