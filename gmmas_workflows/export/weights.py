"""A model's weights as a coordinator publishes them: model.safetensors, model.json and, of a calibrated model, calibration.json."""

from pathlib import Path

from gmmas_model.weights import Weights, save_calibration, save_weights


def write_weights(folder: Path, weights: Weights) -> None:
    """Write weights into a folder; the same weights give the same SHA-256.

    Raises:
        ModelError: a tensor is not finite.
    """
    digest = save_weights(folder, weights.tensors, weights.definition, metadata=weights.metadata)
    assert digest == weights.sha256, "safetensors of the same tensors differ"
    if weights.calibration is not None:
        save_calibration(folder, weights.calibration)
