"""The network as an ONNX file, checked against PyTorch before it is written.

    inputs   image    float32 (batch, 4, x, y, z)   z-scores in the order of MODALITIES; what stands in an absent modality is never read
             present  bool    (batch, 4)            which sequences each case has; at least one
    outputs  regions  float32 (batch, 3, x, y, z)   P(WT), P(TC), P(ET), nested
             idh, codeletion[, grade, mgmt]  float32 (batch)   probabilities
             subtype  float32 (batch, 3)            probabilities in the order of SUBTYPES

A sequence that the model was never trained on counts as absent, whatever `present` says. An output that nobody trained is there, for
the signature is that of the definition; onnx.json names it (`untrained`), and its numbers mean nothing.

Batch and axes are free (each axis a multiple of what the levels halve). Calibrated temperatures are part of the graph. It is the network
alone: preprocessing is gmmas_data.preprocessing's, and a model that was trained on patches expects windows of that size.

The check: for every subset of the modalities, ONNX Runtime and PyTorch answer the same image, with NaN in ONNX Runtime's absent
channels. Two probabilities p and q agree if |p - q| <= TOLERANCE max(q (1 - q), 0.001), which is how far q moves where its logit moves
by TOLERANCE.

Shape suffixes: B batch, M modality, XYZ voxels.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from gmmas_model.calibration import calibrate_prediction
from gmmas_model.inference import predict_probabilities
from gmmas_model.network import GmmasNetwork
from gmmas_model.traceable import NO_TEMPERATURES, TraceableNetwork, output_names
from gmmas_model.weights import Weights, make_network
from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.calibration import Temperatures
from gmmas_schema.errors import ModelError
from gmmas_schema.vocabulary import MODALITIES, REGIONS, SUBTYPES, Modality
from gmmas_workflows.evaluation import subsets
from gmmas_workflows.inference import readable_modalities

if TYPE_CHECKING:
    import onnx

ONNX_FILE: Final = "model.onnx"
RECORD_FILE: Final = "onnx.json"
OPSET: Final = 20

TOLERANCE: Final = 0.002
"""Largest difference of a logit; at a probability of one half it is 0.0005, half of the last decimal of a prediction's maps."""

_NEARLY_CERTAIN: Final = 1e-3

Progress = Callable[[int, int], None]


class OnnxCheck(FrozenModel):
    """How the ONNX file was compared with PyTorch, and what came out.

    Attributes:
        tolerance: largest difference of a logit that is accepted; `largest` is what was found.
        subsets: subsets of the modalities that were compared.
        shapes: (batch, x, y, z) of the images.
    """

    tolerance: float
    largest: float = Field(ge=0)
    subsets: int
    shapes: tuple[tuple[int, ...], ...]
    versions: dict[str, str]


class OnnxIdentity(FrozenModel):
    """What the ONNX file is; also in its own metadata, as gmmas.<name>.

    Attributes:
        modalities: order of the channels; `readable` are those that the model has a trained encoder for.
        outputs: their order.
        untrained: regions, and outputs, that nobody trained.
        spacing_mm: edge of a voxel of the network's grid.
        window: voxels that the network saw at a time in training; each axis of an image must be a `multiple_of`.
        temperatures: built into the graph.
    """

    modalities: tuple[str, ...]
    readable: tuple[str, ...]
    regions: tuple[str, ...]
    subtypes: tuple[str, ...]
    outputs: tuple[str, ...]
    untrained: tuple[str, ...] = ()
    spacing_mm: float
    window: tuple[int, int, int]
    multiple_of: int
    temperatures: dict[str, float]
    model_digest: str
    weights_sha256: str
    software: str
    notice: str = "Research use only. Not a medical device."


class OnnxRecord(OnnxIdentity):
    """Contents of onnx.json."""

    check: OnnxCheck


def write_onnx(folder: Path, weights: Weights, *, on_progress: Progress | None = None) -> OnnxRecord:
    """Write model.onnx and onnx.json into a folder, after the check.

    Args:
        folder: exists.
        weights: the model.
        on_progress: called with (done, total) comparisons.

    Raises:
        ModelError: ONNX Runtime does not answer as PyTorch does; nothing was written.
    """
    network = make_network(weights, modalities=readable_modalities(weights))
    identity = _identify(weights, network)
    model = trace_network(network, temperatures=weights.temperatures)
    for name, value in identity.model_dump(mode="json").items():
        model.metadata_props.add(key=f"gmmas.{name}", value=value if isinstance(value, str) else json.dumps(value))
    content = model.SerializeToString(deterministic=True)
    window = weights.definition.grid.window
    check = compare(content, network, window=window, temperatures=weights.temperatures, on_progress=on_progress)
    record = OnnxRecord(**identity.model_dump(), check=check)
    write_atomic(folder / ONNX_FILE, content, mode=0o644)
    write_atomic(folder / RECORD_FILE, record.model_dump_json(indent=2).encode() + b"\n", mode=0o644)
    return record


def _identify(weights: Weights, network: GmmasNetwork) -> OnnxIdentity:
    return OnnxIdentity(
        modalities=MODALITIES,
        readable=network.modalities,
        regions=REGIONS,
        subtypes=SUBTYPES,
        outputs=output_names(network.config),
        untrained=(*map(str, weights.untrained), *(() if weights.tells_subtype else ("subtype",))),
        spacing_mm=weights.definition.grid.spacing_mm,
        window=weights.definition.grid.window,
        multiple_of=2 ** (len(network.config.channels) - 1),
        temperatures={str(head): value for head, value in weights.temperatures.items()},
        model_digest=weights.definition.digest(),
        weights_sha256=weights.sha256,
        software=f"gmmas-fed {version('gmmas-fed')}",
    )


