"""The site's cohort: read, checked and split once at the start, preprocessed for the grid a model asks for."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version

from gmmas_data.cache import SampleCache
from gmmas_data.cases import Case
from gmmas_data.layouts import read_cases
from gmmas_data.quality import QualityReport, check_cohort
from gmmas_data.samples import Sample
from gmmas_data.splits import split_patients
from gmmas_schema.errors import DataError
from gmmas_schema.messages import LabelCounts, SiteDescription
from gmmas_schema.model import ModelDefinition
from gmmas_schema.site import SiteConfig
from gmmas_schema.vocabulary import MODALITIES, MUTANT_ONLY, TASKS, Split, Task

logger = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]
"""Called with (done, total)."""


@dataclass(frozen=True)
class SiteCohort:
    """The accepted cases per split, and how many the quality gate left out."""

    cases: Mapping[Split, tuple[Case, ...]]
    left_out: int

    @property
    def size(self) -> int:
        """Number of accepted cases."""
        return sum(len(cases) for cases in self.cases.values())


def open_cohort(config: SiteConfig, *, on_progress: OnProgress | None = None) -> SiteCohort:
    """Read the cohort, pass every case through the quality gate and split the patients.

    Raises:
        DataError: the folder or the table of labels is wrong, or a case is bad and data.skip_bad_cases is off, or none is left.
    """
    data = config.data
    cases = tuple(_with_labels_of(case, config.policy.heads) for case in read_cases(data))
    report = check_cohort(cases, on_progress=on_progress, processes=config.node.threads)
    for case_id, error in report.rejected:
        logger.warning("case %s is left out: %s", case_id, error)
    if report.rejected and not (data.skip_bad_cases and report.accepted):
        raise _refuse(config, report)
    splits = split_patients(report.accepted, data.split)
    logger.info("cohort: %s", ", ".join(f"{len(splits.get(split, ()))} {split}" for split in Split))
    return SiteCohort({split: tuple(splits.get(split, ())) for split in Split}, len(report.rejected))


def prepare_samples(
    cohort: SiteCohort, cache: SampleCache, *, processes: int, on_progress: OnProgress | None = None
) -> dict[Split, tuple[Sample, ...]]:
    """Return the preprocessed cases per split; what the cache does not hold yet is made."""
    every = [case for cases in cohort.cases.values() for case in cases]
    cache.prepare(every, processes=processes, on_progress=on_progress)
    return {split: tuple(cache.get(case) for case in cases) for split, cases in cohort.cases.items()}


def describe_cohort(cohort: SiteCohort, *, site: str, model: ModelDefinition) -> SiteDescription:
    """Return what the site holds for this model, in counts of training cases, before anything is preprocessed."""
    cases = cohort.cases[Split.TRAIN]
    modalities = tuple(m for m in MODALITIES if any(m in case.images for case in cases))
    held = {task: [case.images for case in cases if _has_label(case, task)] for task in model.network.tasks}
    told = [case.known_regions for case in cases if _has_label(case, Task.SEGMENTATION)]
    counts = LabelCounts.of(len(cases), held, told, modalities=modalities)
    return SiteDescription(site=site, model_digest=model.digest(), software=version("gmmas-fed"), modalities=modalities, **dict(counts))


def _with_labels_of(case: Case, heads: tuple[Task, ...]) -> Case:
    """Return a case with the labels of these tasks alone, as the site's policy has it."""
    hidden = [task for task in TASKS if task not in heads]
    if not hidden:
        return case
    labels = {"segmentation" if task is Task.SEGMENTATION else str(task): None for task in hidden}
    return replace(case, **labels, sources={task: source for task, source in case.sources.items() if task in heads})  # type: ignore[arg-type]


def _has_label(case: Case, task: Task) -> bool:
    """Tell as gmmas_workflows.batches does of a sample whether a case trains a task's head."""
    if task is Task.SEGMENTATION:
        return case.segmentation is not None
    return case.marker(task) is not None and (task not in MUTANT_ONLY or case.idh is not False)


def _refuse(config: SiteConfig, report: QualityReport) -> DataError:
    """Return the error for a cohort with bad cases; the first is explained, the others are named in the log."""
    case_id, first = report.rejected[0]
    total = len(report.rejected) + len(report.accepted)
    return DataError(
        f"{len(report.rejected)} of {total} cases do not pass the quality gate",
        where=config.data.root,
        got=f"first: case {case_id}: {first}".replace("\n", "\n            "),
        expected="readable scans of one grid with known labels",
        remedy="mend them (all are named in logs/trainer.log), or set data.skip_bad_cases: true"
        if report.accepted
        else "mend them; no case is left to work with",
        code=first.code,
    )
