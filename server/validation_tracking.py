"""A cross-site validation in MLflow: one run, tagged `gmmas.training` = `validation`, with the matrix as artifact.

Names are those of runs under the model's label: `model/<label>/<split>/dice_wt`, `model/<label>/site/<site>/<split>/dice_wt`. A validation
of certain weights is found by its tag `weights/<first 12 digits>`.
"""

from collections.abc import Iterator
from typing import Final

from gmmas_schema.validation import ValidationMatrix
from gmmas_workflows.run_metrics import evaluation_metrics
from gmmas_workflows.tracking import connect, ensure_experiment, origin_tags, store_uri
from server.validation_folder import MATRIX, PICTURE, ValidationFolder

KIND: Final = "validation"
_METRICS_PER_REQUEST: Final = 500


def track_validation(folder: ValidationFolder, matrix: ValidationMatrix) -> str:
    """Write a validation to its store, once; returns the identifier of the MLflow run."""
    from mlflow.entities import Metric

    config, note = folder.config.tracking, folder.path / "mlflow_run"
    if note.exists():
        return note.read_text(encoding="utf-8").strip()
    client = connect(store_uri(config, folder.path))
    tags = {"gmmas.training": KIND} | origin_tags(folder.path)
    tags |= {f"weights/{row.model.weights[:12]}": row.model.label for row in matrix.rows}
    experiment = ensure_experiment(client, config, uri=store_uri(config, folder.path))
    run = str(client.create_run(experiment, run_name=matrix.validation, tags=tags).info.run_id)
    for row in matrix.rows:
        client.log_param(run, f"model.{row.model.label}", f"{row.model.source} ({row.model.weights[:12]})"[:500])
    metrics = [Metric(name, value, 0, 0) for name, value in _metrics(matrix)]
    for first in range(0, len(metrics), _METRICS_PER_REQUEST):
        client.log_batch(run, metrics=metrics[first : first + _METRICS_PER_REQUEST])
    for name in (MATRIX, PICTURE):
        if (folder.path / name).exists():
            client.log_artifact(run, str(folder.path / name))
    client.set_terminated(run, "FINISHED")
    note.write_text(run, encoding="utf-8")
    return run


def _metrics(matrix: ValidationMatrix) -> Iterator[tuple[str, float]]:
    for row in matrix.rows:
        label = row.model.label.replace("@", "-")
        for name, value in row.metrics.items():
            yield f"model/{label}/{matrix.split}/{name}", value
        for site, own in row.sites.items():
            for name, value in evaluation_metrics(own).items():
                yield f"model/{label}/site/{site}/{matrix.split}/{name}", value
        for head, error in row.calibration.items():
            if error.ece is not None:
                yield f"model/{label}/calibration/ece_{head}", error.ece
            if error.nll is not None:
                yield f"model/{label}/calibration/nll_{head}", error.nll
