import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gmmas_model.adapter import CLASSES, AnchorAdapter, Anchors, class_means, contrast_to_anchors
from gmmas_model.network import GmmasNetwork
from gmmas_schema.groups import MIN_ANCHOR_PATIENTS, group_of
from gmmas_schema.model import NetworkConfig

CHANNELS, PROTOTYPES = 8, 2
ALL = torch.ones(2, 4, dtype=torch.bool)
SOME = torch.tensor([[True, False, True, True], [False, False, True, False]])
TINY = NetworkConfig(channels=(4, CHANNELS), blocks=(1, 1), transformer_layers=1, transformer_heads=2)


def make_anchors(known=((True, True),) * 4, seed=0):
    anchors = Anchors(CHANNELS, prototypes=PROTOTYPES)
    generator = torch.Generator().manual_seed(seed)
    anchors.counts_KP.copy_(torch.tensor(known).float() * (MIN_ANCHOR_PATIENTS + 2))
    anchors.sums_KPC.copy_(torch.randn(anchors.sums_KPC.shape, generator=generator) * anchors.counts_KP[..., None])
    return anchors


def make_adapter(gamma=1.0):
    torch.manual_seed(1)
    adapter = AnchorAdapter(CHANNELS, heads=2)
    torch.nn.init.constant_(adapter.gamma, gamma)
    return adapter


def features(seed=3):
    return torch.randn(2, CHANNELS, 2, 3, 2, generator=torch.Generator().manual_seed(seed))


def test_a_new_adapter_changes_nothing():
    z = features()
    assert torch.equal(make_adapter(gamma=0.0)(z, SOME, make_anchors()), z)


def test_complete_cases_are_never_corrected():
    z = features()
    mixed = torch.stack([ALL[0], SOME[0]])
    completed = make_adapter()(z, mixed, make_anchors())
    assert torch.equal(completed[0], z[0])
    assert not torch.allclose(completed[1], z[1])


def test_without_known_anchors_nothing_is_corrected():
    z = features()
    nobody = make_anchors(((False, False),) * 4)
    assert torch.equal(make_adapter()(z, SOME, nobody), z)


@given(st.lists(st.lists(st.booleans(), min_size=PROTOTYPES, max_size=PROTOTYPES), min_size=4, max_size=4))
def test_an_unknown_anchor_is_never_looked_at(known):
    anchors, adapter = make_anchors(known), make_adapter()
    before = adapter(features(), SOME, anchors)
    assert before.isfinite().all()
    anchors.sums_KPC[~torch.tensor(known)] = 1e6
    assert torch.equal(adapter(features(), SOME, anchors), before)


def test_anchors_are_not_moved_by_gradients_and_belong_to_their_group():
    network = GmmasNetwork(TINY.model_copy(update={"prototypes": PROTOTYPES}))
    assert not [name for name, _ in network.named_parameters() if name.startswith("anchors")]
    groups = {group_of(name) for name in network.state_dict()}
    assert {"adapter", "anchors"} <= groups


def test_the_adapter_leaves_the_rest_of_a_seeded_network_as_it_was():
    networks = []
    for prototypes in (0, PROTOTYPES):
        torch.manual_seed(0)
        networks.append(GmmasNetwork(TINY.model_copy(update={"prototypes": prototypes})).state_dict())
    assert all(torch.equal(value, networks[1][name]) for name, value in networks[0].items())


def test_class_means_are_those_of_their_voxels():
    z = torch.zeros(1, CHANNELS, 2, 2, 2)
    z[0, :, 0, 0, 0], z[0, :, 1, 1, 1] = 5.0, -3.0
    regions = torch.zeros(1, 3, 4, 4, 4)
    regions[0, 0, :2, :2, :2] = 1
    regions[0, 1, :2, :2, :2] = 1
    brain = torch.ones(1, 4, 4, 4)
    mean, there = class_means(z, regions, brain)
    assert there[0].tolist() == [True, True, False, False]
    assert mean[0, CLASSES.index("necrosis")].tolist() == pytest.approx([5.0] * CHANNELS)
    assert mean[0, CLASSES.index("background")].tolist() == pytest.approx([-3.0 / 7] * CHANNELS)
    assert not mean[0, CLASSES.index("enhancing")].any()


def test_features_like_their_own_anchor_have_the_least_contrast():
    anchors = make_anchors()
    own = anchors.prototypes()[:, 0][None]
    there = torch.ones(1, 4, dtype=torch.bool)
    right = contrast_to_anchors(own, there, anchors)
    wrong = contrast_to_anchors(own.roll(1, dims=1), there, anchors)
    assert right < wrong
    assert right >= 0


@pytest.mark.parametrize("known", [((False, False),) * 4, ((True, False), *((False, False),) * 3)])
def test_one_class_alone_cannot_be_told_apart(known):
    mean = torch.randn(1, 4, CHANNELS, requires_grad=True)
    assert contrast_to_anchors(mean, torch.ones(1, 4, dtype=torch.bool), make_anchors(known)) == 0


def test_the_contrast_is_finite_and_moves_the_features():
    mean = torch.randn(2, 4, CHANNELS, requires_grad=True)
    there = torch.tensor([[True, True, True, False], [True, False, True, True]])
    loss = contrast_to_anchors(mean, there, make_anchors(((True, True), (True, False), (False, False), (True, True))))
    loss.backward()
    assert math.isfinite(loss.item())
    assert mean.grad[0, 0].abs().sum() > 0
    assert mean.grad[0, 3].abs().sum() == 0
    assert mean.grad[:, 2].abs().sum() == 0
