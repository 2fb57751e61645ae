"""Losses on partial labels: every term is taken over what is known, and a task nobody labelled leaves no trace.

Regions, per known region r with probability p and mask y, sums over the voxels of all samples that know r:

    L_r = 1 - (2 sum p y + c) / (sum p + sum y + c) + mean BCE(p, y)

The Dice sums run over the batch and c is a voxel count, so an empty mask still has a gradient (towards no tumour). Where voxels have
weights w (pseudo-labels), every sum is one of w times its terms, and the cross-entropy is still divided by the number of voxels.

Molecular labels, with a = P(IDH mutant) and b = P(codeleted given mutant), follow the likelihood of the factorised model: an IDH label
trains a. A 1p/19q label trains b where the patient is known to be mutant and the marginal a b where IDH is unknown. A wildtype
patient is intact by construction, so 1p/19q adds nothing there. Grade works the same way, with P(low-grade given mutant) for b; MGMT
by itself, as IDH. Each is a focal binary cross-entropy (Lin et al., ICCV 2017) with label smoothing and fixed class weights; the sum
is divided by the number of labels, never by their weights, which would cancel at batch 1.

Tasks are weighed by homoscedastic uncertainty (Kendall et al., CVPR 2018), total = sum_t y_t 1/2 (exp(-s_t) (L_t + d) + s_t). y_t
masks both terms, else a site without task t drives s_t to minus infinity; d bounds s_t below by log d as L_t goes to 0.

Shape suffixes: B batch, R region, XYZ voxels, K samples or labels that are known.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, cast

import torch
from torch import Tensor

from gmmas_model.batch import Batch
from gmmas_model.network import GmmasNetwork
from gmmas_model.prediction import Prediction, chain_log_probability
from gmmas_schema.federation import LOSS_FLOOR
from gmmas_schema.vocabulary import MARKERS, Task

DICE_SMOOTHING_VOXELS: Final = 10.0
LABEL_SMOOTHING: Final = 0.05
FOCAL_EXPONENT: Final = 2.0
POSITIVE_SHARE: Final = {Task.IDH: 0.35, Task.CODELETION: 0.4, Task.GRADE: 0.55, Task.MGMT: 0.5}
"""Expected share of mutants and of methylated among patients, and of codeleted and of high-grade among mutants; constants, so that every
site minimises the same loss."""


@dataclass(frozen=True)
class LossTerms:
    """Loss of one batch.

    Attributes:
        total: scalar to minimise; 0 and without influence on any parameter where nothing is labelled.
        per_task: loss of each labelled task before the tasks are weighed, detached; pseudo-labels count in it what they weigh.
        counted: labelled samples per task of the network.
    """

    total: Tensor
    per_task: dict[Task, Tensor]
    counted: dict[Task, int]


def multi_task_loss(
    network: GmmasNetwork,
    prediction: Prediction,
    batch: Batch,
    *,
    uncertainty_weighting: Literal["learned", "closed_form", "fixed"] = "learned",
    task_weights: Mapping[Task, float] | None = None,
) -> LossTerms:
    """Return the weighted sum of the losses of all tasks with labels in the batch, computed in fp32.

    Args:
        network: holder of the log-variances `uncertainty.<task>`.
        prediction: the network's output for `batch`.
        batch: the labels.
        uncertainty_weighting: `learned`; `closed_form` takes the log-variances as they are; `fixed` for exp(-s_t) = 1.
        task_weights: fixed factor per task; 1 where not given.
    """
    losses = {task: _LOSSES[task](prediction, batch) for task in network.config.tasks}
    # A leaf of its own: backward() works on an unlabelled batch and leaves every parameter's gradient None.
    total = torch.zeros((), device=batch.image_BMXYZ.device, requires_grad=True)
    for task, (loss, counted) in losses.items():
        if counted:
            log_variance = cast(Tensor, network.uncertainty[task])
            if uncertainty_weighting == "closed_form":
                log_variance = log_variance.detach()
            weighed = loss if uncertainty_weighting == "fixed" else 0.5 * ((-log_variance).exp() * (loss + LOSS_FLOOR) + log_variance)
            total = total + (task_weights or {}).get(task, 1.0) * weighed
    return LossTerms(
        total=total,
        per_task={task: loss.detach() for task, (loss, counted) in losses.items() if counted},
        counted={task: counted for task, (_, counted) in losses.items()},
    )


def segmentation_loss(prediction: Prediction, batch: Batch) -> tuple[Tensor, int]:
    """Return the mean over the known regions of Dice loss + cross-entropy, and the number of samples with a known region."""
    rows_K = batch.region_known_BR.any(1).nonzero().squeeze(1)
    logits_KRXYZ, truth_KRXYZ, known_KR = (x[rows_K] for x in (prediction.region_logits_BRXYZ, batch.regions_BRXYZ, batch.region_known_BR))
    log_p_KRXYZ, log_not_p_KRXYZ = chain_log_probability(logits_KRXYZ.float(), dim=1)
    losses = []
    for region in range(known_KR.shape[1]):
        known_K = known_KR[:, region]
        if bool(known_K.any()):
            log_p_KXYZ, log_not_p_KXYZ = log_p_KRXYZ[known_K, region], log_not_p_KRXYZ[known_K, region]
            truth_KXYZ = truth_KRXYZ[known_K, region].float()
            p_KXYZ, log_likelihood_KXYZ = log_p_KXYZ.exp(), torch.lerp(log_not_p_KXYZ, log_p_KXYZ, truth_KXYZ)
            weighted_KXYZ = truth_KXYZ
            if batch.region_weight_BRXYZ is not None:
                weight_KXYZ = batch.region_weight_BRXYZ[rows_K][known_K, region]
                p_KXYZ, weighted_KXYZ = weight_KXYZ * p_KXYZ, weight_KXYZ * truth_KXYZ
                log_likelihood_KXYZ = weight_KXYZ * log_likelihood_KXYZ
            overlap, size = (p_KXYZ * truth_KXYZ).sum(), p_KXYZ.sum() + weighted_KXYZ.sum()
            dice = (2 * overlap + DICE_SMOOTHING_VOXELS) / (size + DICE_SMOOTHING_VOXELS)
            losses.append(1 - dice - log_likelihood_KXYZ.mean())
    return (torch.stack(losses).mean() if losses else logits_KRXYZ.new_zeros(())), len(rows_K)


def idh_loss(prediction: Prediction, batch: Batch) -> tuple[Tensor, int]:
    """Return the focal loss of P(IDH mutant) and the number of labels."""
    return _plain_loss(prediction.idh_logit_B, batch.idh_B, _weight(batch, Task.IDH), positive_share=POSITIVE_SHARE[Task.IDH])


def codeletion_loss(prediction: Prediction, batch: Batch) -> tuple[Tensor, int]:
    """Return the focal loss of 1p/19q (see the module docstring) and the number of labels that carry information."""
    share = POSITIVE_SHARE[Task.CODELETION]
    weight_B = _weight(batch, Task.CODELETION)
    return _mutant_only_loss(prediction, prediction.codeletion_logit_B, batch.codeletion_B, batch.idh_B, weight_B, positive_share=share)


def grade_loss(prediction: Prediction, batch: Batch) -> tuple[Tensor, int]:
    """Return the focal loss of the grade (see the module docstring) and the number of labels that carry information.

    Low grade is what needs a mutant, so it is the positive class of the chain.
    """
    assert prediction.grade_logit_B is not None, "the network has no grade head"
    share = 1 - POSITIVE_SHARE[Task.GRADE]
    weight_B = _weight(batch, Task.GRADE)
    return _mutant_only_loss(prediction, -prediction.grade_logit_B, 1 - batch.grade_B, batch.idh_B, weight_B, positive_share=share)


def mgmt_loss(prediction: Prediction, batch: Batch) -> tuple[Tensor, int]:
    """Return the focal loss of P(MGMT promoter methylated) and the number of labels."""
    assert prediction.mgmt_logit_B is not None, "the network has no MGMT head"
    return _plain_loss(prediction.mgmt_logit_B, batch.mgmt_B, _weight(batch, Task.MGMT), positive_share=POSITIVE_SHARE[Task.MGMT])


def _weight(batch: Batch, task: Task) -> Tensor:
    """Return weight_B, what each case's label of a marker counts."""
    return torch.ones_like(batch.idh_B) if batch.marker_weight_BK is None else batch.marker_weight_BK[:, MARKERS.index(task)]


