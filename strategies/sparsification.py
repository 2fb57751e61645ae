"""Top-k: of each tensor's changes only the largest travel, and a bitmap says which.

    keep the k = ceil(share N) elements with the largest |x|; of equal ones those that come first

The bitmap has one bit per element whatever k is, which from a share of 1/32 on is less than 32-bit positions would take. What is left
out is not lost: error feedback (strategies.wire) adds it to the next round, without which top-k does not converge. Aji and Heafield,
"Sparse communication for distributed gradient descent", EMNLP 2017; Stich, Cordonnier and Jaggi, "Sparsified SGD with memory", NeurIPS
2018.

Shapes: N elements, B bytes.
"""

import math

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import ProtocolError


def count_kept(size: int, share: float) -> int:
    """Return how many of `size` elements a share in (0, 1) keeps: at least one of any."""
    return math.ceil(size * share)


def largest(values: NDArray[np.float32], *, count: int) -> NDArray[np.bool_]:
    """Return a flat mask_N that is true for the `count` elements of largest magnitude, 1 <= count <= N."""
    magnitude_N = np.abs(values).reshape(-1)
    threshold = np.partition(magnitude_N, magnitude_N.size - count)[magnitude_N.size - count]
    mask_N: NDArray[np.bool_] = magnitude_N > threshold
    ties = np.flatnonzero(magnitude_N == threshold)
    mask_N[ties[: count - int(np.count_nonzero(mask_N))]] = True
    return mask_N


def write_bitmap(mask_N: NDArray[np.bool_]) -> bytes:
    """Return a mask as ceil(N / 8) bytes, the first element in the highest bit, the last byte filled up with zeros."""
    return np.packbits(mask_N).tobytes()


def read_bitmap(bitmap_B: NDArray[np.uint8], *, size: int, count: int) -> NDArray[np.bool_]:
    """Return the mask_N of a bitmap of ceil(size / 8) bytes.

    Raises:
        ProtocolError: it has not exactly `count` bits set, or a bit beyond its end.
    """
    assert bitmap_B.size == -(-size // 8)
    bits = np.unpackbits(bitmap_B)
    found = int(np.count_nonzero(bits))
    if found != count or bits[size:].any():
        raise ProtocolError("a bitmap does not fit its values", got=f"{found} bits set", expected=f"{count} within {size}")
    return bits[:size].astype(np.bool_)
