"""From samples to training batches: which labels a case carries, and seeded drawing.

Modality dropout shows the network a random non-empty subset of a case's sequences, so that one model serves every subset
(Havaei et al., MICCAI 2016, "HeMIS"; Li et al., ECCV 2024, "SimMLM").

Shapes: B batch, M modality in the order of MODALITIES, R region, X Y Z voxels of the network's grid.
"""

import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from gmmas_data.augmentation import augment
from gmmas_data.cutmix import draw_box, exchange
from gmmas_data.patches import random_patch
from gmmas_data.samples import Sample
from gmmas_model.batch import Batch, drop_modalities
from gmmas_schema.errors import DataError
from gmmas_schema.federation import SemiSupervisedConfig, TrainingPlan
from gmmas_schema.vocabulary import MODALITIES, MUTANT_ONLY, REGIONS, Modality, Region, Task


def has_label(sample: Sample, task: Task) -> bool:
    """Tell whether a case trains a task's head.

    Labels of 1p/19q and grade train probabilities given a mutant, so they count only where the tumour is not known to be IDH-wildtype.
    """
    if task is Task.SEGMENTATION:
        return sample.regions_RXYZ is not None
    return not math.isnan(sample.marker(task)) and (task not in MUTANT_ONLY or sample.idh != 0)


def count_labels(samples: Sequence[Sample], tasks: Collection[Task]) -> dict[Task, int]:
    """Count the cases that train the head of each of `tasks`: those of the network, for a label without a head trains nothing."""
    return {task: sum(has_label(sample, task) for sample in samples) for task in tasks}


def held_modalities(samples: Sequence[Sample], offered: Sequence[Modality]) -> tuple[Modality, ...]:
    """Return the offered modalities that at least one of the samples has.

    Raises:
        DataError: there is none.
    """
    held = {m for sample in samples for m, present in zip(MODALITIES, sample.present_M, strict=True) if present}
    if not held & set(offered):
        raise DataError(
            "no case has a sequence that this site offers",
            got=f"{len(samples)} cases",
            expected=f"at least one with {' or '.join(offered)}",
            remedy="check data.root and data.modalities in site.yaml",
        )
    return tuple(m for m in MODALITIES if m in held and m in offered)


def restrict(samples: Sequence[Sample], modalities: Collection[Modality]) -> tuple[Sample, ...]:
    """Return the samples as if they had no other sequences than these; a sample that has none of them is left out."""
    kept_M = np.array([m in modalities for m in MODALITIES], dtype=np.bool_)
    return tuple(replace(s, present_M=s.present_M & kept_M) for s in samples if (s.present_M & kept_M).any())


def generators(*parts: object) -> tuple[np.random.Generator, torch.Generator]:
    """Return random generators of NumPy and torch that depend on nothing but `parts`, on any machine and in any process."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    rng = np.random.default_rng(np.frombuffer(digest, dtype="<u4"))
    return rng, torch.Generator().manual_seed(int(rng.integers(2**63)))


def draw_batches(
    samples: Sequence[Sample],
    plan: TrainingPlan,
    *,
    seed: Sequence[object],
    patch: tuple[int, int, int] | None = None,
    pseudo: Sequence[Sample] = (),
) -> Iterator[Batch]:
    """Yield the batches of `plan.local_steps` steps, the same ones for the same `seed`.

    The samples are gone through in shuffled epochs that run on from batch to batch. Of each, the whole box or one random patch of `patch`
    voxels is augmented, and shows all of its sequences or, in a share `plan.modality_dropout` of the draws, a random non-empty subset.

    Args:
        samples: cases with labels of their own.
        plan: steps, batch size and randomness.
        seed: what the draws depend on.
        patch: voxels of a patch; None for the whole box.
        pseudo: cases with pseudo-labels. Where there are both, they take turns, and a share of the pairs exchanges a box (CutMix).
    """
    rng, dropout = generators(*seed)
    every = [*samples, *pseudo]
    # N / n_m: a sequence that few of the site's cases have is shown alone as often as the others, over a round.
    rarity_M = (len(every) / np.sum([s.present_M for s in every], axis=0).clip(1)).tolist() if every else []
    pools = [_Shuffled(pool, rng) for pool in (samples, pseudo) if pool]
    for step in range(plan.local_steps):
        # One odd place, as in a batch of one, goes to either pool in turn.
        drawn = [pools[(step * plan.batch_size + place) % len(pools)].draw() for place in range(plan.batch_size)]
        seen = drawn if patch is None else [random_patch(sample, patch, rng) for sample in drawn]
        if samples and pseudo:
            seen = _mix_pairs(seen, plan.semi_supervised, rng)
        batch = Batch.collate([augment(sample, rng) if plan.augmentation else sample for sample in seen])
        shown_BM = drop_modalities(
            batch.present_BM,
            share=plan.modality_dropout,
            generator=dropout,
            single_share=plan.lagging_share,
            single_weight_M=rarity_M,
        )
        yield replace(batch, shown_BM=shown_BM)


class _Shuffled:
    """Endless draws from a pool, in shuffled epochs."""

    def __init__(self, pool: Sequence[Sample], rng: np.random.Generator) -> None:
        self._pool, self._rng = pool, rng
        self._order: list[int] = []

    def draw(self) -> Sample:
        """Return the next sample."""
        if not self._order:
            self._order = self._rng.permutation(len(self._pool)).tolist()
        return self._pool[self._order.pop(0)]


def _mix_pairs(samples: Sequence[Sample], config: SemiSupervisedConfig | None, rng: np.random.Generator) -> list[Sample]:
    """Return the samples with a box exchanged in a share of the neighbours, of which one has pseudo-labels."""
    mixed = list(samples)
    if config is None or config.cutmix == "none":
        return mixed
    for place in range(0, len(mixed) - 1, 2):
        if rng.random() >= config.cutmix_share:
            continue
        first, second = sorted(mixed[place : place + 2], key=lambda sample: sample.weight_RXYZ is not None)
        pair = exchange(first, second, draw_box(first, config.cutmix, rng))
        if pair is not None:
            mixed[place : place + 2] = pair
    return mixed


def leave_out_enhancing(batch: Batch, rule: Literal["never", "site", "sample"], *, modalities: Collection[Modality]) -> Batch:
    """Return the batch with the enhancing tumour unknown where, by the plan's rule, nothing shows it.

    Enhancement is what contrast agent makes visible. A site without T1ce can only teach how often it is there, and its decoder is averaged
    with those that see it.

    Args:
        batch: as drawn, after modality dropout.
        rule: TrainingPlan.enhancing_needs_t1ce.
        modalities: sequences of the site.
    """
    if rule == "never" or (rule == "site" and Modality.T1CE in modalities):
        return batch
    shown_B = batch.shown_BM[:, MODALITIES.index(Modality.T1CE)]
    known_BR = batch.region_known_BR.clone()
    known_BR[:, REGIONS.index(Region.ET)] &= shown_B
    return replace(batch, region_known_BR=known_BR)
