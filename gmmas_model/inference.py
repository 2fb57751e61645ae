"""Prediction without gradients: of one box in one pass, of a volume by overlapping windows, and averaged over mirror images.

Shape suffixes: B batch, M modality (order of MODALITIES), R region (order of REGIONS), S subtype, C channel, XYZ voxels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from gmmas_model.calibration import calibrate_prediction
from gmmas_model.network import GmmasNetwork
from gmmas_model.pooling import PooledSums
from gmmas_model.precision import autocast
from gmmas_model.prediction import Prediction
from gmmas_model.windows import Place, lay_windows
from gmmas_schema.calibration import Temperatures
from gmmas_schema.inference import OVERLAP, Flip
from gmmas_schema.vocabulary import REGIONS, Task

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

Precision = Literal["auto", "bf16", "fp32"]

_NO_TUMOUR_LOGIT = -10.0
"""Region logit of voxels in no window: all of these lie outside the brain."""


@dataclass(frozen=True)
class Probabilities:
    """What is said about a batch, fp32, on the device of the image.

    Attributes:
        regions_BRXYZ: nested region probabilities.
        subtype_BS: in the order of SUBTYPES; linear in P(mutant) and P(codeleted), so averages of the three agree.
        markers: probability_B of every marker there is a head for.
    """

    regions_BRXYZ: Tensor
    subtype_BS: Tensor
    markers: dict[Task, Tensor]


def predict_probabilities(
    network: GmmasNetwork,
    image_BMXYZ: Tensor,
    present_BM: Tensor,
    *,
    precision: Precision = "fp32",
) -> Prediction:
    """Return the prediction in evaluation mode; the network's own mode is left as it was.

    Args:
        network: on the device of the inputs.
        image_BMXYZ: normalised intensities in the order of MODALITIES.
        present_BM: bool.
        precision: fp32 by default, so a result does not depend on the machine's bf16.

    Raises:
        ModelError: as in GmmasNetwork.forward.
    """
    with evaluation_mode(network), torch.inference_mode(), autocast(image_BMXYZ.device, precision):
        prediction: Prediction = network(image_BMXYZ, present_BM)
        return prediction


def predict_volume(
    network: GmmasNetwork,
    image_BMXYZ: Tensor,
    present_BM: Tensor,
    *,
    patch: tuple[int, int, int] | None = None,
    overlap: float = OVERLAP,
    precision: Precision = "fp32",
    on_progress: Progress | None = None,
) -> Prediction:
    """Return the prediction for a whole volume: in one pass, or by overlapping windows where the network was trained on patches.

    Region logits of windows are averaged with Gaussian weights. The molecular heads answer once, to features averaged over the tumour
    of all windows. Where the volume is one window, the result is that of predict_probabilities, bit for bit.

    Args:
        network: on the device to compute on.
        image_BMXYZ: normalised intensities in the order of MODALITIES, 0 outside the brain. Results are kept on its device, so a volume
            on the CPU takes no more of an accelerator's memory than one window does.
        present_BM: bool, on the same device.
        patch: voxels of a window (GridConfig.patch); None for the whole volume.
        overlap: share of a window's side that the next window covers again.
        precision: fp32 by default, so a result does not depend on the machine's bf16.
        on_progress: called with (done, total) windows.

    Raises:
        ModelError: as in GmmasNetwork.forward and lay_windows.
    """
    home, device = image_BMXYZ.device, next(network.parameters()).device
    tiling = lay_windows(image_BMXYZ, present_BM, patch=patch, overlap=overlap)
    logits_BRXYZ = torch.zeros(len(image_BMXYZ), len(REGIONS), *image_BMXYZ.shape[2:], device=home)
    pooled: PooledSums | None = None
    with evaluation_mode(network), torch.inference_mode(), autocast(device, precision):
        for done, (place, share_XYZ) in enumerate(tiling):
            window_BMXYZ, present = image_BMXYZ[(..., *place)].to(device), present_BM.to(device)
            fused = network.fuse(network.encode(window_BMXYZ, present), present)
            window_BRXYZ, sums = network.segment(fused, share_XYZ=None if share_XYZ is None else share_XYZ.to(device))
            blend_window(logits_BRXYZ, window_BRXYZ, place, share_XYZ)
            pooled = sums if pooled is None else pooled + sums
            if on_progress is not None:
                on_progress(done + 1, len(tiling))
        assert pooled is not None
        if tiling.weights is not None:
            logits_BRXYZ.masked_fill_(tiling.weights[1] == 0, _NO_TUMOUR_LOGIT)
        return _moved(network.classify(logits_BRXYZ, pooled), home)


def predict_mirrored(
    network: GmmasNetwork,
    image_BMXYZ: Tensor,
    present_BM: Tensor,
    *,
    flip: Flip = Flip.NONE,
    temperatures: Temperatures = MappingProxyType({}),
    patch: tuple[int, int, int] | None = None,
    overlap: float = OVERLAP,
    precision: Precision = "fp32",
    on_progress: Progress | None = None,
) -> Probabilities:
    """Return calibrated probabilities, averaged over the mirror images of a volume.

    Args:
        network: as in predict_volume.
        image_BMXYZ: as in predict_volume.
        present_BM: as in predict_volume.
        flip: which mirror images.
        temperatures: of a calibrated model; they go in before probabilities are averaged.
        patch: as in predict_volume.
        overlap: as in predict_volume.
        precision: as in predict_volume.
        on_progress: called with (done, total) windows of all mirror images.

    Raises:
        ModelError: as in predict_volume.
    """
    sums: list[Tensor] = []
    tasks: list[Task] = []
    for number, axes in enumerate(flip.axes):
        report = progress_of_part(on_progress, number, len(flip.axes))
        mirrored = mirror(image_BMXYZ, axes)
        raw = predict_volume(network, mirrored, present_BM, patch=patch, overlap=overlap, precision=precision, on_progress=report)
        prediction = calibrate_prediction(raw, temperatures) if temperatures else raw
        markers = prediction.marker_probabilities()
        tasks = list(markers)
        values = [mirror(prediction.region_probability(), axes), prediction.subtype_probability(), *markers.values()]
        sums = values if not sums else [total + value for total, value in zip(sums, values, strict=True)]
    regions_BRXYZ, subtype_BS, *marker_B = (total / len(flip.axes) for total in sums)
    return Probabilities(regions_BRXYZ, subtype_BS, dict(zip(tasks, marker_B, strict=True)))


def blend_window(total_BRXYZ: Tensor, window_BRXYZ: Tensor, place: Place, share_XYZ: Tensor | None) -> None:
    """Add a window's share to a volume, in fp32 on the volume's device."""
    window_BRXYZ = window_BRXYZ.float().to(total_BRXYZ.device)
    total_BRXYZ[(..., *place)] += window_BRXYZ if share_XYZ is None else window_BRXYZ * share_XYZ


def mirror(volume_BCXYZ: Tensor, axes: Sequence[int]) -> Tensor:
    """Return the volume mirrored along some of its axes X, Y, Z, counted from 0."""
    return volume_BCXYZ.flip([2 + axis for axis in axes]) if axes else volume_BCXYZ


def progress_of_part(on_progress: Progress | None, part: int, parts: int) -> Progress | None:
    """Return what one of several equal parts of a work reports to."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(part * total + done, parts * total)


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Hold a network in evaluation mode; afterwards every part of it is in the mode it was in."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _moved(prediction: Prediction, device: torch.device) -> Prediction:
    """Return the prediction on a device."""
    tensors = {field.name: getattr(prediction, field.name) for field in fields(prediction)}
    return replace(prediction, **{name: tensor.to(device) for name, tensor in tensors.items() if tensor is not None})
