import numpy as np
import torch

from gmmas_model.initialisation import initial_tensors
from gmmas_schema.model import NetworkConfig

TINY = NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_heads=2)


def test_the_start_depends_on_the_seed_alone() -> None:
    first = initial_tensors(TINY, seed=3)
    torch.rand(5)
    again, other = initial_tensors(TINY, seed=3), initial_tensors(TINY, seed=4)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)
    assert list(first) == sorted(first)
