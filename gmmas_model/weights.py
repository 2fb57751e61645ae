"""Weights on disk: `model.safetensors` and `model.json`, nothing that can hold code; `calibration.json` once the model is calibrated.

`model.json` names the model definition and the SHA-256 of `model.safetensors`, and is written last. Each file appears as a whole
(temporary file, fsync, rename), so a reader finds a matching pair or is told that it is not one. `calibration.json` names the same
SHA-256: a calibration belongs to exact weights, and that of others is refused.

`model.json` also says which encoders and heads were ever trained (gmmas_schema.trained_parts). Weights that do not say so count as trained
throughout.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors import SafetensorError

from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.calibration import CALIBRATION_FILE, Calibration
from gmmas_schema.errors import ModelError
from gmmas_schema.groups import group_of
from gmmas_schema.model import ModelDefinition
from gmmas_schema.trained_parts import HEADS, TrainedParts
from gmmas_schema.vocabulary import MODALITIES, Modality, Region, Task

if TYPE_CHECKING:
    from gmmas_model.network import GmmasNetwork

TENSORS_FILE: Final = "model.safetensors"
RECORD_FILE: Final = "model.json"


class WeightsRecord(FrozenModel):
    """Contents of model.json."""

    definition: ModelDefinition
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="of model.safetensors")
    metadata: dict[str, str] = Field(default_factory=dict)
    trained: TrainedParts | None = Field(default=None, description="what anybody ever trained; None where that is not known")


@dataclass(frozen=True)
class Weights:
    """A model's tensors and what they mean.

    Attributes:
        tensors: float32 by name, as in GmmasNetwork.state_dict().
        definition: the model they belong to.
        sha256: of the tensors' file; names these exact weights.
        metadata: where they come from (run, round, ...).
        calibration: temperatures and thresholds of these weights; None where the model was never calibrated.
        trained: what anybody ever trained of them; None where that is not known, and they count as trained throughout.
    """

    tensors: dict[str, NDArray[np.float32]]
    definition: ModelDefinition
    sha256: str
    metadata: dict[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None
    trained: TrainedParts | None = None

    @property
    def temperatures(self) -> dict[Region | Task, float]:
        """Temperature per head; empty for a model that was never calibrated."""
        return {} if self.calibration is None else self.calibration.temperatures

    @property
    def readable(self) -> tuple[Modality, ...]:
        """Sequences that the model reads: it has an encoder of them, and somebody trained it."""
        groups = {group_of(name) for name in self.tensors}
        return tuple(m for m in MODALITIES if f"encoder.{m}" in groups and (self.trained is None or m in self.trained.modalities))

    @property
    def untrained(self) -> tuple[Region | Task, ...]:
        """Regions and markers whose answers are not to be told, for nobody trained their heads or those that they rest on."""
        if self.trained is None:
            return ()
        tasks = self.definition.network.tasks
        return tuple(head for head in HEADS if (isinstance(head, Region) or head in tasks) and not self.trained.tells(head))

    @property
    def tells_subtype(self) -> bool:
        """Whether the subtype, which follows from IDH and 1p/19q, may be told."""
        return not {Task.IDH, Task.CODELETION} & set(self.untrained)


def save_weights(
    folder: Path,
    tensors: Mapping[str, NDArray[np.float32]],
    definition: ModelDefinition,
    *,
    metadata: Mapping[str, str] | None = None,
    trained: TrainedParts | None = None,
    write: Callable[[Path, bytes], None] = write_atomic,
) -> str:
    """Write weights into a folder, which is made where it is missing.

    Args:
        folder: where the two files go; older ones are replaced, and a calibration of older ones is removed.
        tensors: float32 by name.
        definition: the model they belong to.
        metadata: plain text about their origin; never about a patient.
        trained: what anybody ever trained of them; None where that is not known.
        write: puts the tensors' file on the disk.

    Returns:
        The SHA-256 of the tensors' file; the same tensors give the same digest.

    Raises:
        ModelError: a tensor is not float32 or not finite.
    """
    _check_values(tensors, where=folder)
    # Safetensors writes memory as it lies, and torch's channels-last tensors do not lie in the order of their axes.
    data = safetensors.numpy.save({name: np.asarray(value, order="C") for name, value in sorted(tensors.items())})
    record = WeightsRecord(definition=definition, sha256=hashlib.sha256(data).hexdigest(), metadata=dict(metadata or {}), trained=trained)
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / TENSORS_FILE, data)
    # Without the key where nothing is known: the record of an older release is written as it was, byte for byte, and its manifest holds.
    unknown = {"trained"} if trained is None else None
    write_atomic(folder / RECORD_FILE, record.model_dump_json(indent=2, exclude=unknown).encode() + b"\n")
    (folder / CALIBRATION_FILE).unlink(missing_ok=True)
    return record.sha256


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Put a calibration beside the weights it belongs to.

    Raises:
        ModelError: there are no weights, or others.
    """
    try:
        record = WeightsRecord.model_validate_json((folder / RECORD_FILE).read_bytes())
    except (OSError, ValidationError) as error:
        raise _unreadable(folder, got=_describe(error)) from error
    _check_calibration(calibration, record.sha256, where=folder)
    write_atomic(folder / CALIBRATION_FILE, calibration.model_dump_json(indent=2).encode() + b"\n")


