from dataclasses import replace

import numpy as np
import pytest
import torch

from gmmas_model.batch import Batch
from gmmas_model.network import GmmasNetwork
from gmmas_schema.federation import DistillationConfig, TrainingPlan
from gmmas_schema.vocabulary import MODALITIES, Modality, Task
from gmmas_workflows.objective import Objective

FEW = torch.tensor([[False, False, True, False], [True, True, True, True]])
PLAN = TrainingPlan(precision="fp32")


@pytest.fixture
def batch(make_sample) -> Batch:
    return Batch.collate([make_sample(1), make_sample(2)])


def network_of(definition, modalities=MODALITIES) -> GmmasNetwork:
    torch.manual_seed(0)
    return GmmasNetwork(definition.network, modalities=modalities)


def shown(batch: Batch, shown_BM=FEW) -> Batch:
    return Batch(**{**vars(batch), "shown_BM": shown_BM})


def test_a_single_pass_sees_what_is_shown(definition, batch) -> None:
    network = network_of(definition)
    loss = Objective(network, PLAN, modalities=MODALITIES)
    blank = Batch(**{**vars(shown(batch)), "image_BMXYZ": batch.image_BMXYZ.masked_fill(~FEW[:, :, None, None, None], torch.nan)})
    assert torch.equal(loss(shown(batch)).total, loss(blank).total)


def test_a_pair_is_the_mean_of_both(definition, batch) -> None:
    network = network_of(definition)
    single = Objective(network, PLAN, modalities=MODALITIES)
    more, fewer = single(batch).total, single(shown(batch)).total
    weight = 0.1
    pair = Objective(network, PLAN.model_copy(update={"more_fewer_weight": weight}), modalities=MODALITIES)(shown(batch)).total
    assert pair.item() == pytest.approx(((more + fewer) / 2 + weight * torch.relu(more - fewer)).item(), rel=1e-5)


def test_all_shown_leaves_nothing_to_distil(definition, batch) -> None:
    network = network_of(definition)
    plan = PLAN.model_copy(update={"distillation": DistillationConfig()})
    plain = Objective(network, PLAN, modalities=MODALITIES)(batch).total
    assert Objective(network, plan, modalities=MODALITIES)(batch).total.item() == pytest.approx(plain.item(), rel=1e-6)
    assert Objective(network, plan, modalities=MODALITIES)(shown(batch)).total.isfinite()


def test_a_site_with_one_sequence_has_no_pairs(definition, batch) -> None:
    only = (Modality.T2,)
    network = network_of(definition, only)
    one = torch.tensor([[False, False, True, False]] * 2)
    narrow = Batch(**{**vars(batch), "present_BM": one, "shown_BM": one})
    plan = PLAN.model_copy(update={"distillation": DistillationConfig(teacher="ema"), "more_fewer_weight": 0.1})
    assert torch.equal(Objective(network, plan, modalities=only)(narrow).total, Objective(network, PLAN, modalities=only)(narrow).total)


def test_the_moving_average_teacher_is_a_copy_that_follows(definition, batch) -> None:
    network = network_of(definition)
    plan = PLAN.model_copy(update={"distillation": DistillationConfig(teacher="ema", decay=0.5)})
    objective = Objective(network, plan, modalities=MODALITIES)
    before = objective(shown(batch)).total.item()
    with torch.no_grad():
        for parameter in network.heads[Task.SEGMENTATION].parameters():
            parameter.add_(1.0)
    moved = objective(shown(batch)).total.item()
    objective.after_step()
    followed = objective(shown(batch)).total.item()
    assert len({before, moved, followed}) == 3


def test_enhancing_tumour_is_taught_by_what_shows_it(definition, batch) -> None:
    network = network_of(definition)
    plan = PLAN.model_copy(update={"enhancing_needs_t1ce": "sample", "more_fewer_weight": 0.1, "uncertainty_weighting": "fixed"})
    no_t1ce = torch.tensor([[True, False, True, True]] * 2)
    Objective(network, plan, modalities=MODALITIES)(shown(batch, no_t1ce)).total.backward()
    assert network.encoders[Modality.T1CE].stages[0][0].conv1.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("rule", "taught"), [("never", True), ("site", False), ("sample", False)])
