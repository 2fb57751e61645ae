"""Masked gated fusion of the modalities that are there, at one level of the encoders.

    z_m   = g(f_m) + a_m           -inf where m is absent
    w     = softmax_m z
    mean  = sum_m w_m f_m          spread = sqrt(sum_m w_m (f_m - mean)^2 + e) - sqrt(e)
    fused = conv1x1 [mean ; spread]

g is shared by all modalities and a_m is the modality's own bias. The spread is that of HeMIS (Havaei et al., MICCAI 2016); it is
exactly zero, with a finite gradient, where one modality is present.

Shape suffixes: B batch, M modality, C channel, XYZ voxels.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

_EPSILON = 1e-6


class GateBias(nn.Module):
    """A modality's bias of the gate logits, one value per level."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(levels))


class MaskedFusion(nn.Module):
    """Fusion of one level."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Conv3d(channels, 1, 1, bias=False)
        self.mix = nn.Conv3d(2 * channels, channels, 1)

    def forward(self, features_BCXYZ: Sequence[Tensor], bias_M: Tensor, present_BM: Tensor) -> Tensor:
        """Fuse the features of M modalities.

        Args:
            features_BCXYZ: one tensor per modality; zeros for the samples that lack it.
            bias_M: gate bias of each of these modalities.
            present_BM: which sample has which of these modalities; at least one each.

        Returns:
            fused_BCXYZ.
        """
        weight_BMXYZ = self.weigh(features_BCXYZ, bias_M, present_BM)
        # Widened to every channel, and in memory: elementwise products of one layout take half the time of broadcast ones.
        weights_BCXYZ = [
            w_B1XYZ.expand_as(features_BCXYZ[0]).contiguous(memory_format=torch.channels_last_3d)
            for w_B1XYZ in weight_BMXYZ.chunk(len(features_BCXYZ), dim=1)
        ]
        mean_BCXYZ = _sum_products(weights_BCXYZ, features_BCXYZ)
        variance_BCXYZ = _sum_products(weights_BCXYZ, [(f - mean_BCXYZ).square() for f in features_BCXYZ])
        # sqrt(e) is taken in the dtype of the variance, so that the difference is exactly zero at variance zero.
        spread_BCXYZ = (variance_BCXYZ + _EPSILON).sqrt() - variance_BCXYZ.new_tensor(_EPSILON).sqrt()
        return cast(Tensor, self.mix(torch.cat([mean_BCXYZ, spread_BCXYZ], dim=1)))

    def weigh(self, features_BCXYZ: Sequence[Tensor], bias_M: Tensor, present_BM: Tensor) -> Tensor:
        """Return the gate's weights w as weight_BMXYZ; they sum to 1 over M, and an absent modality has 0. Arguments as in forward."""
        logit_BMXYZ = torch.cat([self.gate(f) for f in features_BCXYZ], dim=1).float() + bias_M[:, None, None, None]
        logit_BMXYZ = logit_BMXYZ.masked_fill(~present_BM[:, :, None, None, None], -torch.inf)
        return logit_BMXYZ.softmax(1).to(features_BCXYZ[0].dtype)


def _sum_products(left: Sequence[Tensor], right: Sequence[Tensor]) -> Tensor:
    """Return sum_m left_m * right_m."""
    total = left[0] * right[0]
    for a, b in zip(left[1:], right[1:], strict=True):
        total = total + a * b
    return total
