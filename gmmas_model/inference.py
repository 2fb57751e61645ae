"""Prediction without gradients, for one box of the network's grid."""

from typing import Literal

import torch
from torch import Tensor

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
    training = network.training
    network.eval()
    try:
        with torch.inference_mode(), autocast(image_BMXYZ.device, precision):
            prediction: Prediction = network(image_BMXYZ, present_BM)
            return prediction
    finally:
        network.train(training)
