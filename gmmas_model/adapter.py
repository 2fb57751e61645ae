"""Distillation adapter: completes the bottleneck of a case that lacks sequences, by looking at what complete cases look like.

    z' = z + gamma * (missing / 4) * MHA(Q = LN(z) + E(present), K = V = anchors)          gamma = 0 at the start

Anchors are prototypes of the bottleneck features of background, necrosis, oedema and enhancing tumour, averaged over patients with all four
sequences at all hospitals that have them. With all sequences the factor is 0, so that nothing is corrected there by construction, where the
reference design penalises it. Without any known anchor, z' = z.

Anchors are kept as sums over patients and numbers of patients, which add up over hospitals (strategies.anchors); a prototype is used where
MIN_PATIENTS or more stand behind it. After GMMAS's adaptation module (arXiv 2501.17758); contrast to prototypes: van den Oord et al.,
2018 (InfoNCE).

Shape suffixes: B batch, C channel, K tissue class, P prototype of a class, A = K * P anchors, N voxels of the bottleneck, XYZ voxels.
"""

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from gmmas_schema.groups import MIN_ANCHOR_PATIENTS
from gmmas_schema.vocabulary import MODALITIES

CLASSES: Final = ("background", "necrosis", "oedema", "enhancing")
CONTRAST_TEMPERATURE: Final = 0.1


class Anchors(nn.Module):
    """Sums of features and numbers of patients per class and prototype; buffers, never moved by a gradient."""

    sums_KPC: Tensor
    counts_KP: Tensor

    def __init__(self, channels: int, *, prototypes: int) -> None:
        super().__init__()
        self.register_buffer("sums_KPC", torch.zeros(len(CLASSES), prototypes, channels))
        self.register_buffer("counts_KP", torch.zeros(len(CLASSES), prototypes))

    def known(self) -> Tensor:
        """Return known_KP, bool: prototypes that enough patients stand behind."""
        return self.counts_KP >= MIN_ANCHOR_PATIENTS

    def prototypes(self) -> Tensor:
        """Return prototype_KPC; zeros where nobody stands behind one."""
        return self.sums_KPC / self.counts_KP.clamp_min(1.0)[..., None]


class AnchorAdapter(nn.Module):
    """Attention of the bottleneck's voxels to the anchors."""

    def __init__(self, channels: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.pattern = nn.Linear(len(MODALITIES), channels, bias=False)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, z_BCXYZ: Tensor, present_BM: Tensor, anchors: Anchors) -> Tensor:
        """Return the completed features, in the shape and dtype of `z_BCXYZ`."""
        known_A = anchors.known().flatten()
        anchor_AC = anchors.prototypes().flatten(0, 1)
        missing_B = (~present_BM).to(z_BCXYZ.dtype).mean(1)
        z_BNC = z_BCXYZ.flatten(2).transpose(1, 2)
        q_BNC = self.query(self.norm(z_BNC) + self.pattern(present_BM.to(z_BNC.dtype))[:, None])
        k_AC, v_AC = self.key_value(anchor_AC).chunk(2, dim=1)
        q_BHND = q_BNC.unflatten(2, (self.heads, -1)).transpose(1, 2)
        k_HAD, v_HAD = (t.unflatten(1, (self.heads, -1)).transpose(0, 1).to(q_BHND.dtype) for t in (k_AC, v_AC))
        logit_BHNA = q_BHND @ k_HAD.transpose(1, 2) / q_BHND.shape[-1] ** 0.5
        # Unknown anchors get no weight; were all unknown, the softmax would have nothing to share out, so they are put back to zero after.
        weight_BHNA = logit_BHNA.float().masked_fill(~known_A, torch.finfo(torch.float32).min).softmax(3) * known_A
        seen_BNC = (weight_BHNA.to(v_HAD.dtype) @ v_HAD).transpose(1, 2).flatten(2)
        correction_BNC = self.gamma * missing_B[:, None, None] * self.out(seen_BNC) * known_A.any()
        completed: Tensor = z_BCXYZ + correction_BNC.transpose(1, 2).reshape(z_BCXYZ.shape).to(z_BCXYZ.dtype)
        return completed


def class_means(z_BCXYZ: Tensor, regions_BRXYZ: Tensor, brain_BXYZ: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean bottleneck features of each tissue class of each case, and which classes a case has.

    Args:
        z_BCXYZ: bottleneck features.
        regions_BRXYZ: nested 0/1 masks on the network's grid, a whole number of its voxels to one of the bottleneck's.
        brain_BXYZ: 0/1 mask of the brain on the network's grid.

    Returns:
        mean_BKC in fp32, and there_BK, bool; the mean of a class that is not there is 0.
    """
    wt_BXYZ, tc_BXYZ, et_BXYZ = regions_BRXYZ.float().unbind(1)
    masks_BKXYZ = torch.stack([brain_BXYZ.float() * (1 - wt_BXYZ), tc_BXYZ - et_BXYZ, wt_BXYZ - tc_BXYZ, et_BXYZ], dim=1)
    x, y, z = z_BCXYZ.shape[2:]
    share_BKN = F.adaptive_avg_pool3d(masks_BKXYZ, (x, y, z)).flatten(2)
    total_BK = share_BKN.sum(2)
    mean_BKC = (share_BKN / total_BK.clamp_min(1e-6)[..., None]) @ z_BCXYZ.float().flatten(2).transpose(1, 2)
    return mean_BKC, total_BK > 0


def contrast_to_anchors(mean_BKC: Tensor, there_BK: Tensor, anchors: Anchors) -> Tensor:
    """Return the InfoNCE loss that draws each class's features to its nearest anchor and away from those of other classes.

    0 where fewer than two classes have a known anchor, for there is nothing to tell apart.
    """
    known_KP = anchors.known()
    usable_K = known_KP.any(1)
    rows = (there_BK & usable_K).nonzero()
    if int(usable_K.sum()) < 2 or len(rows) == 0:
        return mean_BKC.new_zeros(())
    similarity_BKKP = torch.einsum("bkc,jpc->bkjp", F.normalize(mean_BKC, dim=2), F.normalize(anchors.prototypes(), dim=2))
    best_BKK = similarity_BKKP.masked_fill(~known_KP, -torch.inf).amax(3)[:, :, usable_K] / CONTRAST_TEMPERATURE
    place_K = usable_K.cumsum(0) - 1
    return F.cross_entropy(best_BKK[rows[:, 0], rows[:, 1]], place_K[rows[:, 1]])
