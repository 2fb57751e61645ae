"""The same numbers from the same seed on a GPU, whose faster kernels add up in whatever order their threads finish.

Deterministic cuDNN and cuBLAS kernels are asked for, and attention is computed by plain matrix products, for the backward passes of the
fused kernels are not deterministic. PyTorch warns of an operation that has no deterministic kernel; two runs are then equal up to rounding.
A CPU needs none of this: there the order of a sum depends on the number of threads alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel


def reserve_workspace(device: torch.device) -> None:
    """Let cuBLAS add up in a fixed order; it looks for this at the first matrix product of the process, so call it before."""
    if device.type != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def deterministic(device: torch.device) -> Iterator[None]:
    """Compute deterministically on `device` while the context lasts; before the first matrix product, or after reserve_workspace."""
    if device.type == "cpu":
        yield
        return
    reserve_workspace(device)
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
