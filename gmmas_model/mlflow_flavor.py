"""The MLflow flavor `gmmas`: a logged model is the folder of gmmas_model.weights, so loading one runs no code from the store.

    mlflow.pyfunc.load_model(uri).predict({"image": image_BMXYZ, "present": present_BM})

What the model was never trained on (Weights.readable, .untrained) is not read, and answered with NaN.

Shape suffixes: B batch, M modality (order of MODALITIES), R region, S subtype, XYZ voxels of the model definition's grid.
"""

import importlib.metadata
import shutil
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import mlflow.pyfunc
import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.models.model import ModelInfo
from mlflow.types import Schema, TensorSpec
from numpy.typing import NDArray

from gmmas_model.weights import load_weights, make_network
from gmmas_schema.calibration import Temperatures
from gmmas_schema.manifest import MANIFEST_FILE, MODEL_FILES
from gmmas_schema.model import NetworkConfig
from gmmas_schema.vocabulary import MARKERS, MODALITIES, REGIONS, SUBTYPES, Region, Task

if TYPE_CHECKING:
    from gmmas_model.network import GmmasNetwork

FLAVOR_NAME: Final = "gmmas"

_FLOAT, _BOOL = np.dtype(np.float32), np.dtype(bool)


def signature_of(network: NetworkConfig) -> ModelSignature:
    """Return names, types and shapes of what a model takes and gives; -1 is any length."""
    image = TensorSpec(_FLOAT, (-1, len(MODALITIES), -1, -1, -1), name="image")
    present = TensorSpec(_BOOL, (-1, len(MODALITIES)), name="present")
    regions = TensorSpec(_FLOAT, (-1, len(REGIONS), -1, -1, -1), name="regions")
    markers = [TensorSpec(_FLOAT, (-1,), name=str(task)) for task in network.tasks if task in MARKERS]
    subtype = TensorSpec(_FLOAT, (-1, len(SUBTYPES)), name="subtype")
    return ModelSignature(inputs=Schema([image, present]), outputs=Schema([regions, *markers, subtype]))


def save_model(weights_folder: Path, *, path: Path, mlflow_model: Model | None = None) -> None:
    """Write weights as an MLflow model folder.

    Args:
        weights_folder: as written by save_weights.
        path: folder to make.
        mlflow_model: given by MLflow when it logs the model.

    Raises:
        ModelError: the weights cannot be read.
    """
    weights = load_weights(weights_folder)
    model = Model() if mlflow_model is None else mlflow_model
    model.add_flavor(
        FLAVOR_NAME,
        model_digest=weights.definition.digest(),
        weights_sha256=weights.sha256,
        metadata=weights.metadata,
        readable=[str(m) for m in weights.readable],
        untrained=[str(head) for head in weights.untrained],
    )
    model.signature = signature_of(weights.definition.network)
    with tempfile.TemporaryDirectory() as scratch:
        # Only the files of the model: what else lies in a checkpoint's folder is nobody's business here.
        data = Path(scratch) / "weights"
        data.mkdir()
        for name in (*MODEL_FILES, MANIFEST_FILE):
            if (weights_folder / name).exists():
                shutil.copyfile(weights_folder / name, data / name)
        mlflow.pyfunc.save_model(
            path=str(path), loader_module=__name__, data_path=str(data), mlflow_model=model, pip_requirements=_requirements()
        )


def log_model(weights_folder: Path, *, name: str = "model", registered_model_name: str | None = None) -> ModelInfo:
    """Log weights as a model of the active MLflow run, and as a new version of `registered_model_name` where it is given."""
    return Model.log(
        artifact_path=None,
        name=name,
        flavor=sys.modules[__name__],
        registered_model_name=registered_model_name,
        weights_folder=weights_folder,
    )


class PyfuncNetwork:
    """What `mlflow.pyfunc.load_model` returns an interface to.

    Args:
        network: the network.
        temperatures: per head; empty for an uncalibrated model.
        patch: voxels of a window where the network was trained on patches; None predicts an image in one pass.
        untrained: regions and markers that nobody trained.
    """

    def __init__(
        self,
        network: "GmmasNetwork",
        temperatures: Temperatures = MappingProxyType({}),
        *,
        patch: tuple[int, int, int] | None = None,
        untrained: Collection[Region | Task] = (),
    ) -> None:
        self.network, self.temperatures, self.patch, self.untrained = network, temperatures, patch, untrained

    def predict(self, model_input: dict[str, NDArray[Any]], params: dict[str, Any] | None = None) -> dict[str, NDArray[np.float32]]:
        """Return the probabilities of a batch, calibrated where the model is.

        Args:
            model_input: `image` float32 (B, 4, X, Y, Z), normalised as by gmmas_data.preprocessing, and `present` bool (B, 4).
            params: none are known; MLflow passes the argument.

        Returns:
            `regions` (B, 3, X, Y, Z), `idh` (B,), `codeletion` (B,), `grade` and `mgmt` (B,) where the model has such a head, and
            `subtype` (B, 3), all in [0, 1]; NaN for what nobody trained.

        Raises:
            ModelError: a shape does not fit, or a sample has no modality that the model reads.
        """
        del params
        # A coordinator logs models and computes nothing with them: it stays without torch and its memory.
        import torch

        from gmmas_model.calibration import calibrate_prediction
        from gmmas_model.inference import predict_volume

        image_BMXYZ = torch.from_numpy(np.array(model_input["image"], dtype=np.float32))
        present_BM = torch.from_numpy(np.array(model_input["present"], dtype=bool))
        prediction = calibrate_prediction(predict_volume(self.network, image_BMXYZ, present_BM, patch=self.patch), self.temperatures)
        answers: dict[str, NDArray[np.float32]] = {
            "regions": prediction.region_probability().numpy(),
            **{str(task): probability_B.numpy() for task, probability_B in prediction.marker_probabilities().items()},
            "subtype": prediction.subtype_probability().numpy(),
        }
        self._withhold(answers)
        return answers

    def _withhold(self, answers: dict[str, NDArray[np.float32]]) -> None:
        """Put NaN where nobody taught an answer; the signature promises numbers of these names and shapes."""
        for head in self.untrained:
            if isinstance(head, Region):
                answers["regions"][:, REGIONS.index(head)] = np.nan
            else:
                answers[str(head)][:] = np.nan
        if {Task.IDH, Task.CODELETION} & set(self.untrained):
            answers["subtype"][:] = np.nan


def _load_pyfunc(path: str) -> PyfuncNetwork:
    """Return the model of a folder; called by mlflow.pyfunc.load_model."""
    weights = load_weights(Path(path))
    network = make_network(weights, modalities=weights.readable)
    return PyfuncNetwork(network, weights.temperatures, patch=weights.definition.grid.patch, untrained=weights.untrained)


def _requirements() -> list[str]:
    """Return the installed versions that a loaded model rests on, without local build tags such as `+cpu`."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in ("gmmas-fed", "mlflow", "torch")]