def test_without_t1ce_nobody_teaches_the_enhancing_tumour_by_its_own_guess(definition, batch, rule, taught) -> None:
    modalities = tuple(m for m in MODALITIES if m is not Modality.T1CE)
    network = network_of(definition, modalities)
    plan = PLAN.model_copy(update={"distillation": DistillationConfig(confidence=0.5), "enhancing_needs_t1ce": rule})
    present, few = torch.tensor([[True, False, True, True]] * 2), torch.tensor([[True, False, False, False]] * 2)
    none_BR = torch.zeros_like(batch.region_known_BR)
    unlabelled = replace(batch, present_BM=present, shown_BM=few, region_known_BR=none_BR)
    Objective(network, plan, modalities=modalities)(unlabelled).total.backward()
    row_R = network.heads[Task.SEGMENTATION].weight.grad.flatten(1).abs().sum(1)
    assert row_R[:2].all()
    assert bool(row_R[2]) is taught


def test_segmented_cases_are_drawn_to_known_anchors(definition, batch) -> None:
    config = definition.network.model_copy(update={"prototypes": 1})
    torch.manual_seed(0)
    network = GmmasNetwork(config)
    plain, weighed = (Objective(network, PLAN.model_copy(update={"anchor_weight": w}), modalities=MODALITIES) for w in (0.0, 2.0))
    assert torch.equal(weighed(batch).total, plain(batch).total)
    network.anchors.counts_KP.fill_(9.0)
    network.anchors.sums_KPC.normal_(generator=torch.Generator().manual_seed(0))
    assert weighed(batch).total > plain(batch).total
    unlabelled = Batch(**{**vars(batch), "region_known_BR": torch.zeros_like(batch.region_known_BR)})
    assert torch.equal(weighed(unlabelled).total, plain(unlabelled).total)


def test_own_outlines_are_drawn_to_anchors_beside_pseudo_labels(definition, make_sample) -> None:
    """Once a region is ready, every batch holds pseudo-labels; they are left out case by case."""
    torch.manual_seed(0)
    network = GmmasNetwork(definition.network.model_copy(update={"prototypes": 1}))
    network.anchors.counts_KP.fill_(9.0)
    network.anchors.sums_KPC.normal_(generator=torch.Generator().manual_seed(0))
    guessed = replace(make_sample(2), weight_RXYZ=np.full((3, 16, 16, 16), 0.5, np.float32))
    terms = {}
    for name, samples in {"own": [make_sample(1)], "both": [make_sample(1), guessed], "guessed": [guessed]}.items():
        batch = Batch.collate(samples)
        plain, weighed = (Objective(network, PLAN.model_copy(update={"anchor_weight": w}), modalities=MODALITIES) for w in (0.0, 2.0))
        terms[name] = (weighed(batch).total - plain(batch).total).item()
    assert terms["own"] > 0
    assert terms["both"] == pytest.approx(terms["own"], rel=1e-3)
    assert terms["guessed"] == 0


def test_anchors_do_not_depend_on_what_stands_in_an_absent_sequence(definition, make_sample) -> None:
    torch.manual_seed(0)
    network = GmmasNetwork(definition.network.model_copy(update={"prototypes": 1}))
    network.anchors.counts_KP.fill_(9.0)
    network.anchors.sums_KPC.normal_(generator=torch.Generator().manual_seed(0))
    sample = make_sample(1, modalities=(Modality.T2, Modality.FLAIR))
    sample.image_MXYZ[:, :4] = 0
    spoilt = replace(sample, image_MXYZ=np.where(sample.present_M[:, None, None, None], sample.image_MXYZ, np.float32(3)))
    loss = Objective(network, PLAN.model_copy(update={"anchor_weight": 2.0}), modalities=MODALITIES)
    assert torch.equal(loss(Batch.collate([sample])).total, loss(Batch.collate([spoilt])).total)


def test_more_and_fewer_sequences_are_compared_by_the_same_labels(definition, batch) -> None:
    """Without T1ce the enhancing tumour is not asked for; that it is the hardest region does not make all sequences worse than these."""
    network = network_of(definition)
    with torch.no_grad():
        network.heads[Task.SEGMENTATION].bias.copy_(torch.tensor([0.0, 5.0, 5.0]))
    no_t1ce = torch.tensor([[True, False, True, True]] * 2)
    plan = PLAN.model_copy(update={"enhancing_needs_t1ce": "sample", "uncertainty_weighting": "fixed"})
    weight = 10.0
    without, with_ = (
        Objective(network, plan.model_copy(update={"more_fewer_weight": w}), modalities=MODALITIES)(shown(batch, no_t1ce)).total
        for w in (1e-12, weight)
    )
    known = batch.region_known_BR.clone()
    known[:, 2] = False
    same = Batch(**{**vars(batch), "region_known_BR": known})
    alone = Objective(network, PLAN.model_copy(update={"uncertainty_weighting": "fixed"}), modalities=MODALITIES)
    more, fewer = alone(same).total, alone(shown(same, no_t1ce)).total
    assert (with_ - without).item() == pytest.approx(weight * max(0.0, (more - fewer).item()), abs=1e-4)
