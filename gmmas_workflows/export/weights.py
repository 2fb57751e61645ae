"""A model's weights as a coordinator publishes them: model.safetensors, model.json and, of a calibrated model, calibration.json."""

from pathlib import Path

from gmmas_model.weights import Weights, save_weights
from gmmas_runtime.files import write_atomic
from gmmas_schema.calibration import CALIBRATION_FILE, Calibration


def write_weights(folder: Path, weights: Weights, *, calibration: Calibration | None = None) -> None:
    """Write weights into a folder; the same weights give the same SHA-256.

    Raises:
        ModelError: a tensor is not finite.
    """
    digest = save_weights(folder, weights.tensors, weights.definition, metadata=weights.metadata)
    assert digest == weights.sha256, "safetensors of the same tensors differ"
    if calibration is not None:
        write_atomic(folder / CALIBRATION_FILE, calibration.model_dump_json(indent=2).encode() + b"\n", mode=0o644)
