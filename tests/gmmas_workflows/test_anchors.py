"""How many prototypes a site's patients are enough for, which of them a patient's features go to, and what the log says where none is."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gmmas_model.adapter import CLASSES
from gmmas_model.network import GmmasNetwork
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.groups import MIN_ANCHOR_PATIENTS
from gmmas_workflows import anchors as module
from gmmas_workflows.anchors import measure_anchors
from strategies.anchors import COUNTS, SUMS, settle_anchors

PLAN = TrainingPlan(precision="fp32")
ENHANCING = CLASSES.index("enhancing")


@pytest.fixture(scope="module")
def make_network(definition):
    def make(prototypes):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return GmmasNetwork(definition.network.model_copy(update={"prototypes": prototypes}))

    return make


def measure(network, samples):
    return measure_anchors(network, samples, PLAN, rng=np.random.default_rng(0))


def receive(network, tensors):
    """Give a network the anchors that a coordinator makes of one site's."""
    current = {SUMS: network.anchors.sums_KPC.numpy(), COUNTS: network.anchors.counts_KP.numpy()}
    settled = settle_anchors(mean=tensors, current=current, sites=1)
    network.anchors.sums_KPC.copy_(torch.from_numpy(settled[SUMS]))
    network.anchors.counts_KP.copy_(torch.from_numpy(settled[COUNTS]))


@pytest.mark.parametrize(
    ("patients", "counts"),
    [(4, [0, 0, 0, 0]), (7, [7, 0, 0, 0]), (12, [6, 6, 0, 0]), (17, [6, 6, 5, 0]), (20, [5, 5, 5, 5])],
)
def test_a_site_fills_as_many_prototypes_as_its_patients_are_enough_for(make_network, make_sample, patients, counts) -> None:
    tensors = measure(make_network(4), [make_sample(n) for n in range(patients)])
    assert tensors[COUNTS].tolist() == [counts] * len(CLASSES)
    assert [bool(np.abs(sums).sum()) for sums in tensors[SUMS][0]] == [count > 0 for count in counts]


def test_a_class_that_some_patients_have_takes_turns_among_these(make_network, make_sample) -> None:
    """Every second patient has enhancement: by a turn of all patients, all of them would meet at one prototype of two."""
    samples = [make_sample(n) for n in range(20)]
    for sample in samples[1::2]:
        sample.regions_RXYZ[2] = 0
    counts_KP = measure(make_network(2), samples)[COUNTS]
    assert counts_KP[ENHANCING].tolist() == [5, 5]
    assert counts_KP[0].tolist() == [10, 10]


def test_prototypes_that_are_known_draw_what_is_most_like_them(make_network, make_sample) -> None:
    network, samples = make_network(4), [make_sample(n) for n in range(12)]
    receive(network, measure(network, samples))
    assert network.anchors.known().tolist() == [[True, True, False, False]] * len(CLASSES)
    # In the second of two prototypes there is what no patient resembles.
    network.anchors.sums_KPC[:, 1] *= -1
    counts_KP = measure(network, samples)[COUNTS]
    assert counts_KP.tolist() == [[12, 0, 0, 0]] * len(CLASSES)
    # A site of few patients fills the first, whatever the others have made known.
    assert measure(network, samples[:6])[COUNTS].tolist() == [[6, 0, 0, 0]] * len(CLASSES)


def test_of_known_prototypes_the_most_similar_is_taken(make_network, make_sample, monkeypatch) -> None:
    network, samples = make_network(2), [make_sample(n) for n in range(14)]
    plain = module._class_means
    means = [plain(network, sample, PLAN)[0] for sample in samples]
    with torch.no_grad():
        network.anchors.sums_KPC.copy_(torch.stack([means[0], means[1]], dim=1) * MIN_ANCHOR_PATIENTS)
        network.anchors.counts_KP.fill_(MIN_ANCHOR_PATIENTS)
    tensors = measure(network, samples)
    for tissue in range(len(CLASSES)):
        nearest = [int(F.cosine_similarity(network.anchors.prototypes()[tissue], mean[tissue][None]).argmax()) for mean in means]
        for prototype in (0, 1):
            own = [mean[tissue] for mean, place in zip(means, nearest, strict=True) if place == prototype]
            sent = len(own) if len(own) >= MIN_ANCHOR_PATIENTS else 0
            assert tensors[COUNTS][tissue, prototype] == sent
            if sent:
                np.testing.assert_allclose(tensors[SUMS][tissue, prototype], sum(own), rtol=1e-5)


@pytest.mark.parametrize("patients", [3, 11])
def test_a_single_prototype_is_the_sum_over_all_patients_bit_for_bit(make_network, make_sample, patients) -> None:
    network, samples = make_network(1), [make_sample(n) for n in range(patients)]
    expected = torch.zeros_like(network.anchors.sums_KPC)
    for sample in samples:
        mean_KC, _ = module._class_means(network, sample, PLAN)
        for tissue in range(len(CLASSES)):
            expected[tissue, 0] += mean_KC[tissue]
    expected *= patients >= MIN_ANCHOR_PATIENTS
    for _ in range(2):
        tensors = measure(network, samples)
        assert tensors[SUMS].tobytes() == expected.numpy().tobytes()
        receive(network, tensors)


def test_a_patient_counts_once_and_an_incomplete_or_undrawn_case_never(make_network, make_sample) -> None:
    samples = [make_sample(n) for n in range(6)]
    other = replace(make_sample(50), patient_id=samples[0].patient_id)
    undrawn = make_sample(51, segmentation=False)
    incomplete = replace(make_sample(52), present_M=np.array([True, False, True, True]))
    assert measure(make_network(1), [*samples, other, undrawn, incomplete])[COUNTS].tolist() == [[6]] * len(CLASSES)


def test_the_log_says_where_no_anchor_comes_about(make_network, make_sample, caplog) -> None:
    network, samples = make_network(2), [make_sample(n) for n in range(8)]
    with caplog.at_level(logging.WARNING):
        measure(network, samples[:4])
    assert "no anchor is known" in caplog.text
    assert "patient-" not in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        tensors = measure(network, samples)
        receive(network, tensors)
        # Others have made some known, so the few patients here are no reason to warn.
        measure(network, samples[:4])
    assert not caplog.text
