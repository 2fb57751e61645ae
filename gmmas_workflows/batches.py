"""From samples to training batches: which labels a case carries, and seeded drawing.

Modality dropout shows the network a random non-empty subset of a case's sequences, so that one model serves every subset
(Havaei et al., MICCAI 2016, "HeMIS"; Li et al., arXiv 2507.19264, 2025, "SimMLM").

Shapes: B batch, M modality in the order of MODALITIES, R region, X Y Z voxels of the network's grid.
"""

import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch

from gmmas_data.augmentation import augment
from gmmas_data.cutmix import draw_box, exchange
from gmmas_data.patches import random_patch
from gmmas_data.samples import Sample
from gmmas_model.batch import Batch, drop_modalities
from gmmas_schema.errors import DataError
from gmmas_schema.federation import SemiSupervisedConfig, TrainingPlan
from gmmas_schema.messages import LabelCounts
from gmmas_schema.vocabulary import MODALITIES, MUTANT_ONLY, REGIONS, Modality, Region, Task


def has_label(sample: Sample, task: Task) -> bool:
    """Tell whether a case trains a task's head.

    Labels of 1p/19q and grade train probabilities given a mutant, so they count only where the tumour is not known to be IDH-wildtype.
    """
    if task is Task.SEGMENTATION:
        return sample.regions_RXYZ is not None
    return not math.isnan(sample.marker(task)) and (task not in MUTANT_ONLY or sample.idh != 0)


def tells_region(sample: Sample, region: Region) -> bool:
    """Tell whether a case's own outlines tell a region, as those of some cohorts tell the whole tumour only."""
    if sample.regions_RXYZ is None:
        return False
    return sample.weight_RXYZ is None or bool(sample.weight_RXYZ[REGIONS.index(region)].any())


def count_labels(samples: Sequence[Sample], tasks: Collection[Task], *, modalities: Collection[Modality]) -> LabelCounts:
    """Count the cases, and those that train each head.

    Args:
        samples: with labels of their own only.
        tasks: of the network, for a label without a head trains nothing.
        modalities: of the site.
    """
    return LabelCounts.of(
        len(samples),
        {task: [_held(sample) for sample in samples if has_label(sample, task)] for task in tasks},
        [_told(sample) for sample in samples],
        modalities=modalities,
    )


def _held(sample: Sample) -> tuple[Modality, ...]:
    return tuple(m for m, present in zip(MODALITIES, sample.present_M, strict=True) if present)


def _told(sample: Sample) -> tuple[Region, ...]:
    return tuple(region for region in REGIONS if tells_region(sample, region))


def held_modalities(samples: Sequence[Sample], offered: Sequence[Modality]) -> tuple[Modality, ...]:
    """Return the offered modalities that at least one of the samples has.

    Raises:
        DataError: there is none.
    """
    held = {m for sample in samples for m in _held(sample)}
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
        pseudo: cases with pseudo-labels and no outline of their own. They are every second case, or fewer so that none is drawn more
            often than one of `samples`; a share of the pairs with one of each exchanges a box (CutMix).
    """
    rng, dropout = generators(*seed)
    every = [*samples, *pseudo]
    # N / n_m: a sequence that few of the site's cases have is shown alone as often as the others, over a round.
    rarity_M = (len(every) / np.sum([s.present_M for s in every], axis=0).clip(1)).tolist() if every else []
    draws = _draw_turns(samples, pseudo, rng)
    for _ in range(plan.local_steps):
        drawn = [next(draws) for _ in range(plan.batch_size)]
        seen = [each.sample if patch is None else random_patch(each.sample, patch, rng) for each in drawn]
        if samples and pseudo:
            seen = _mix_pairs(seen, [each.is_pseudo for each in drawn], plan.semi_supervised, rng)
        batch = Batch.collate([augment(sample, rng) if plan.augmentation else sample for sample in seen])
        shown_BM = drop_modalities(
            batch.present_BM,
            share=plan.modality_dropout,
            generator=dropout,
            single_share=plan.lagging_share,
            single_weight_M=rarity_M,
        )
        yield replace(batch, shown_BM=shown_BM)


class _Drawn(NamedTuple):
    sample: Sample
    is_pseudo: bool


def _draw_turns(samples: Sequence[Sample], pseudo: Sequence[Sample], rng: np.random.Generator) -> Iterator[_Drawn]:
    """Yield cases of both pools without end: every second one with pseudo-labels, as long as these are no fewer than the others."""
    own = (_Drawn(sample, is_pseudo=False) for sample in _shuffled(samples, rng))
    others = (_Drawn(sample, is_pseudo=True) for sample in _shuffled(pseudo, rng))
    if not samples or not pseudo:
        yield from own if samples else others
        return
    share = min(1.0, 2 * len(pseudo) / (len(pseudo) + len(samples)))
    while True:
        yield next(own)
        yield next(others if share == 1 or rng.random() < share else own)


def _shuffled(pool: Sequence[Sample], rng: np.random.Generator) -> Iterator[Sample]:
    """Yield the samples of a pool without end, in shuffled epochs."""
    while pool:
        for place in rng.permutation(len(pool)).tolist():
            yield pool[place]


def _mix_pairs(
    samples: Sequence[Sample], is_pseudo: Sequence[bool], config: SemiSupervisedConfig | None, rng: np.random.Generator
) -> list[Sample]:
    """Return the samples with a box exchanged in a share of the neighbours of which one has pseudo-labels."""
    mixed = list(samples)
    if config is None or config.cutmix == "none":
        return mixed
    for place in range(0, len(mixed) - 1, 2):
        first, second = mixed[place : place + 2] if is_pseudo[place + 1] else mixed[place : place + 2][::-1]
        if is_pseudo[place] == is_pseudo[place + 1] or rng.random() >= config.cutmix_share:
            continue
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
