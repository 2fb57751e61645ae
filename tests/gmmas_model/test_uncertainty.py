import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gmmas_model.inference import predict_probabilities
from gmmas_model.uncertainty import RunningMoments, Uncertain, monte_carlo, monte_carlo_mirrored, predictive_entropy
from gmmas_schema.errors import ModelError
from gmmas_schema.inference import Flip
from gmmas_schema.vocabulary import Region, Task


@pytest.fixture
def batch(make_batch):
    return make_batch(present=[[True] * 4, [True, False, False, True]])


def _ask(network, batch, seed: int = 0, **options):
    return monte_carlo(
        network, batch.image_BMXYZ, batch.present_BM, generator=torch.Generator().manual_seed(seed), precision="fp32", **options
    )


def _tensors(result: Uncertain) -> list[torch.Tensor]:
    return [result.region_mean_BRXYZ, result.region_std_BRXYZ, *result.marker_mean.values(), *result.marker_std.values()]


def test_the_generator_alone_decides(network, batch) -> None:
    first = _ask(network, batch)
    torch.manual_seed(99)
    again, other = _ask(network, batch), _ask(network, batch, seed=1)
    for value, same, different in zip(*map(_tensors, (first, again, other)), strict=True):
        assert torch.equal(value, same)
        assert not torch.equal(value, different)


def test_nothing_of_the_caller_changes(network, batch) -> None:
    network.train()
    network.decoder.eval()
    before = torch.random.get_rng_state()
    result = _ask(network, batch)
    assert torch.equal(before, torch.random.get_rng_state())
    assert network.training
    assert network.encoders.training
    assert not network.decoder.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not any(value.requires_grad or value.is_inference() for value in _tensors(result))


def test_hardly_any_dropout_is_the_plain_prediction(network, batch) -> None:
    plain = predict_probabilities(network, batch.image_BMXYZ, batch.present_BM)
    result = _ask(network, batch, dropout=1e-7)
    torch.testing.assert_close(result.region_mean_BRXYZ, plain.region_probability())
    torch.testing.assert_close(result.idh_mean_B, plain.idh_probability())
    torch.testing.assert_close(result.codeletion_mean_B, plain.codeletion_probability())
    assert float(result.region_std_BRXYZ.max()) < 1e-6


def test_means_stay_consistent_and_spread_grows_with_dropout(network, batch) -> None:
    little, much = _ask(network, batch, dropout=0.05, passes=16), _ask(network, batch, dropout=0.5, passes=16)
    assert (much.region_mean_BRXYZ.diff(dim=1) <= 0).all()
    assert (much.codeletion_mean_B <= much.idh_mean_B).all()
    assert much.region_std_BRXYZ.mean() > 1.5 * little.region_std_BRXYZ.mean() > 0


def test_one_case_does_not_depend_on_an_absent_channel(network, batch) -> None:
    noisy = batch.image_BMXYZ.clone()
    noisy[1, 1:3] = 1000
    other = monte_carlo(network, noisy, batch.present_BM, generator=torch.Generator().manual_seed(0), precision="fp32")
    assert torch.equal(other.region_mean_BRXYZ, _ask(network, batch).region_mean_BRXYZ)


def test_means_serve_as_targets_of_a_loss(network, batch) -> None:
    target = _ask(network, batch).region_mean_BRXYZ
    probability = network(batch.image_BMXYZ, batch.present_BM).region_probability()
    torch.nn.functional.binary_cross_entropy(probability, target).backward()
    assert network.heads[Task.SEGMENTATION].weight.grad is not None


@pytest.mark.parametrize("options", [{"passes": 1}, {"dropout": 0.0}, {"dropout": 1.0}])
def test_settings_without_a_spread_are_refused(options, network, batch) -> None:
    with pytest.raises(ModelError, match="no spread"):
        _ask(network, batch, **options)


