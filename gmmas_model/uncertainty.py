"""How sure the network is: Monte-Carlo passes with dropped features, their means, spreads and entropy.

    p_k = network(features * mask_k / (1 - d)),   mask_k ~ Bernoulli(1 - d) per case, level and channel
    mean = 1/K sum_k p_k,   std = sqrt(1/(K-1) sum_k (p_k - mean)^2),   entropy = H(mean classes) / log 4

Gal and Ghahramani, ICML 2016 (dropout at prediction as approximate posterior); whole channels are dropped, since neighbouring voxels of one
channel say the same (Tompson et al., CVPR 2015). The encoders and the fusion run once: only the decoder and the heads are repeated. The
network itself is trained without feature dropout, so the spread ranks voxels and cases; it is not a posterior variance.

Shape suffixes: B batch, M modality (order of MODALITIES), R region (WT, TC, ET), C channel, XYZ voxels.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gmmas_model.inference import evaluation_mode
from gmmas_model.network import GmmasNetwork
from gmmas_model.precision import autocast
from gmmas_schema.errors import ModelError


@dataclass(frozen=True)
class Uncertain:
    """Mean and standard deviation of probabilities over Monte-Carlo passes, fp32 on the device of the input, without gradient.

    Attributes:
        region_mean_BRXYZ: probability of the nested regions; never rising from WT to TC to ET.
        region_std_BRXYZ: standard deviation of that probability, at most 0.71.
        idh_mean_B: P(IDH mutant).
        idh_std_B: its standard deviation.
        codeletion_mean_B: P(1p/19q codeleted), not conditional; never above `idh_mean_B`.
        codeletion_std_B: its standard deviation.
    """

    region_mean_BRXYZ: Tensor
    region_std_BRXYZ: Tensor
    idh_mean_B: Tensor
    idh_std_B: Tensor
    codeletion_mean_B: Tensor
    codeletion_std_B: Tensor


class RunningMoments:
    """Mean and spread of tensors that come one at a time (Welford, Technometrics 1962: no difference of nearly equal sums)."""

    def __init__(self) -> None:
        self._count = 0
        self._mean = torch.empty(0)
        self._squares = torch.empty(0)

    def add(self, value: Tensor) -> None:
        """Take in one value; all have one shape."""
        self._count += 1
        if self._count == 1:
            self._mean, self._squares = value.clone(), torch.zeros_like(value)
            return
        before = value - self._mean
        self._mean += before / self._count
        self._squares += before * (value - self._mean)

    def mean(self) -> Tensor:
        """Return the mean of what came."""
        return self._mean

    def std(self) -> Tensor:
        """Return the sample standard deviation; 0 for a single value."""
        return (self._squares / max(self._count - 1, 1)).sqrt()


def monte_carlo(
    network: GmmasNetwork,
    image_BMXYZ: Tensor,
    present_BM: Tensor,
    *,
    passes: int = 6,
    dropout: float = 0.2,
    generator: torch.Generator,
    precision: Literal["auto", "bf16", "fp32"] = "auto",
) -> Uncertain:
    """Return what the network says on average, and how far its answers spread, when features are dropped at random.

    The result depends on the generator's state alone; torch's global generator and the network's mode stay as they were.

    Args:
        network: on the device of the inputs.
        image_BMXYZ: normalised intensities in the order of MODALITIES.
        present_BM: bool, as in GmmasNetwork.forward.
        passes: Monte-Carlo passes, 2 or more.
        dropout: share of fused channels dropped in each pass, in (0, 1).
        generator: source of randomness, on any device.
        precision: of the forward passes.

    Raises:
        ModelError: `passes` or `dropout` out of bounds, or as in GmmasNetwork.forward.
    """
    check_passes(passes, dropout)
    regions, idh, codeletion = RunningMoments(), RunningMoments(), RunningMoments()
    # Not inference_mode: the caller may use the means as targets of a loss, which tensors of that mode refuse.
    with evaluation_mode(network), torch.no_grad(), autocast(image_BMXYZ.device, precision):
        fused = network.fuse(network.encode(image_BMXYZ, present_BM), present_BM)
        for dropped in drop_channels(fused, passes=passes, dropout=dropout, generator=generator):
            prediction = network.decode(dropped)
            regions.add(prediction.region_probability())
            idh.add(prediction.idh_probability())
            codeletion.add(prediction.codeletion_probability())
    return Uncertain(regions.mean(), regions.std(), idh.mean(), idh.std(), codeletion.mean(), codeletion.std())


def predictive_entropy(probability_BRXYZ: Tensor) -> Tensor:
    """Return entropy_BXYZ in [0, 1] of the four classes that nested regions tell apart: none, WT without TC, TC without ET, ET."""
    outer_BRXYZ = torch.cat([torch.ones_like(probability_BRXYZ[:, :1]), probability_BRXYZ], dim=1)
    inner_BRXYZ = torch.cat([probability_BRXYZ, torch.zeros_like(probability_BRXYZ[:, :1])], dim=1)
    classes_BKXYZ = (outer_BRXYZ - inner_BRXYZ).clamp_min(0)
    return -torch.xlogy(classes_BKXYZ, classes_BKXYZ).sum(1) / math.log(classes_BKXYZ.shape[1])


def drop_channels(levels_BCXYZ: Sequence[Tensor], *, passes: int, dropout: float, generator: torch.Generator) -> Iterator[list[Tensor]]:
    """Yield the levels `passes` times, each time with other channels set to zero and the rest scaled by 1 / (1 - dropout)."""
    for _ in range(passes):
        yield [x_BCXYZ * _channel_mask(x_BCXYZ, dropout=dropout, generator=generator) for x_BCXYZ in levels_BCXYZ]


def check_passes(passes: int, dropout: float) -> None:
    """Refuse settings without a spread.

    Raises:
        ModelError: fewer than 2 passes, or a dropout outside (0, 1).
    """
    if passes < 2 or not 0 < dropout < 1:
        raise ModelError(
            "Monte-Carlo passes would have no spread",
            got=f"passes {passes}, dropout {dropout}",
            expected="2 passes or more, dropout between 0 and 1",
            remedy="take for instance 8 passes with a dropout of 0.2",
        )


def _channel_mask(x_BCXYZ: Tensor, *, dropout: float, generator: torch.Generator) -> Tensor:
    """Return factors_BC111: 0 or 1 / (1 - dropout)."""
    drawn_BC = torch.rand(x_BCXYZ.shape[:2], generator=generator, device=generator.device)
    factors_BC = (drawn_BC >= dropout).to(x_BCXYZ.device, x_BCXYZ.dtype) / (1 - dropout)
    return factors_BC[:, :, None, None, None]