def load_weights(folder: Path, *, read: Callable[[Path], bytes] = Path.read_bytes) -> Weights:
    """Read weights and check them against their digest, and their calibration if there is one.

    Args:
        folder: where they lie.
        read: returns the tensors' file.

    Raises:
        ModelError: a file is missing, damaged or of another version, a tensor is not float32 or not finite, or the calibration is that
            of other weights.
    """
    try:
        record = WeightsRecord.model_validate_json((folder / RECORD_FILE).read_bytes())
        data = read(folder / TENSORS_FILE)
    except (OSError, ValidationError) as error:
        raise _unreadable(folder, got=_describe(error)) from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != record.sha256:
        raise _unreadable(folder, got=f"{TENSORS_FILE} with SHA-256 {digest[:12]}", expected=f"SHA-256 {record.sha256[:12]}")
    try:
        tensors = safetensors.numpy.load(data)
    except (SafetensorError, KeyError) as error:
        raise _unreadable(folder, got=f"{TENSORS_FILE}: {error}") from error
    _check_values(tensors, where=folder)
    calibration = _read_calibration(folder, digest)
    return Weights(tensors, record.definition, digest, metadata=record.metadata, calibration=calibration, trained=record.trained)


def load_network(folder: Path, *, modalities: Collection[Modality] | None = None) -> "GmmasNetwork":
    """Read weights into a network for `modalities`, by default those that the model reads, on the CPU, in evaluation mode.

    Raises:
        ModelError: the weights cannot be read or are not those of their definition.
    """
    weights = load_weights(folder)
    return make_network(weights, modalities=weights.readable if modalities is None else modalities)


def make_network(weights: Weights, *, modalities: Collection[Modality] = MODALITIES) -> "GmmasNetwork":
    """Return a network for `modalities`, on the CPU, in evaluation mode, with the tensors it needs out of `weights`.

    Raises:
        ModelError: a tensor is missing, unknown, or of another shape.
    """
    # Only here, so that a coordinator can read and write weights without torch's 200 MB.
    from gmmas_model.network import GmmasNetwork

    network = GmmasNetwork(weights.definition.network, modalities=modalities)
    absent = tuple(f"{part}.{m}." for part in ("encoders", "gates") for m in MODALITIES if m not in network.modalities)
    load_tensors(network, {name: value for name, value in weights.tensors.items() if not name.startswith(absent)})
    return network.eval()


def load_tensors(network: "GmmasNetwork", tensors: Mapping[str, NDArray[np.float32]]) -> None:
    """Copy tensors into a network; exactly its own names and shapes.

    Raises:
        ModelError: a tensor is missing, unknown, or of another shape; all faults are counted and the first is named.
    """
    import torch

    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in tensors.items()}
    faults = [f"{name} is missing" for name in own.keys() - given.keys()]
    faults += [f"{name} is not part of the network" for name in given.keys() - own.keys()]
    faults += [f"{name} has shape {given[name]}, not {own[name]}" for name in own.keys() & given.keys() if given[name] != own[name]]
    if faults:
        raise ModelError(
            "the tensors do not fit the network",
            where=f"network of {', '.join(network.modalities)}",
            got=f"{len(faults)} faults, first: {min(faults)}",
            expected="the tensors of the same model definition and the same sequences",
            remedy="use the same software version and model definition on both sides",
        )
    network.load_state_dict({name: torch.from_numpy(np.array(value, dtype=np.float32, order="C")) for name, value in tensors.items()})


def _check_values(tensors: Mapping[str, NDArray[np.float32]], *, where: Path) -> None:
    for name, value in tensors.items():
        if value.dtype != np.float32 or not np.isfinite(value).all():
            raise ModelError(
                "a weight is not a finite float32 number",
                where=where,
                got=f"{name} of dtype {value.dtype}" + ("" if value.dtype != np.float32 else " with nan or infinity"),
                expected="finite float32 values",
                remedy="go back to the last good round",
            )


def _read_calibration(folder: Path, sha256: str) -> Calibration | None:
    """Return the calibration that lies beside weights, or None."""
    try:
        calibration = Calibration.model_validate_json((folder / CALIBRATION_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise _unreadable(folder, got=_describe(error, CALIBRATION_FILE), expected=f"a {CALIBRATION_FILE} as it was written") from error
    _check_calibration(calibration, sha256, where=folder)
    return calibration


def _check_calibration(calibration: Calibration, sha256: str, *, where: Path) -> None:
    if calibration.weights_sha256 != sha256:
        raise ModelError(
            "the calibration is that of other weights",
            where=where / CALIBRATION_FILE,
            got=f"weights {calibration.weights_sha256[:12]}",
            expected=f"weights {sha256[:12]}",
            remedy="copy the whole folder of the model, or remove the file to use the model uncalibrated",
        )


def _describe(error: OSError | ValidationError, file: str = RECORD_FILE) -> str:
    if isinstance(error, OSError):
        return f"{type(error).__name__} for {Path(error.filename or '').name}"
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{file} with {error.error_count()} faults, first: {'.'.join(map(str, first['loc'])) or 'whole file'}: {first['msg']}"


def _unreadable(folder: Path, *, got: str, expected: str = f"{TENSORS_FILE} and {RECORD_FILE} of one model") -> ModelError:
    return ModelError("weights cannot be read", where=folder, got=got, expected=expected, remedy="copy the folder again from its origin")