def trace_network(network: GmmasNetwork, *, temperatures: Temperatures = NO_TEMPERATURES) -> "onnx.ModelProto":
    """Return the network as an ONNX model with free batch and axes."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    factor = 2 ** (len(network.config.channels) - 1)
    # Sizes above one that differ, so that the tracer takes none of them for fixed or for equal.
    image_BMXYZ = torch.zeros(2, len(MODALITIES), 3 * factor, 4 * factor, 5 * factor)
    batch = torch.export.Dim("batch", min=1)
    axes = {2 + place: factor * torch.export.Dim(name, min=2) for place, name in enumerate("xyz")}
    with _quiet_exporter():
        program = torch.onnx.export(
            TraceableNetwork(network, temperatures=temperatures),
            (image_BMXYZ, torch.ones(2, len(MODALITIES), dtype=torch.bool)),
            dynamo=True,
            input_names=["image", "present"],
            output_names=list(output_names(network.config)),
            dynamic_shapes={"image_BMXYZ": {0: batch, **axes}, "present_BM": {0: batch}},
            custom_translation_table={torch.ops.aten.cumprod.default: _cumulative_product},
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None
    # The exporter notes down the source lines, with this machine's paths, of every operation.
    ClearMetadataAndDocStringPass()(program.model)
    return program.model_proto


def compare(
    content: bytes,
    network: GmmasNetwork,
    *,
    window: tuple[int, int, int],
    temperatures: Temperatures = NO_TEMPERATURES,
    on_progress: Progress | None = None,
) -> OnnxCheck:
    """Ask ONNX Runtime and PyTorch the same, for every subset of the modalities the network reads.

    All subsets go as one batch of small images; the window itself is tried with all modalities, and with the fewest.

    Args:
        content: a serialised ONNX model.
        network: in evaluation mode, on the CPU.
        window: voxels that the network sees at a time.
        temperatures: that the ONNX model was made with.
        on_progress: called with (done, total) subsets.

    Raises:
        ModelError: the answers differ by more than TOLERANCE, or one is not finite.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    factor = 2 ** (len(network.config.channels) - 1)
    small = tuple(min(4 * factor, side) for side in window)
    shown = subsets(network.modalities)
    cases: list[tuple[tuple[int, ...], Sequence[tuple[Modality, ...]]]] = [(small, [subset]) for subset in shown]
    cases += [(small, shown), (tuple(window), [shown[0]]), (tuple(window), [shown[-1]])]
    largest, generator = 0.0, torch.Generator().manual_seed(0)
    for done, (shape, chosen) in enumerate(cases):
        present_BM = torch.tensor([[m in subset for m in MODALITIES] for subset in chosen])
        image_BMXYZ = torch.randn(len(chosen), len(MODALITIES), *shape, generator=generator)
        found = _ask_onnx(session, image_BMXYZ, present_BM)
        expected = _ask_torch(network, image_BMXYZ, present_BM, temperatures)
        largest = max(largest, *(_deviation(found[name], expected[name]) for name in expected))
        if not largest <= TOLERANCE:
            raise ModelError(
                "ONNX Runtime does not answer as PyTorch does",
                where=f"{len(chosen)} images of {shape} voxels, sequences {' '.join('+'.join(subset) for subset in chosen)}",
                got=f"logits that differ by {largest:.2g}",
                expected=f"at most {TOLERANCE}",
                remedy="nothing was written; install the versions that this release was tested with (constraints.txt)",
            )
        if on_progress is not None:
            on_progress(done + 1, len(cases))
    versions = {name: version(name) for name in ("torch", "onnx", "onnxruntime")}
    return OnnxCheck(
        tolerance=TOLERANCE,
        largest=largest,
        subsets=len(shown),
        shapes=tuple(sorted({(len(chosen), *shape) for shape, chosen in cases})),
        versions=versions,
    )


def _ask_onnx(session: Any, image_BMXYZ: Tensor, present_BM: Tensor) -> dict[str, NDArray[np.float32]]:
    """Return ONNX Runtime's outputs by name; it is shown NaN where a modality is absent."""
    spoilt_BMXYZ = image_BMXYZ.masked_fill(~present_BM[:, :, None, None, None], torch.nan)
    names = [output.name for output in session.get_outputs()]
    outputs = session.run(names, {"image": spoilt_BMXYZ.numpy(), "present": present_BM.numpy()})
    return dict(zip(names, outputs, strict=True))


def _ask_torch(network: GmmasNetwork, image_BMXYZ: Tensor, present_BM: Tensor, temperatures: Temperatures) -> Mapping[str, NDArray[Any]]:
    """Return what the network itself says, by output name."""
    prediction = calibrate_prediction(predict_probabilities(network, image_BMXYZ, present_BM), temperatures)
    markers = {str(task): probability_B for task, probability_B in prediction.marker_probabilities().items()}
    answers = {"regions": prediction.region_probability(), **markers, "subtype": prediction.subtype_probability()}
    return {name: value.numpy() for name, value in answers.items()}


def _deviation(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference as one of logits; infinity for a shape that differs or a value that is not finite."""
    if found.shape != expected.shape or not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return float("inf")
    slope = np.maximum(expected * (1 - expected), _NEARLY_CERTAIN)
    return float((np.abs(found - expected) / slope).max())


def _cumulative_product(values: Any, dim: int, dtype: int | None = None) -> Any:
    """Return torch.cumprod over the three regions for the exporter, which does not know it."""
    from onnxscript import opset20

    del dtype
    first, *rest = opset20.Split(values, axis=dim, num_outputs=len(REGIONS))
    products = [first]
    for value in rest:
        products.append(opset20.Mul(products[-1], value))
    return opset20.Concat(*products, axis=dim)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter, which warns of its own insides and of torchvision, which nothing here uses."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
