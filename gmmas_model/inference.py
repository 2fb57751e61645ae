"""Prediction without gradients: of one box in one pass, and of a volume by overlapping windows.

Shape suffixes: B batch, M modality (order of MODALITIES), R region (order of REGIONS), XYZ voxels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Literal

import torch
from torch import Tensor, nn

from gmmas_model.network import GmmasNetwork
from gmmas_model.pooling import PooledSums
from gmmas_model.precision import autocast
from gmmas_model.prediction import Prediction
from gmmas_model.windows import OVERLAP, lay_windows
from gmmas_schema.vocabulary import REGIONS

Progress = Callable[[int, int], None]
"""Called with (done, total)."""

_NO_TUMOUR_LOGIT = -10.0
"""Region logit of voxels in no window: all of these lie outside the brain."""


def predict_probabilities(
    network: GmmasNetwork,
    image_BMXYZ: Tensor,
    present_BM: Tensor,
    *,
    precision: Literal["auto", "bf16", "fp32"] = "fp32",
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
    precision: Literal["auto", "bf16", "fp32"] = "fp32",
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
    if patch is None or patch == tuple(image_BMXYZ.shape[2:]):
        whole = predict_probabilities(network, image_BMXYZ.to(device), present_BM.to(device), precision=precision)
        if on_progress is not None:
            on_progress(1, 1)
        return _moved(whole, home)
    tiling = lay_windows(image_BMXYZ, present_BM, patch=patch, overlap=overlap)
    logits_BRXYZ = torch.zeros(len(image_BMXYZ), len(REGIONS), *image_BMXYZ.shape[2:], device=home)
    pooled: PooledSums | None = None
    with evaluation_mode(network), torch.inference_mode(), autocast(device, precision):
        for done, (place, share_XYZ) in enumerate(tiling):
            window_BMXYZ, present = image_BMXYZ[(..., *place)].to(device), present_BM.to(device)
            fused = network.fuse(network.encode(window_BMXYZ, present), present)
            region_logits_BRXYZ, sums = network.segment(fused, share_XYZ=share_XYZ.to(device))
            logits_BRXYZ[(..., *place)] += region_logits_BRXYZ.float().to(home) * share_XYZ
            pooled = sums if pooled is None else pooled + sums
            if on_progress is not None:
                on_progress(done + 1, len(tiling.places))
        logits_BRXYZ.masked_fill_(tiling.coverage_XYZ == 0, _NO_TUMOUR_LOGIT)
        assert pooled is not None
        return _moved(network.classify(logits_BRXYZ, pooled), home)


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
