"""Pooling of features over the predicted tumour, as sums that add up over windows of one volume.

    level     sum_n s_n p_n x_n / sum_n s_n p_n       p = P(whole tumour), x = fused features, both on the level's voxels
    box       sum_n s_n x_n / sum_n s_n               coarsest level
    regions   log10(v_WT) + 2, v_TC / v_WT, v_ET / v_WT,  v = sum_n s_n p_n / voxels of one window

s_n is the window's share of voxel n: 1 where the volume is one window, and summing to 1 over overlapping windows, so that no voxel
counts twice. Volumes are in units of one window, which is what the heads saw in training, whatever the size of the volume.

Shape suffixes: B batch, R region (WT, TC, ET), C channel, N voxels, F pooled feature, XYZ voxels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_EMPTY = 1e-6
"""Sums below this count as this, so that a box without any tumour has finite features."""


@dataclass(frozen=True)
class PooledSums:
    """Numerators and denominators of the pooled features, fp32.

    Attributes:
        tumour: per level, finest first, (features_BC, weight_B1) summed over the predicted tumour.
        box: (features_BC, weight_11) of the coarsest level, summed over all voxels.
        volume_BR: predicted voxels of each region per voxel of a window.
    """

    tumour: tuple[tuple[Tensor, Tensor], ...]
    box: tuple[Tensor, Tensor]
    volume_BR: Tensor

    def __add__(self, other: Self) -> Self:
        """Return the sums over the windows of both."""
        return type(self)(
            tumour=tuple((x + y, v + w) for (x, v), (y, w) in zip(self.tumour, other.tumour, strict=True)),
            box=(self.box[0] + other.box[0], self.box[1] + other.box[1]),
            volume_BR=self.volume_BR + other.volume_BR,
        )

    def features(self) -> Tensor:
        """Return pooled_BF: every level over the tumour, the coarsest also over the box, and what the regions themselves say."""
        levels = [features_BC / weight_B1.clamp_min(_EMPTY) for features_BC, weight_B1 in self.tumour]
        volume_BR = self.volume_BR.clamp_min(_EMPTY)
        regions_BR = torch.cat([volume_BR[:, :1].log10() + 2, volume_BR[:, 1:] / volume_BR[:, :1]], dim=1)
        return torch.cat([*levels, self.box[0] / self.box[1], regions_BR], dim=1)


def pool_sums(fused_BCXYZ: Sequence[Tensor], probability_BRXYZ: Tensor, *, share_XYZ: Tensor | None = None) -> PooledSums:
    """Return the sums of one window.

    Args:
        fused_BCXYZ: levels, finest first, each at half the resolution of the one before.
        probability_BRXYZ: nested region probabilities at full resolution, fp32, without gradient.
        share_XYZ: the window's share of each voxel; None for all of it.
    """
    if share_XYZ is not None:
        probability_BRXYZ = probability_BRXYZ * share_XYZ
    weight_B1XYZ, tumour = probability_BRXYZ[:, :1], []
    for level, x_BCXYZ in enumerate(fused_BCXYZ):
        weight_B1XYZ = F.avg_pool3d(weight_B1XYZ, 2) if level else weight_B1XYZ
        weight_B1N, x_BNC = weight_B1XYZ.flatten(2), x_BCXYZ.flatten(2).transpose(1, 2)
        tumour.append(((weight_B1N.to(x_BNC.dtype) @ x_BNC).squeeze(1).float(), weight_B1N.sum(2)))
    coarse_BCXYZ = fused_BCXYZ[-1]
    if share_XYZ is None:
        box = coarse_BCXYZ.mean((2, 3, 4)).float(), probability_BRXYZ.new_ones(1, 1)
    else:
        share_11XYZ = F.avg_pool3d(share_XYZ[None, None], 2 ** (len(fused_BCXYZ) - 1))
        box = (coarse_BCXYZ * share_11XYZ).mean((2, 3, 4)).float(), share_11XYZ.mean().reshape(1, 1)
    return PooledSums(tuple(tumour), box, probability_BRXYZ.mean((2, 3, 4)))