def test_windows_cover_the_volume_and_heads_answer_to_all_of_them(network, make_batch) -> None:
    """Beside each other, windows are volumes of their own; the same channels are dropped in both."""
    parts = [make_batch(present=[[True] * 4], seed=seed) for seed in (0, 1)]
    whole = torch.cat([part.image_BMXYZ for part in parts], dim=2)
    options = {"precision": "fp32", "patch": (8, 8, 8)}
    both = monte_carlo(network, whole, parts[0].present_BM, generator=torch.Generator().manual_seed(0), overlap=0, **options)
    alone = [_ask(network, part, patch=(8, 8, 8)) for part in parts]
    for name in ("region_mean_BRXYZ", "region_std_BRXYZ"):
        torch.testing.assert_close(getattr(both, name), torch.cat([getattr(one, name) for one in alone], dim=2))
    twice = monte_carlo(
        network,
        parts[0].image_BMXYZ.repeat(1, 1, 2, 1, 1),
        parts[0].present_BM,
        generator=torch.Generator().manual_seed(0),
        overlap=0,
        **options,
    )
    with torch.no_grad():
        # The volume of the tumour is the only pooled feature that doubles, so a head that does not look at it answers the same.
        for task in (Task.IDH, Task.CODELETION):
            network.heads[task].hidden.weight[:, -3] = 0
    same = _ask(network, parts[0])
    blind = monte_carlo(
        network,
        parts[0].image_BMXYZ.repeat(1, 1, 2, 1, 1),
        parts[0].present_BM,
        generator=torch.Generator().manual_seed(0),
        overlap=0,
        **options,
    )
    assert not torch.equal(twice.idh_mean_B, blind.idh_mean_B)
    torch.testing.assert_close(blind.idh_mean_B, same.idh_mean_B)
    torch.testing.assert_close(blind.idh_std_B, same.idh_std_B, rtol=1e-3, atol=1e-6)


def test_overlapping_windows_keep_nesting_and_bounds(network, make_batch) -> None:
    batch = make_batch(present=[[True] * 4], side=16)
    seen: list[tuple[int, int]] = []
    result = _ask(network, batch, patch=(8, 16, 16), on_progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    assert (result.region_mean_BRXYZ.diff(dim=1) <= 1e-6).all()
    assert 0 < result.region_std_BRXYZ.max() < 0.71
    assert (predictive_entropy(result.region_mean_BRXYZ) <= 1).all()


def test_temperatures_go_in_before_the_average(network, batch) -> None:
    hot = _ask(network, batch, temperatures={Task.IDH: 1e6, Region.WT: 1e6})
    torch.testing.assert_close(hot.idh_mean_B, torch.full((2,), 0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(hot.region_mean_BRXYZ[:, 0], torch.full((2, 8, 8, 8), 0.5), atol=1e-5, rtol=0)
    assert hot.codeletion_std_B.max() > 1e-4


def test_mirror_images_add_to_the_spread(network, batch) -> None:
    options = {"passes": 4, "dropout": 0.1, "precision": "fp32"}
    generator = torch.Generator().manual_seed(0)
    both = monte_carlo_mirrored(network, batch.image_BMXYZ, batch.present_BM, flip=Flip.LEFT_RIGHT, generator=generator, **options)
    generator.manual_seed(0)
    first = monte_carlo(network, batch.image_BMXYZ, batch.present_BM, generator=generator, **options)
    second = monte_carlo(network, batch.image_BMXYZ.flip(2), batch.present_BM, generator=generator, **options)
    torch.testing.assert_close(both.region_mean_BRXYZ, (first.region_mean_BRXYZ + second.region_mean_BRXYZ.flip(2)) / 2)
    torch.testing.assert_close(both.idh_mean_B, (first.idh_mean_B + second.idh_mean_B) / 2)
    assert (7 * both.region_std_BRXYZ**2 >= 3 * first.region_std_BRXYZ**2 - 1e-6).all()


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20), st.integers(0, 20))
def test_running_moments_are_those_of_the_whole(values, singles) -> None:
    """However many values come one by one and the rest as a group."""
    moments, whole = RunningMoments(), torch.tensor(values, dtype=torch.float64)
    rest = whole[singles:]
    for value in whole[:singles]:
        moments.add(value[None])
    if len(rest):
        moments.add_group(rest.mean()[None], rest.std(correction=1 if len(rest) > 1 else 0)[None], count=len(rest))
    assert float(moments.mean()) == pytest.approx(float(whole.mean()), abs=1e-6)
    assert float(moments.std()) == pytest.approx(float(whole.std()), abs=1e-6)


def test_entropy_of_certain_and_of_even_classes() -> None:
    nested = torch.tensor([[0.0, 0, 0], [1, 1, 0], [1, 1, 1], [0.75, 0.5, 0.25], [0.5, 0, 0]]).reshape(5, 3, 1, 1, 1)
    expected = torch.tensor([0, 0, 0, 1, math.log(2) / math.log(4)])
    torch.testing.assert_close(predictive_entropy(nested).flatten(), expected)
