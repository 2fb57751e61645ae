import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gmmas_model.fusion import MaskedFusion


def spread_of(fusion: MaskedFusion, features: list[Tensor], bias_M: Tensor, present_BM: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and spread by a mix that lets both through."""
    channels = features[0].shape[1]
    fusion.mix = torch.nn.Identity()  # type: ignore[assignment]
    both = fusion(features, bias_M, present_BM)
    return both[:, :channels], both[:, channels:]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_spread_of_one_modality_is_exactly_zero_with_finite_gradient(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    f1, f2 = (torch.randn(2, 4, 3, 3, 3).to(dtype).requires_grad_() for _ in range(2))
    present_BM = torch.tensor([[True, False], [False, True]])
    blank = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1, 1).to(dtype)
    features = [f1 * blank, f2 * (1 - blank)]
    fusion = MaskedFusion(4).to(dtype)
    bias_M = torch.randn(2, requires_grad=True)
    mean, spread = spread_of(fusion, features, bias_M, present_BM)
    assert torch.equal(spread, torch.zeros_like(spread))
    assert torch.equal(mean[0], f1[0])
    assert torch.equal(mean[1], f2[1])
    (mean.sum() + (3 * spread).sum()).backward()
    for leaf in (f1, f2, bias_M, fusion.gate.weight):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()
    assert torch.equal(bias_M.grad, torch.zeros(2))


def test_one_sample_alone_has_the_same_values_as_beside_absent_ones() -> None:
    torch.manual_seed(0)
    f1 = torch.randn(1, 4, 3, 3, 3)
    fusion = MaskedFusion(4)
    alone = fusion([f1], torch.zeros(1), torch.tensor([[True]]))
    beside = fusion([f1, torch.zeros_like(f1)], torch.zeros(2), torch.tensor([[True, False]]))
    torch.testing.assert_close(alone, beside, atol=1e-6, rtol=0)


@settings(max_examples=30)
@given(st.lists(st.booleans(), min_size=2, max_size=4).filter(any), st.integers(0, 100))
def test_fusion_is_the_formula(present: list[bool], seed: int) -> None:
    torch.manual_seed(seed)
    features = [torch.randn(1, 4, 2, 2, 2) * p for p in present]
    bias_M = torch.randn(len(present))
    fusion = MaskedFusion(4)
    weight = fusion.gate.weight.detach().view(4)
    mean, spread = spread_of(fusion, features, bias_M, torch.tensor([present]))
    held = [m for m, p in enumerate(present) if p]
    f_MCXYZ = torch.stack([features[m][0] for m in held])
    w_MXYZ = (torch.einsum("mcxyz,c->mxyz", f_MCXYZ, weight) + bias_M[held][:, None, None, None]).softmax(0)
    mean_CXYZ = torch.einsum("mxyz,mcxyz->cxyz", w_MXYZ, f_MCXYZ)
    variance_CXYZ = torch.einsum("mxyz,mcxyz->cxyz", w_MXYZ, (f_MCXYZ - mean_CXYZ).square())
    torch.testing.assert_close(mean[0], mean_CXYZ, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(spread[0], variance_CXYZ.sqrt(), atol=2e-3, rtol=1e-3)


def test_gate_bias_prefers_its_modality() -> None:
    features = [torch.ones(1, 2, 2, 2, 2), torch.full((1, 2, 2, 2, 2), 3.0)]
    present_BM = torch.tensor([[True, True]])
    fusion = MaskedFusion(2)
    torch.nn.init.zeros_(fusion.gate.weight)
    mean, _ = spread_of(fusion, features, torch.tensor([20.0, 0.0]), present_BM)
    torch.testing.assert_close(mean, torch.ones_like(mean), atol=1e-6, rtol=0)


def test_gate_weights_sum_to_one_over_what_is_there() -> None:
    torch.manual_seed(0)
    fusion = MaskedFusion(4)
    features = [torch.randn(2, 4, 2, 2, 2) for _ in range(3)]
    weight = fusion.weigh(features, torch.tensor([0.0, 5.0, 0.0]), torch.tensor([[True, True, True], [True, False, True]]))
    torch.testing.assert_close(weight.sum(1), torch.ones(2, 2, 2, 2))
    assert torch.equal(weight[1, 1], torch.zeros(2, 2, 2))
    assert (weight[0, 1] > weight[0, [0, 2]]).all()
