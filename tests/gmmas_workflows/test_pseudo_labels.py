"""Thresholds on made-up Monte-Carlo results, then the real thing with a network that has learned the easy task."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gmmas_model.network import GmmasNetwork
from gmmas_model.prediction import Prediction
from gmmas_model.uncertainty import Uncertain
from gmmas_model.weights import load_tensors
from gmmas_schema.federation import SemiSupervisedConfig, TrainingPlan
from gmmas_schema.groups import group_of
from gmmas_schema.vocabulary import Modality, Region, Split, Task
from gmmas_workflows import pseudo_labels
from gmmas_workflows.pseudo_labels import _balanced, make_pseudo_labels
from gmmas_workflows.training import LocalTrainer

SIDE = 16
CONFIG = SemiSupervisedConfig(weight=0.5, voxel_confidence=0.8, voxel_spread=0.1, case_confidence=0.9, case_spread=0.05)
PLAN = TrainingPlan(semi_supervised=CONFIG, precision="fp32")
READY = {Region.WT: 1.0, Region.TC: 0.5, Region.ET: 1.0}
NO_T1CE = (Modality.T1, Modality.T2, Modality.FLAIR)


@pytest.fixture
def says(monkeypatch):
    """Let the network say the same of every case: probabilities, spreads, and a single pass that agrees."""

    def say(mean_RXYZ, std_RXYZ, idh=(0.5, 0.0), codeletion=0.2):
        mean, std = torch.as_tensor(mean_RXYZ)[None].float(), torch.as_tensor(std_RXYZ)[None].float()
        markers = {Task.IDH: torch.tensor([idh[0]]), Task.CODELETION: torch.tensor([codeletion])}
        spreads = {Task.IDH: torch.tensor([idh[1]]), Task.CODELETION: torch.tensor([0.0])}
        logits = torch.where(mean > 0.5, 9.0, -9.0)
        once = Prediction(logits, torch.tensor([idh[0]]).logit(), torch.tensor([0.0]))
        monkeypatch.setattr(pseudo_labels, "monte_carlo", lambda *_, **__: Uncertain(mean, std, markers, spreads))
        monkeypatch.setattr(pseudo_labels, "predict_volume", lambda *_, **__: once)

    return say


def volumes(tumour=0.95, std=0.01):
    """Return probabilities of a tumour that fills the first half, and their spreads."""
    mean = np.full((3, SIDE, SIDE, SIDE), 0.02)
    mean[:, : SIDE // 2] = tumour
    return mean, np.full_like(mean, std)


def label(samples, ready=READY, plan=PLAN):
    return make_pseudo_labels(None, samples, plan, ready=ready, generator=torch.Generator().manual_seed(0))


def test_a_partial_outline_of_ones_own_is_no_pseudo_label(says, make_sample) -> None:
    """An outline of the whole tumour alone weighs the other regions 0; the case stays among those with labels of their own."""
    says(*volumes(), idh=(0.6, 0.0))
    outline = make_sample(1, idh=math.nan)
    weight_RXYZ = np.zeros(outline.regions_RXYZ.shape, np.float32)
    weight_RXYZ[0] = 1
    changed, ledger = label([replace(outline, weight_RXYZ=weight_RXYZ)], ready={Task.IDH: 1.0})
    assert changed == []
    assert (ledger[Task.IDH].offered, ledger[Task.IDH].accepted) == (1, 0)


def test_sure_voxels_are_labelled_and_count_their_ramp(says, make_sample) -> None:
    mean, std = volumes()
    std[0, 0] = 0.3
    mean[0, -1] = 0.4
    says(mean, std)
    (case,), ledger = label([make_sample(1, segmentation=False)])
    assert (case.regions_RXYZ[:, : SIDE // 2] == 1).all()
    assert not case.regions_RXYZ[:, SIDE // 2 :].any()
    assert not case.weight_RXYZ[0, 0].any()
    assert not case.weight_RXYZ[0, -1].any()
    assert (case.weight_RXYZ[0, 1:-1] == 0.5).all()
    assert (case.weight_RXYZ[1] == 0.25).all()
    wt = ledger[Region.WT]
    assert (wt.offered, wt.accepted) == (1, 1)
    assert wt.positive == (SIDE // 2 - 1) * SIDE**2
    assert wt.negative == (SIDE // 2 - 1) * SIDE**2
    assert wt.share == pytest.approx((SIDE - 2) / SIDE)
    assert wt.agreement == 1


def test_an_outline_of_the_whole_tumour_gets_what_it_does_not_tell(says, make_sample) -> None:
    says(*volumes())
    outline = make_sample(1)
    weight_RXYZ = np.zeros(outline.regions_RXYZ.shape, np.float32)
    weight_RXYZ[0] = 1
    drawn_RXYZ = np.zeros_like(outline.regions_RXYZ)
    drawn_RXYZ[0, : SIDE // 4] = 1
    (case,), ledger = label([replace(outline, regions_RXYZ=drawn_RXYZ, weight_RXYZ=weight_RXYZ)])
    np.testing.assert_array_equal(case.regions_RXYZ[0], drawn_RXYZ[0])
    assert (case.weight_RXYZ[0] == 1).all()
    np.testing.assert_array_equal(case.regions_RXYZ[1], drawn_RXYZ[0], "no core outside of the drawn tumour")
    assert (case.weight_RXYZ[1] == 0.25).all()
    assert (ledger[Region.WT].offered, ledger[Region.TC].offered, ledger[Region.TC].accepted) == (0, 1, 1)


def test_the_side_of_a_voxel_is_that_of_any_segmentation(says, make_sample) -> None:
    """Where P(ET) is .4 and P(core) .6 the voxel is enhancing, and no sure sign of the opposite (decision 6)."""
    mean, std = volumes()
    mean[:, 0] = np.array([0.9, 0.3, 0.19])[:, None, None]
    mean[1, 1], mean[2, 1] = 0.35, 0.19
    mean[0, 1] = 0.6
    says(mean, std)
    (case,), _ = label([make_sample(1, segmentation=False)])
    assert not case.regions_RXYZ[2, 0].any()
    assert case.weight_RXYZ[2, 0].all(), "outside of the core by its own rule: surely not enhancing"
    assert case.regions_RXYZ[2, 1].all()
    assert not case.weight_RXYZ[2, 1].any(), "enhancing, if unlikely: not sure of either"


def test_a_target_that_is_not_ready_is_left_alone(says, make_sample) -> None:
    says(*volumes(), idh=(0.99, 0.0))
    (case,), ledger = label([make_sample(1, segmentation=False, idh=math.nan)], ready={Region.WT: 1.0})
    assert set(ledger) == {Region.WT}
    assert not case.weight_RXYZ[1:].any()
    assert math.isnan(case.idh)
    assert label([make_sample(1, segmentation=False)], ready={}) == ([], {})


def test_labels_of_the_site_stay(says, make_sample) -> None:
    says(*volumes(), idh=(0.99, 0.0))
    cases, ledger = label([make_sample(1), make_sample(2, idh=0.0)], ready=READY | {Task.IDH: 1.0})
    assert cases == []
    assert all(counts.offered == 0 for counts in ledger.values())


def test_core_and_enhancement_are_not_believed_without_t1ce(says, make_sample) -> None:
    says(*volumes())
    blind = make_sample(1, segmentation=False, modalities=NO_T1CE)
    (case,), ledger = label([blind])
    assert case.weight_RXYZ[0].any()
    assert not case.weight_RXYZ[1:].any()
    assert ledger[Region.ET].accepted == 0
    open_gate = PLAN.model_copy(update={"semi_supervised": CONFIG.model_copy(update={"enhancing_gate": False})})
    (case,), _ = label([blind], plan=open_gate)
    assert case.weight_RXYZ[2].any()


def test_a_case_without_any_sure_tumour_is_not_taken_for_healthy(says, make_sample) -> None:
    says(*volumes(tumour=0.02))
    cases, ledger = label([make_sample(1, segmentation=False)])
    assert cases == []
    assert ledger[Region.WT].accepted == 0
    assert ledger[Region.WT].offered == 1


@pytest.mark.parametrize(("idh", "accepted"), [((0.95, 0.02), 1), ((0.85, 0.02), 0), ((0.95, 0.2), 0), ((0.03, 0.01), 1)])
def test_a_marker_needs_confidence_and_agreement_of_the_passes(says, make_sample, idh, accepted) -> None:
    says(*volumes(), idh=idh)
    cases, ledger = label([make_sample(1, idh=math.nan)], ready={Task.IDH: 0.5})
    assert ledger[Task.IDH].accepted == len(cases) == accepted
    if accepted:
        assert cases[0].idh == float(idh[0] > 0.5)
        assert cases[0].marker_weight == {Task.IDH: 0.25}
        assert cases[0].weight_RXYZ is None


def test_who_is_taken_for_wildtype_teaches_nothing_of_what_only_a_mutant_has(says, make_sample) -> None:
    """Such a label adds nothing to the loss (gmmas_model.losses), so it is not counted, and takes no place of one that does."""
    says(*volumes(), idh=(0.02, 0.0), codeletion=0.01)
    unknown = make_sample(1, idh=math.nan)
    (case,), ledger = label([unknown], ready={Task.CODELETION: 1.0, Task.IDH: 1.0})
    assert (case.idh, ledger[Task.IDH].accepted) == (0.0, 1)
    assert math.isnan(case.codeletion)
    assert (ledger[Task.CODELETION].offered, ledger[Task.CODELETION].accepted) == (1, 0)
    (case,), ledger = label([unknown], ready={Task.CODELETION: 1.0})
    assert (case.codeletion, ledger[Task.CODELETION].accepted) == (0.0, 1)


@pytest.mark.parametrize("own", [{"codeletion": 1.0}, {"grade": 0.0}])
def test_a_label_that_only_a_mutant_has_is_not_contradicted(says, make_sample, own) -> None:
    """As a wildtype the case would teach nothing of its own label (gmmas_model.losses)."""
    says(*volumes(), idh=(0.02, 0.0))
    cases, ledger = label([make_sample(1, idh=math.nan, **own)], ready={Task.IDH: 1.0})
    assert cases == []
    assert ledger[Task.IDH].offered == 0
    assert len(label([make_sample(1, idh=math.nan, **{name: 1 - value for name, value in own.items()})], ready={Task.IDH: 1.0})[0]) == 1


def test_of_a_known_mutant_only_a_network_that_sees_one_is_believed(says, make_sample) -> None:
    """P(codeleted) = a b is small where the network takes a mutant for a wildtype, whatever it says of b."""
    mutant = make_sample(1, idh=1.0)
    says(*volumes(), idh=(0.02, 0.0), codeletion=0.01)
    cases, ledger = label([mutant], ready={Task.CODELETION: 1.0})
    assert cases == []
    assert (ledger[Task.CODELETION].offered, ledger[Task.CODELETION].accepted) == (1, 0)
    says(*volumes(), idh=(0.97, 0.0), codeletion=0.01)
    (case,), _ = label([mutant], ready={Task.CODELETION: 1.0})
    assert case.codeletion == 0.0


def test_a_region_without_a_sure_voxel_is_not_accepted(says, make_sample) -> None:
    """Else a site without labels of its own would be told to train, on nothing."""
    mean, std = volumes()
    std[1] = 0.3
    says(mean, std)
    cases, ledger = label([make_sample(1, segmentation=False)], ready={Region.TC: 1.0})
    assert cases == []
    assert (ledger[Region.TC].offered, ledger[Region.TC].accepted) == (1, 0)


def test_pseudo_labels_that_count_nothing_are_none(says, make_sample) -> None:
    says(*volumes(), idh=(0.99, 0.0))
    off = PLAN.model_copy(update={"semi_supervised": CONFIG.model_copy(update={"weight": 0.0})})
    assert label([make_sample(1, segmentation=False, idh=math.nan)], ready=READY | {Task.IDH: 1.0}, plan=off) == ([], {})


def test_what_stands_in_an_absent_sequence_is_not_counted(says, make_sample) -> None:
    says(*volumes())
    blind = make_sample(1, segmentation=False, modalities=NO_T1CE)
    blind.image_MXYZ[:3:2, 0] = blind.image_MXYZ[3, 0] = 0
    spoilt = replace(blind, image_MXYZ=np.where(blind.present_M[:, None, None, None], blind.image_MXYZ, np.float32(np.nan)))
    assert label([spoilt])[1] == label([blind])[1]


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0.2, 0.8))
def test_balance_keeps_the_surest_and_the_odds(probabilities, share) -> None:
    kept = _balanced(dict(enumerate(probabilities)), positive_share=share)
    positive = [p for place, p in enumerate(probabilities) if p > 0.5 and place in kept]
    negative = [p for place, p in enumerate(probabilities) if p <= 0.5 and place in kept]
    odds = share / (1 - share)
    assert len(positive) <= max(1, 2 * odds * max(len(negative), 1))
    assert len(negative) <= max(1, 2 / odds * max(len(positive), 1))
    left_out = [p for place, p in enumerate(probabilities) if p > 0.5 and place not in kept]
    assert not left_out or not positive or max(left_out) <= min(positive)


@pytest.fixture(scope="module")
def taught(make_sample, make_request, start, definition):
    """The tensors of a network that segments the easy cases."""
    trainer = LocalTrainer(
        definition,
        {Split.TRAIN: [make_sample(n) for n in range(8)]},
        modalities=tuple(Modality),
        site="teacher",
        device="cpu",
        threads=1,
    )
    plan = {"local_steps": 60, "warmup_steps": 5, "learning_rate": 2e-2, "modality_dropout": 0, "augmentation": False}
    return start | trainer.train(start, make_request(rounds=1, **plan)).tensors


def test_a_site_without_any_label_takes_part_once_the_others_are_ready(taught, make_sample, make_request, definition) -> None:
    samples = [make_sample(n, segmentation=False, idh=math.nan) for n in range(20, 24)]
    site = LocalTrainer(definition, {Split.TRAIN: samples}, modalities=tuple(Modality), site="west", device="cpu", threads=1)
    early = make_request(semi_supervised=CONFIG)
    assert site.train(taught, early).tensors == {}
    ready = early.model_copy(update={"ready": {Region.WT: 1.0}})
    outcome = site.train(taught, ready)
    ledger = outcome.report.pseudo_labels[Region.WT]
    assert ledger.accepted == 4
    assert ledger.agreement > 0.9
    assert {"encoder.t1ce", "decoder", "fusion"} <= {group_of(name) for name in outcome.tensors}
    assert "head.segmentation" not in {group_of(name) for name in outcome.tensors}
    assert outcome.report.cases == 4
    again = site.train(taught, ready)
    assert all(value.tobytes() == again.tensors[name].tobytes() for name, value in outcome.tensors.items())


def test_pseudo_labels_are_mostly_right(taught, make_sample, definition) -> None:
    network = GmmasNetwork(definition.network)
    load_tensors(network, taught)
    hidden = [make_sample(n) for n in range(30, 34)]
    cases, _ = make_pseudo_labels(
        network,
        [replace(case, regions_RXYZ=None) for case in hidden],
        PLAN,
        ready={Region.WT: 1.0},
        generator=torch.Generator().manual_seed(0),
    )
    assert len(cases) == 4
    for case, truth in zip(cases, hidden, strict=True):
        counted = case.weight_RXYZ[0] > 0
        assert (case.regions_RXYZ[0] == truth.regions_RXYZ[0])[counted].mean() > 0.95


def test_labelled_and_pseudo_labelled_cases_take_turns_and_mix(taught, make_sample, make_request, definition) -> None:
    samples = [make_sample(n, segmentation=n % 2 == 0) for n in range(8)]
    site = LocalTrainer(definition, {Split.TRAIN: samples}, modalities=tuple(Modality), site="east", device="cpu", threads=1)
    outcomes = {}
    for cutmix in ("none", "tumour", "random"):
        config = CONFIG.model_copy(update={"cutmix": cutmix, "cutmix_share": 1.0})
        request = make_request(semi_supervised=config, backbone="regions").model_copy(update={"ready": {Region.WT: 1.0, Region.TC: 1.0}})
        outcomes[cutmix] = site.train(taught, request)
        assert outcomes[cutmix].report.pseudo_labels[Region.WT].offered == 4
        assert math.isfinite(outcomes[cutmix].report.losses[Task.SEGMENTATION])
    weights = [outcome.tensors["heads.segmentation.weight"].tobytes() for outcome in outcomes.values()]
    assert len(set(weights)) == 3