def _plain_loss(logit_B: Tensor, truth_B: Tensor, weight_B: Tensor, *, positive_share: float) -> tuple[Tensor, int]:
    """Return the focal loss of a marker that stands by itself, and the number of labels."""
    rows_K = (~truth_B.isnan()).nonzero().squeeze(1)
    log_p_K1, log_not_p_K1 = chain_log_probability(logit_B[rows_K, None].float(), dim=1)
    return focal_loss(log_p_K1[:, 0], log_not_p_K1[:, 0], truth_B[rows_K], weight_B[rows_K], positive_share=positive_share), len(rows_K)


def _mutant_only_loss(
    prediction: Prediction, logit_B: Tensor, truth_B: Tensor, idh_B: Tensor, weight_B: Tensor, *, positive_share: float
) -> tuple[Tensor, int]:
    """Return the focal loss of a marker whose positive class only a mutant has, and the number of labels of patients not known wildtype.

    Args:
        prediction: holder of P(IDH mutant).
        logit_B: logit of P(positive given mutant).
        truth_B: 1 positive, 0 negative, nan unknown.
        idh_B: 1 mutant, 0 wildtype, nan unknown.
        weight_B: what each label counts.
        positive_share: expected share of positives among mutants.
    """
    rows_K = (~truth_B.isnan() & (idh_B != 0)).nonzero().squeeze(1)
    idh_logit_K, logit_K = prediction.idh_logit_B[rows_K].float(), logit_B[rows_K].float()
    log_b_K1, log_not_b_K1 = chain_log_probability(logit_K[:, None], dim=1)
    log_ab_K2, log_not_ab_K2 = chain_log_probability(torch.stack([idh_logit_K, logit_K], dim=1), dim=1)
    mutant_K = idh_B[rows_K] == 1
    log_p_K = torch.where(mutant_K, log_b_K1[:, 0], log_ab_K2[:, 1])
    log_not_p_K = torch.where(mutant_K, log_not_b_K1[:, 0], log_not_ab_K2[:, 1])
    return focal_loss(log_p_K, log_not_p_K, truth_B[rows_K], weight_B[rows_K], positive_share=positive_share), len(rows_K)


