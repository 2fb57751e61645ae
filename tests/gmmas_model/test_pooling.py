import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_model.pooling import PooledSums, pool_sums
from gmmas_model.windows import lay_windows

SHAPE, PATCH = (16, 8, 16), (8, 8, 8)


def _levels(seed: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Return two levels of features that are the same wherever a window that starts at an even voxel lies, and nested probabilities."""
    generator = torch.Generator().manual_seed(seed)
    fine = torch.randn(2, 3, *SHAPE, generator=generator)
    coarse = F.avg_pool3d(torch.randn(2, 5, *SHAPE, generator=generator), 2)
    return [fine, coarse], torch.rand(2, 3, *SHAPE, generator=generator).cumprod(1)


def _by_windows(levels: list[torch.Tensor], probability: torch.Tensor, *, overlap: float) -> PooledSums:
    total = None
    for place, share_XYZ in lay_windows(torch.ones(2, 4, *SHAPE), torch.ones(2, 4, dtype=torch.bool), patch=PATCH, overlap=overlap):
        half = tuple(slice(side.start // 2, side.stop // 2) for side in place)
        sums = pool_sums([levels[0][(..., *place)], levels[1][(..., *half)]], probability[(..., *place)], share_XYZ=share_XYZ)
        total = sums if total is None else total + sums
    assert total is not None
    return total


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
def test_tumour_volumes_count_every_voxel_once(overlap) -> None:
    levels, probability = _levels(0)
    total = _by_windows(levels, probability, overlap=overlap)
    torch.testing.assert_close(total.volume_BR * 8**3, probability.sum((2, 3, 4)))


@given(seed=st.integers(0, 2**31))
@settings(max_examples=25)
def test_windows_side_by_side_pool_like_the_whole(seed) -> None:
    levels, probability = _levels(seed)
    whole, parts = pool_sums(levels, probability).features(), _by_windows(levels, probability, overlap=0).features()
    # Volumes are in windows, four of which make this whole.
    whole[:, -3] += torch.tensor(4.0).log10()
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5)


@given(seed=st.integers(0, 2**31), overlap=st.sampled_from([0.5, 0.75]))
@settings(max_examples=25)
def test_overlapping_windows_pool_the_finest_level_like_the_whole(seed, overlap) -> None:
    levels, probability = _levels(seed)
    whole, parts = pool_sums(levels, probability).features(), _by_windows(levels, probability, overlap=overlap).features()
    torch.testing.assert_close(parts[:, :3], whole[:, :3], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts[:, -2:], whole[:, -2:], rtol=1e-4, atol=1e-5)


def test_constant_features_stay_what_they_are() -> None:
    _, probability = _levels(1)
    levels = [torch.full((2, 3, *SHAPE), 2.0), torch.full((2, 5, *(n // 2 for n in SHAPE)), -3.0)]
    features = _by_windows(levels, probability, overlap=0.5).features()
    torch.testing.assert_close(features[:, :13], torch.tensor([[2.0] * 3 + [-3.0] * 10] * 2))


def test_no_tumour_gives_finite_features() -> None:
    levels, probability = _levels(2)
    assert pool_sums(levels, torch.zeros_like(probability)).features().isfinite().all()
