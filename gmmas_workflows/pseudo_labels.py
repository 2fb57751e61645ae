"""Pseudo-labels: what a site's unlabelled cases are taken to be for one round, made by the model as it came.

K Monte-Carlo passes (gmmas_model.uncertainty) give a mean p and a standard deviation s. Accepted is

    a voxel of a region   where p (inside it) or 1 - p (outside) > voxel_confidence and s < voxel_spread, in a case in which some tumour
                          was accepted; what is inside is decided as in any segmentation (gmmas_workflows.evaluation.threshold)
    a case's marker       where max(p, 1 - p) >= case_confidence and s <= case_spread; of the more frequent class only the surest, so that
                          its share stays within twice the odds expected (class-balanced, as in FlexMatch, Zhang et al., NeurIPS 2021)

for targets that are ready, each counting weight * ramp. Regions that a case's own outline tells stay as they are. Tumour core and
enhancing tumour are not believed where no T1ce shows them. What only a mutant has (1p/19q, grade) is not believed of a case taken for
wildtype, of which it would teach nothing; nor of a known mutant that the network is not sure to be one, for P(codeleted) = a b says little
of b where a is small. The labels hold for the whole round, so a student cannot drag them along; nothing of them is kept or sent, only the
counts.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from gmmas_data.samples import Sample
from gmmas_model.batch import Batch
from gmmas_model.inference import predict_volume
from gmmas_model.losses import POSITIVE_SHARE
from gmmas_model.network import GmmasNetwork
from gmmas_model.uncertainty import Uncertain, monte_carlo
from gmmas_schema.federation import SemiSupervisedConfig, TrainingPlan
from gmmas_schema.messages import PseudoLabels, Target
from gmmas_schema.vocabulary import MARKERS, MODALITIES, MUTANT_ONLY, REGIONS, SHOWN_BY_T1CE, Modality, Region, Task
from gmmas_workflows.batches import tells_region
from gmmas_workflows.evaluation import threshold

_BALANCE = 2.0
"""How far the odds of accepted classes may be from those expected."""


@dataclass
class _Tally:
    """Counts of one target while cases come."""

    offered: int = 0
    accepted: int = 0
    positive: int = 0
    negative: int = 0
    units: int = 0
    agreeing: int = 0

    def ledger(self) -> PseudoLabels:
        """Return the counts as they are reported."""
        taken = self.positive + self.negative
        return PseudoLabels(
            offered=self.offered,
            accepted=self.accepted,
            positive=self.positive,
            negative=self.negative,
            share=taken / self.units if self.units else 0.0,
            agreement=self.agreeing / taken if taken else 0.0,
        )


@dataclass
class _Labelled:
    """A case with what was accepted for it; `drawn` where that is a region."""

    sample: Sample
    drawn: bool = False
    uncertain: dict[Task, tuple[float, float]] = field(default_factory=dict)


def make_pseudo_labels(
    network: GmmasNetwork,
    samples: Sequence[Sample],
    plan: TrainingPlan,
    *,
    ready: Mapping[Target, float],
    generator: torch.Generator,
    patch: tuple[int, int, int] | None = None,
    on_case: Callable[[int], None] = lambda _: None,
) -> tuple[list[Sample], dict[Target, PseudoLabels]]:
    """Return the cases that got any pseudo-label, with their own labels kept, and the ledger per ready target.

    Args:
        network: the received model, on the device to compute on.
        samples: the site's training cases; a target that a case is labelled for stays as it is.
        plan: thresholds and precision.
        ready: ramp of every target that is ready.
        generator: source of the Monte-Carlo passes.
        patch: voxels of a window, where the network was trained on patches.
        on_case: called before each case with its place.
    """
    config = plan.semi_supervised
    tallies = {target: _Tally() for target in ready}
    found: list[_Labelled] = []
    if config is None or config.weight == 0 or not ready:
        return [], {}
    for place, sample in enumerate(samples):
        wanted = [target for target in ready if _lacks(sample, target)]
        if not wanted:
            continue
        on_case(place)
        batch = Batch.collate([sample])
        uncertain = monte_carlo(
            network, batch.image_BMXYZ, batch.present_BM, passes=config.passes, generator=generator, patch=patch, precision=plan.precision
        )
        once = predict_volume(network, batch.image_BMXYZ, batch.present_BM, patch=patch, precision=plan.precision)
        labelled = _Labelled(sample)
        regions = [target for target in wanted if isinstance(target, Region)]
        if regions:
            hard_RXYZ = threshold(once.region_probability()[0].cpu().numpy())
            labelled.sample = _label_regions(sample, uncertain, hard_RXYZ, config, {r: ready[r] for r in regions}, tallies)
            labelled.drawn = labelled.sample is not sample
        for task in (target for target in wanted if isinstance(target, Task)):
            tallies[task].offered += 1
            tallies[task].units += 1
            mean, std = float(uncertain.marker_mean[task]), float(uncertain.marker_std[task])
            contradicted = task in MUTANT_ONLY and sample.idh == 1 and float(uncertain.idh_mean_B) < config.case_confidence
            if max(mean, 1 - mean) >= config.case_confidence and std <= config.case_spread and not contradicted:
                labelled.uncertain[task] = (mean, float(once.marker_probabilities()[task]))
        found.append(labelled)
    changed = _label_markers(found, config, ready, tallies)
    return changed, {target: tally.ledger() for target, tally in tallies.items()}


def _lacks(sample: Sample, target: Target) -> bool:
    """Tell whether a case has no label of a target, none that tells it, and one would teach something."""
    if isinstance(target, Region):
        return not tells_region(sample, target)
    if target is Task.IDH and (sample.codeletion == 1 or sample.grade == 0):
        return False  # Only a mutant is codeleted or of low grade.
    return bool(np.isnan(sample.marker(target))) and not (target in MUTANT_ONLY and sample.idh == 0)


def _label_regions(
    sample: Sample,
    uncertain: Uncertain,
    once_RXYZ: NDArray[np.bool_],
    config: SemiSupervisedConfig,
    ramps: Mapping[Region, float],
    tallies: Mapping[Target, _Tally],
) -> Sample:
    """Return the case with pseudo-labelled regions; the case itself where no tumour was accepted."""
    mean_RXYZ, std_RXYZ = uncertain.region_mean_BRXYZ[0].cpu().numpy(), uncertain.region_std_BRXYZ[0].cpu().numpy()
    hard_RXYZ = threshold(mean_RXYZ)
    sure_RXYZ = (np.where(hard_RXYZ, mean_RXYZ, 1 - mean_RXYZ) > config.voxel_confidence) & (std_RXYZ < config.voxel_spread)
    weight_RXYZ = np.zeros(hard_RXYZ.shape, np.float32)
    for place, region in enumerate(REGIONS):
        if tells_region(sample, region):
            assert sample.regions_RXYZ is not None
            hard_RXYZ[place], sure_RXYZ[place] = sample.regions_RXYZ[place], True
            weight_RXYZ[place] = 1 if sample.weight_RXYZ is None else sample.weight_RXYZ[place]
    # Outside of a parent that was drawn there is none of its children, whatever the network says.
    hard_RXYZ = np.logical_and.accumulate(hard_RXYZ, axis=0)
    gated = config.enhancing_gate and not sample.present_M[MODALITIES.index(Modality.T1CE)]
    brain_XYZ = (sample.image_MXYZ[sample.present_M] != 0).any(0)
    some_tumour = bool((hard_RXYZ[0] & sure_RXYZ[0]).any())
    any_accepted = False
    for region, ramp in ramps.items():
        place, tally = REGIONS.index(region), tallies[region]
        tally.offered += 1
        tally.units += int(brain_XYZ.sum())
        if not some_tumour or (gated and region in SHOWN_BY_T1CE) or not sure_RXYZ[place].any():
            continue
        any_accepted = True
        weight_RXYZ[place] = sure_RXYZ[place] * np.float32(config.weight * ramp)
        counted_XYZ = sure_RXYZ[place] & brain_XYZ
        tally.accepted += 1
        tally.positive += int((counted_XYZ & hard_RXYZ[place]).sum())
        tally.negative += int((counted_XYZ & ~hard_RXYZ[place]).sum())
        tally.agreeing += int((counted_XYZ & (hard_RXYZ[place] == once_RXYZ[place])).sum())
    return replace(sample, regions_RXYZ=hard_RXYZ.astype(np.uint8), weight_RXYZ=weight_RXYZ) if any_accepted else sample


def _label_markers(
    found: Sequence[_Labelled], config: SemiSupervisedConfig, ready: Mapping[Target, float], tallies: Mapping[Target, _Tally]
) -> list[Sample]:
    """Return the cases that have any pseudo-label, with those of the markers that balance lets through."""
    accepted: dict[Task, set[int]] = {}
    wildtype: set[int] = set()
    for task in (task for task in MARKERS if task in ready):
        sure = {place: labelled.uncertain[task][0] for place, labelled in enumerate(found) if task in labelled.uncertain}
        if task in MUTANT_ONLY:
            sure = {place: mean for place, mean in sure.items() if place not in wildtype}
        accepted[task] = _balanced(sure, positive_share=POSITIVE_SHARE[task])
        if task is Task.IDH:
            wildtype = {place for place in accepted[task] if sure[place] <= 0.5}
    changed = []
    for place, labelled in enumerate(found):
        values: dict[Task, float] = {}
        for task in (task for task, places in accepted.items() if place in places):
            mean, once = labelled.uncertain[task]
            values[task] = float(mean > 0.5)
            tally = tallies[task]
            tally.accepted += 1
            tally.positive += mean > 0.5
            tally.negative += mean <= 0.5
            tally.agreeing += (mean > 0.5) == (once > 0.5)
        if values or labelled.drawn:
            weights = {task: config.weight * ready[task] for task in values}
            labels = {task.value: value for task, value in values.items()}
            changed.append(replace(labelled.sample, **labels, marker_weight=weights))  # type: ignore[arg-type]
    return changed


def _balanced(probability: Mapping[int, float], *, positive_share: float) -> set[int]:
    """Return the places to keep: of the class that is too frequent only the surest."""
    positive = sorted((place for place, p in probability.items() if p > 0.5), key=lambda place: -probability[place])
    negative = sorted((place for place, p in probability.items() if p <= 0.5), key=lambda place: probability[place])
    odds = positive_share / (1 - positive_share)
    most_positive = max(1, int(_BALANCE * odds * max(len(negative), 1)))
    most_negative = max(1, int(_BALANCE / odds * max(len(positive), 1)))
    return {*positive[:most_positive], *negative[:most_negative]}