def focal_loss(
    log_p_K: Tensor, log_not_p_K: Tensor, truth_K: Tensor, label_weight_K: Tensor | None = None, *, positive_share: float
) -> Tensor:
    """Return the mean class-balanced focal cross-entropy with label smoothing; 0 without labels.

    Args:
        log_p_K: log probability of the positive class.
        log_not_p_K: log probability of the negative class.
        truth_K: 1 positive, 0 negative.
        label_weight_K: what each label counts, 1 by default; the sum is divided by the number of labels all the same.
        positive_share: expected share of positives; the classes weigh 1/2 over their share.
    """
    weight_K = torch.where(truth_K == 1, 0.5 / positive_share, 0.5 / (1 - positive_share))
    if label_weight_K is not None:
        weight_K = label_weight_K * weight_K
    smooth_K = truth_K * (1 - LABEL_SMOOTHING) + LABEL_SMOOTHING / 2
    positive_K = smooth_K * (FOCAL_EXPONENT * log_not_p_K).exp() * log_p_K
    negative_K = (1 - smooth_K) * (FOCAL_EXPONENT * log_p_K).exp() * log_not_p_K
    return -(weight_K * (positive_K + negative_K)).sum() / max(len(truth_K), 1)


_LOSSES: Final[Mapping[Task, Callable[[Prediction, Batch], tuple[Tensor, int]]]] = MappingProxyType(
    {
        Task.SEGMENTATION: segmentation_loss,
        Task.IDH: idh_loss,
        Task.CODELETION: codeletion_loss,
        Task.GRADE: grade_loss,
        Task.MGMT: mgmt_loss,
    }
)
