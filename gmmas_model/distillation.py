"""Self-distillation between subsets of sequences: what the network says from few learns from what it says from all.

    L = w_p T^2 mean_v KL(teacher || student at temperature T)   over voxels v of which the teacher is sure, per conditional region
      + w_f (1 - mean_v cos(z_student, z_teacher))               over the voxels of the bottleneck

A region's conditional logit counts at a voxel by the teacher's probability of the region around it, for inside a tumour that is not there
the inner regions mean nothing, and only in cases where the teacher can tell the region at all (gmmas_workflows.objective). The teacher is
never moved by this loss.

Hinton, Vinyals and Dean, 2015 (temperature); Tarvainen and Valpola, NeurIPS 2017 (moving-average teacher); Zhang et al., ICCV 2019 (a
network as its own teacher).

Shape suffixes: B batch, R region, C channel, XYZ voxels.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from gmmas_schema.federation import DistillationConfig


def distillation_loss(
    student_BRXYZ: Tensor,
    teacher_BRXYZ: Tensor,
    *,
    student_features_BCXYZ: Tensor,
    teacher_features_BCXYZ: Tensor,
    taught_BR: Tensor,
    config: DistillationConfig,
) -> Tensor:
    """Return the loss of one batch, a scalar in fp32; 0 without cases.

    Args:
        student_BRXYZ: conditional region logits from a subset of sequences.
        teacher_BRXYZ: the same from all sequences; detached here.
        student_features_BCXYZ: fused bottleneck features of the student.
        teacher_features_BCXYZ: of the teacher; detached here.
        taught_BR: regions that the student is to learn from the teacher, bool.
        config: weights, temperature and confidence.
    """
    student_BRXYZ, teacher_BRXYZ = student_BRXYZ.float(), teacher_BRXYZ.detach().float()
    if len(student_BRXYZ) == 0:
        return student_BRXYZ.new_zeros(())
    probability_BRXYZ = teacher_BRXYZ.sigmoid()
    around_BRXYZ = torch.cat([torch.ones_like(probability_BRXYZ[:, :1]), probability_BRXYZ.cumprod(1)[:, :-1]], dim=1)
    sure_BRXYZ = torch.maximum(probability_BRXYZ, 1 - probability_BRXYZ) > config.confidence
    weight_BRXYZ = around_BRXYZ * sure_BRXYZ * taught_BR[:, :, None, None, None]
    divergence_BRXYZ = bernoulli_divergence(teacher_BRXYZ / config.temperature, student_BRXYZ / config.temperature)
    divergence = (weight_BRXYZ * divergence_BRXYZ).sum((0, 2, 3, 4)) / weight_BRXYZ.sum((0, 2, 3, 4)).clamp_min(1.0)
    cosine_BXYZ = F.cosine_similarity(student_features_BCXYZ.float(), teacher_features_BCXYZ.detach().float(), dim=1)
    prediction = config.temperature**2 * divergence.mean()
    return config.prediction_weight * prediction + config.feature_weight * (1 - cosine_BXYZ.mean())


def bernoulli_divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Return KL(s(teacher) || s(student)) element by element from logits, exact for any finite logit and never below 0."""
    p = teacher.sigmoid()
    divergence = p * (F.logsigmoid(teacher) - F.logsigmoid(student)) + (1 - p) * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return divergence.clamp_min(0)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, *, decay: float) -> None:
    """Move every parameter of the teacher towards the student: t <- decay t + (1 - decay) s."""
    for behind, ahead in zip(teacher.parameters(), student.parameters(), strict=True):
        behind.lerp_(ahead, 1 - decay)
