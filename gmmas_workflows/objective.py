"""What one training step minimises: the supervised losses, and what ties the predictions from fewer and from more sequences together.

    single pass    L(shown)                                         shown: all sequences, or a random subset (modality dropout)
    pairs          1/2 (L(all) + L(shown)) + w_m max(0, L(all) - sg L(shown)) + distillation(shown, all)

The pair shares one pass through the encoders. The second term is SimMLM's "more versus fewer" (Li et al., arXiv 2507.19264, 2025): all
sequences must not predict worse than a part of them. It moves only the prediction from all (sg: no gradient), for it could also be met by
spoiling the other. Where the network has an adapter, segmented cases are drawn to its anchors besides (gmmas_model.adapter).
"""

from collections.abc import Collection
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor

from gmmas_model.adapter import class_means, contrast_to_anchors
from gmmas_model.batch import Batch
from gmmas_model.distillation import distillation_loss, follow
from gmmas_model.losses import LossTerms, multi_task_loss
from gmmas_model.network import GmmasNetwork
from gmmas_model.precision import autocast
from gmmas_model.prediction import Prediction
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.vocabulary import Modality
from gmmas_workflows.batches import leave_out_enhancing


class Objective:
    """The loss of one site's round.

    Args:
        network: the network in training.
        plan: which terms there are.
        modalities: sequences of the site.
    """

    def __init__(self, network: GmmasNetwork, plan: TrainingPlan, *, modalities: Collection[Modality]) -> None:
        self._network, self._plan, self._modalities = network, plan, modalities
        self._distillation = plan.distillation if len(modalities) > 1 else None
        self._pairs = len(modalities) > 1 and (plan.more_fewer_weight > 0 or self._distillation is not None)
        follows = self._distillation is not None and self._distillation.teacher == "ema"
        self._teacher = deepcopy(network).eval().requires_grad_(requires_grad=False) if follows else None

    def __call__(self, batch: Batch) -> LossTerms:
        """Return the loss of a batch on the network's device."""
        device = batch.image_BMXYZ.device
        if not self._pairs:
            with autocast(device, self._plan.precision):
                fused = self._network.fuse(self._network.encode(batch.image_BMXYZ, batch.shown_BM), batch.shown_BM)
                prediction = self._network.decode(fused)
            terms = self._supervise(prediction, batch, batch.shown_BM)
            return replace(terms, total=terms.total + self._contrast(batch, fused[-1]))
        with autocast(device, self._plan.precision):
            features = self._network.encode(batch.image_BMXYZ, batch.present_BM)
            fused_all = self._network.fuse(features, batch.present_BM)
            fused_shown = self._network.fuse(features, batch.shown_BM)
            from_all, from_shown = self._network.decode(fused_all), self._network.decode(fused_shown)
        more, fewer = self._supervise(from_all, batch, batch.present_BM), self._supervise(from_shown, batch, batch.shown_BM)
        total = (more.total + fewer.total) / 2
        # What the fewer sequences are not asked for, the more are not held to either.
        same = self._supervise(from_all, batch, batch.shown_BM) if self._plan.enhancing_needs_t1ce == "sample" else more
        total = total + self._plan.more_fewer_weight * torch.relu(same.total - fewer.total.detach())
        if self._distillation is not None:
            total = total + self._distil(batch, from_all, from_shown, fused_all[-1], fused_shown[-1])
        total = total + self._contrast(batch, fused_shown[-1])
        tasks = {task: (more.per_task[task] + fewer.per_task[task]) / 2 for task in more.per_task if task in fewer.per_task}
        return LossTerms(total, tasks, fewer.counted)

    def after_step(self) -> None:
        """Let the moving-average teacher follow, where there is one."""
        if self._teacher is not None and self._distillation is not None:
            follow(self._teacher, self._network, decay=self._distillation.decay)

    def _supervise(self, prediction: Prediction, batch: Batch, shown_BM: Tensor) -> LossTerms:
        """Return the losses of one prediction against the labels that its sequences can teach."""
        known = leave_out_enhancing(replace(batch, shown_BM=shown_BM), self._plan.enhancing_needs_t1ce, modalities=self._modalities)
        return multi_task_loss(
            self._network,
            prediction,
            known,
            task_weights=self._plan.task_weights,
            uncertainty_weighting=self._plan.uncertainty_weighting,
        )

    def _contrast(self, batch: Batch, features_BCXYZ: Tensor) -> Tensor | float:
        """Return the contrast to the anchors of the features of cases whose outlines are their own throughout; 0 where there are none."""
        own_B, weight_BRXYZ = batch.region_known_BR.all(1), batch.region_weight_BRXYZ
        rows_K = (own_B if weight_BRXYZ is None else own_B & weight_BRXYZ.eq(1).flatten(1).all(1)).nonzero().squeeze(1)
        if not self._network.config.prototypes or self._plan.anchor_weight == 0 or len(rows_K) == 0:
            return 0.0
        brain_KXYZ = (batch.image_BMXYZ[rows_K].ne(0) & batch.present_BM[rows_K, :, None, None, None]).any(1)
        means = class_means(features_BCXYZ[rows_K], batch.regions_BRXYZ[rows_K], brain_KXYZ)
        return self._plan.anchor_weight * contrast_to_anchors(*means, self._network.anchors)

    def _distil(self, batch: Batch, from_all: Prediction, from_shown: Prediction, all_BCXYZ: Tensor, shown_BCXYZ: Tensor) -> Tensor:
        """Return the distillation of the cases that were not shown whole."""
        assert self._distillation is not None
        teacher_BRXYZ, features_BCXYZ = from_all.region_logits_BRXYZ, all_BCXYZ
        if self._teacher is not None:
            with torch.no_grad(), autocast(batch.image_BMXYZ.device, self._plan.precision):
                fused = self._teacher.fuse(self._teacher.encode(batch.image_BMXYZ, batch.present_BM), batch.present_BM)
                teacher_BRXYZ, features_BCXYZ = self._teacher.decode(fused).region_logits_BRXYZ, fused[-1]
        rows_K = (batch.shown_BM != batch.present_BM).any(1).nonzero().squeeze(1)
        # Of a region that labels may not teach here, the teacher knows nothing either.
        every = replace(batch, region_known_BR=torch.ones_like(batch.region_known_BR))
        taught = leave_out_enhancing(every, self._plan.enhancing_needs_t1ce, modalities=self._modalities)
        return distillation_loss(
            from_shown.region_logits_BRXYZ[rows_K],
            teacher_BRXYZ[rows_K],
            student_features_BCXYZ=shown_BCXYZ[rows_K],
            teacher_features_BCXYZ=features_BCXYZ[rows_K],
            taught_BR=taught.region_known_BR[rows_K],
            config=self._distillation,
        )
