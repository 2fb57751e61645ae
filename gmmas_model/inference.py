"""Prediction without gradients, for one box of the network's grid."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from gmmas_model.network import GmmasNetwork
from gmmas_model.precision import autocast
from gmmas_model.prediction import Prediction


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
