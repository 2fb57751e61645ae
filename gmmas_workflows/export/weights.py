"""A model's weights as a coordinator publishes them: model.safetensors, model.json calibration.json, its card, a manifest."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from gmmas_model.weights import Weights, save_calibration, save_weights
from gmmas_runtime.files import write_atomic
from gmmas_runtime.manifest import check_manifest, write_manifest
from gmmas_schema.errors import TrustError


def write_weights(folder: Path, weights: Weights, *, documents: Mapping[str, bytes] = MappingProxyType({})) -> None:
    """Write weights into a folder, with the manifest they came with, or one that nobody signed; the same weights give the same SHA-256.

    Args:
        folder: exists.
        weights: the model.
        documents: the files of its model card, and its manifest, by name.

    Raises:
        ModelError: a tensor is not finite.
    """
    digest = save_weights(folder, weights.tensors, weights.definition, metadata=weights.metadata, trained=weights.trained)
    assert digest == weights.sha256, "safetensors of the same tensors differ"
    if weights.calibration is not None:
        save_calibration(folder, weights.calibration)
    for name, content in documents.items():
        write_atomic(folder / name, content)
    if not _keeps_manifest(folder):
        number = weights.metadata.get("round", "")
        write_manifest(
            folder,
            model_digest=weights.definition.digest(),
            run=weights.metadata.get("run", ""),
            round=int(number) if number.isdigit() else None,
        )


def _keeps_manifest(folder: Path) -> bool:
    """Return whether the manifest that came with the model, and its signature, hold for the files as they were written."""
    try:
        return check_manifest(folder).manifest is not None
    except TrustError:
        return False
