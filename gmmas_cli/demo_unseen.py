"""The demo's unseen hospital: scores on the scans' own voxels, and the contact sheet."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gmmas_cli.calibration_report import HeadSummary, summarise_calibration
from gmmas_cli.demo_deployment import UNSEEN, DemoFolder
from gmmas_data.cache import SampleCache
from gmmas_data.cases import Case
from gmmas_data.layouts import read_cohort
from gmmas_data.preprocessing import restore_to_native
from gmmas_data.quality import load_case
from gmmas_data.regions import labels_of
from gmmas_data.volumes import spacing_of
from gmmas_model.batch import Batch
from gmmas_model.inference import predict_volume
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import load_network, load_weights
from gmmas_schema.calibration import CalibrationQuery, Head
from gmmas_schema.vocabulary import REGIONS, Layout, Split
from gmmas_workflows.calibration import StatisticsCollector, reliability_of
from gmmas_workflows.evaluation import CaseScore, Observe, score_cases, threshold
from gmmas_workflows.figures import SheetRow, contact_sheet
from server.checkpoint import RunFolder

Progress = Callable[[int, int], None]


def unseen_cases(folder: DemoFolder) -> tuple[Case, ...]:
    """Return the cases of the hospital that took no part in training."""
    cohort = folder.cohorts / UNSEEN
    return read_cohort(cohort, labels=cohort / "labels.csv")


def sample_cache(folder: DemoFolder) -> SampleCache:
    """Return the cache of cases on the run's grid."""
    return SampleCache(folder.cache, RunFolder.open(folder.run).config.model.grid)


def best_model(folder: DemoFolder) -> Path:
    """Return the weights folder of the run's best model."""
    return folder.run / "models" / "best"


def score_unseen(
    folder: DemoFolder, network: GmmasNetwork | None = None, *, on_progress: Progress | None = None, observe: Observe | None = None
) -> list[CaseScore]:
    """Return the scores of the best model, or of another network, on every unseen case; uncalibrated, for baselines have no calibration."""
    chosen, cache = network or load_network(best_model(folder)), sample_cache(folder)
    return score_cases(chosen, unseen_cases(folder), cache.get, patch=cache.grid.patch, on_progress=on_progress, observe=observe)


def summarise_unseen(folder: DemoFolder, *, on_progress: Progress | None = None) -> tuple[list[CaseScore], dict[Head, HeadSummary]]:
    """Return the best model's scores on every unseen case, and its calibration with the errors on them."""
    weights = load_weights(best_model(folder))
    query = CalibrationQuery(temperatures=weights.temperatures)
    collector = StatisticsCollector(query, spacing_mm=weights.definition.grid.spacing_mm)
    scores = score_unseen(folder, on_progress=on_progress, observe=collector.add)
    return scores, summarise_calibration(weights.calibration, {UNSEEN: reliability_of(collector.statistics(split=Split.TEST))})


def draw_contact_sheet(folder: DemoFolder, scores: Sequence[CaseScore], *, cases: int) -> Path:
    """Draw cases spread evenly from the best to the worst whole-tumour Dice, so that the picture flatters nobody."""
    ranked = sorted(scores, key=lambda score: -score.dice.get(REGIONS[0], 0.0))
    places = np.linspace(0, len(ranked) - 1, min(cases, len(ranked))).round().astype(int)
    found = {case.case_id: case for case in unseen_cases(folder)}
    network, cache = load_network(best_model(folder)), sample_cache(folder)
    path = folder.path / "contact-sheet.png"
    contact_sheet([_row(network, cache, found[ranked[place].case_id], ranked[place]) for place in places], path)
    return path


def _row(network: GmmasNetwork, cache: SampleCache, case: Case, score: CaseScore) -> SheetRow:
    loaded, sample = load_case(case), cache.get(case)
    batch = Batch.collate([sample])
    prediction = predict_volume(network, batch.image_BMXYZ, batch.present_BM, patch=cache.grid.patch)
    probability_RXYZ = prediction.region_probability()[0].numpy()
    predicted_RXYZ = threshold(restore_to_native(probability_RXYZ, sample, order=1))
    right_mm, anterior_mm, superior_mm = spacing_of(loaded.affine)
    return SheetRow(
        title=case.case_id,
        images=loaded.images,
        prediction=labels_of(predicted_RXYZ, layout=Layout.BRATS2023),  # the layout whose values are ours
        truth=loaded.segmentation,
        dice=score.dice,
        spacing_mm=(float(right_mm), float(anterior_mm), float(superior_mm)),
    )
