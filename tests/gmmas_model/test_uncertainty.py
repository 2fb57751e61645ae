import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_model.inference import predict_probabilities
from gmmas_model.uncertainty import RunningMoments, monte_carlo, predictive_entropy
from gmmas_schema.errors import ModelError
from gmmas_schema.vocabulary import Task


@pytest.fixture
def batch(make_batch):
    return make_batch(present=[[True] * 4, [True, False, False, True]])


def _ask(network, batch, seed: int = 0, **options):
    return monte_carlo(
        network, batch.image_BMXYZ, batch.present_BM, generator=torch.Generator().manual_seed(seed), precision="fp32", **options
    )


def test_the_generator_alone_decides(network, batch) -> None:
    first = _ask(network, batch)
    torch.manual_seed(99)
    again, other = _ask(network, batch), _ask(network, batch, seed=1)
    for name, value in vars(first).items():
        assert torch.equal(value, getattr(again, name)), name
        assert not torch.equal(value, getattr(other, name)), name


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
    assert not any(value.requires_grad or value.is_inference() for value in vars(result).values())


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


@given(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20))
@settings(deadline=None)
def test_running_moments_are_those_of_the_whole(values) -> None:
    moments = RunningMoments()
    for value in values:
        moments.add(torch.tensor([value]))
    whole = torch.tensor(values, dtype=torch.float64)
    assert float(moments.mean()) == pytest.approx(float(whole.mean()), abs=1e-6)
    assert float(moments.std()) == pytest.approx(float(whole.std()), abs=1e-5)


def test_entropy_of_certain_and_of_even_classes() -> None:
    nested = torch.tensor([[0.0, 0, 0], [1, 1, 0], [1, 1, 1], [0.75, 0.5, 0.25], [0.5, 0, 0]]).reshape(5, 3, 1, 1, 1)
    expected = torch.tensor([0, 0, 0, 1, math.log(2) / math.log(4)])
    torch.testing.assert_close(predictive_entropy(nested).flatten(), expected)
