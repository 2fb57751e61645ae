"""The report of an evaluation: what the trainer measured, with the counts that the coordinator checks it against."""

from collections.abc import Callable, Mapping

import numpy as np

from gmmas_runtime.memory import peak_memory_mib
from gmmas_runtime.stopwatch import Stopwatch
from gmmas_schema.messages import SiteReport, TaskRequest
from gmmas_schema.policy import FewestPatients
from gmmas_workflows.local_evaluation import ALL_TOLD, LocalEvaluator


def report_evaluation(
    trainer: LocalEvaluator,
    tensors: Mapping[str, np.ndarray],
    request: TaskRequest,
    *,
    fewest: FewestPatients = ALL_TOLD,
    on_progress: Callable[[int, int], None] | None = None,
) -> SiteReport:
    """Evaluate the received model on the split the request names and return the site's report.

    Args:
        trainer: holds the cases.
        tensors: the model.
        request: an evaluation.
        fewest: patients behind each figure and each sum; one of fewer is left out.
        on_progress: called with (done, total).

    Raises:
        ProtocolError, ModelError, GmmasError: as LocalTrainer.evaluate.
    """
    watch = Stopwatch()
    with watch.stage("evaluate"):
        evaluation, calibration = trainer.measure(tensors, request, fewest=fewest, on_progress=on_progress)
        subsets = trainer.measure_subsets(tensors, request, fewest=fewest, on_progress=on_progress) if request.subsets else {}
    description = trainer.describe()
    return SiteReport(
        site=description.site,
        run=request.run,
        round=request.round,
        model_digest=description.model_digest,
        modalities=description.modalities,
        cases=description.cases,
        labelled=description.labelled,
        evaluation=evaluation,
        subsets=subsets,
        calibration=calibration,
        seconds=watch.seconds,
        cpu_seconds=watch.cpu_seconds,
        peak_memory_mib=peak_memory_mib(),
    )
