import pytest
import torch
import torch.nn.functional as F

from gmmas_model.blocks import Bottleneck, Conv3, Encoder, InstanceNorm, ResidualBlock

CHANNELS_LAST = torch.channels_last_3d


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_of_a_single_small_sample_is_the_usual_one(batch: int, stride: int) -> None:
    torch.manual_seed(0)
    convolution = Conv3(2, 3, stride=stride)
    x_BCXYZ = torch.randn(batch, 2, 6, 4, 8, requires_grad=True)
    twin_BCXYZ = x_BCXYZ.detach().clone().requires_grad_()
    weight = convolution.weight.detach().clone().requires_grad_()
    y_BCXYZ, expected_BCXYZ = convolution(x_BCXYZ), F.conv3d(twin_BCXYZ, weight, stride=stride, padding=1)
    torch.testing.assert_close(y_BCXYZ, expected_BCXYZ, atol=1e-5, rtol=1e-5)
    y_BCXYZ.square().sum().backward()
    expected_BCXYZ.square().sum().backward()
    torch.testing.assert_close(x_BCXYZ.grad, twin_BCXYZ.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(convolution.weight.grad, weight.grad, atol=1e-4, rtol=1e-4)


def test_instance_norm_is_that_of_torch() -> None:
    x_BCXYZ = torch.randn(3, 4, 6, 5, 7).to(memory_format=CHANNELS_LAST)
    norm = InstanceNorm(4)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    torch.testing.assert_close(norm(x_BCXYZ), F.instance_norm(x_BCXYZ, weight=norm.weight, bias=norm.bias), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 30.0, 1000.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1000.0])
def test_instance_norm_of_bf16_keeps_its_sums_in_fp32(offset: float, scale: float) -> None:
    x_BCXYZ = (offset + scale * torch.randn(2, 8, 24, 24, 24)).bfloat16().to(memory_format=CHANNELS_LAST).requires_grad_()
    twin_BCXYZ = x_BCXYZ.detach().double().requires_grad_()
    norm = InstanceNorm(8)
    y_BCXYZ = norm(x_BCXYZ)
    expected_BCXYZ = F.instance_norm(twin_BCXYZ)
    assert y_BCXYZ.dtype == torch.bfloat16
    torch.testing.assert_close(y_BCXYZ.double(), expected_BCXYZ, atol=0.02, rtol=0.02)
    g_BCXYZ = torch.randn_like(y_BCXYZ)
    y_BCXYZ.backward(g_BCXYZ)
    expected_BCXYZ.backward(g_BCXYZ.double())
    assert x_BCXYZ.grad is not None
    assert twin_BCXYZ.grad is not None
    error = (x_BCXYZ.grad.double() - twin_BCXYZ.grad).norm() / twin_BCXYZ.grad.norm()
    assert error < 0.02


def test_instance_norm_of_a_constant_is_zero_with_finite_gradient() -> None:
    x_BCXYZ = torch.full((1, 2, 4, 4, 4), 7.0, requires_grad=True)
    y_BCXYZ = InstanceNorm(2)(x_BCXYZ)
    y_BCXYZ.square().sum().backward()
    assert y_BCXYZ.abs().max() < 1e-3
    assert x_BCXYZ.grad is not None
    assert x_BCXYZ.grad.isfinite().all()


def test_a_sample_is_normalised_by_itself() -> None:
    x_BCXYZ = torch.randn(2, 4, 4, 4, 4)
    norm = InstanceNorm(4)
    assert torch.equal(norm(x_BCXYZ)[:1], norm(x_BCXYZ[:1]))


def test_block_halves_the_grid_with_stride_two() -> None:
    assert ResidualBlock(3, 5, stride=2)(torch.randn(2, 3, 8, 6, 4)).shape == (2, 5, 4, 3, 2)


def test_encoder_gives_one_feature_map_a_level() -> None:
    features = Encoder((4, 8, 16), (1, 2, 1))(torch.randn(2, 1, 8, 16, 8))
    assert [tuple(f.shape[1:]) for f in features] == [(4, 8, 16, 8), (8, 4, 8, 4), (16, 2, 4, 2)]


@pytest.mark.parametrize("layers", [0, 2])
def test_bottleneck_takes_any_grid_and_knows_positions(layers: int) -> None:
    torch.manual_seed(0)
    bottleneck = Bottleneck(8, layers=layers, heads=2)
    for shape in ((2, 2, 2), (3, 5, 2)):
        assert bottleneck(torch.randn(2, 8, *shape)).shape == (2, 8, *shape)
    x_BCXYZ = torch.randn(1, 8, 3, 3, 3)
    turned = bottleneck(x_BCXYZ.flip(2)).flip(2)
    assert not torch.allclose(turned, bottleneck(x_BCXYZ), atol=1e-3)
