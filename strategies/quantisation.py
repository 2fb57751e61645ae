"""Changes of weights as 8-bit integers: symmetric, one scale per output channel, no offset.

    s_c = max_i |x_c,i| / 127          q = round(x / s_c) in [-127, 127], halves to even          x' = q s_c
    |x - x'| <= s_c (1/2 + 2^-15)      zero stays zero; the sign never turns

A channel is an index of the first axis of a tensor with two axes or more, which in convolutions and linear layers is the output: filters
of one layer differ in size, and one scale for all of them would spend most codes on the largest. The 2^-15 is the float32 rounding of
division and product. Rounding is to nearest and not random: a repeated round must give the same bits, and error feedback
(strategies.wire) takes care of the bias. Per-channel symmetric scales: Krishnamoorthi, "Quantizing deep convolutional networks for
efficient inference", arXiv:1806.08342 (2018).

Shapes: C channels, N elements.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import ProtocolError

Float32 = NDArray[np.float32]
Int8 = NDArray[np.int8]

LEVELS: Final = 127
SMALLEST_SCALE: Final = np.float32(2.0**-126)
"""The smallest normal float32: below it a scale would lose its own precision, so smaller values become zero."""
LARGEST_SCALE: Final = np.nextafter(np.float32(np.finfo(np.float32).max / LEVELS), np.float32(0))
"""127 times this is finite."""


def channels_of(shape: tuple[int, ...]) -> int:
    """Return the number of scales of a tensor: its first axis if it has two or more, else one."""
    return shape[0] if len(shape) > 1 else 1


def quantise(values: Float32) -> tuple[Int8, Float32]:
    """Return codes_N in memory order and scales_C of a tensor with at least one element.

    Raises:
        ProtocolError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise ProtocolError(
            "a change of weights is not finite", got="nan or infinity", expected="finite numbers", remedy="lower training.learning_rate"
        )
    rows_CK = np.ascontiguousarray(values, dtype=np.float32).reshape(channels_of(values.shape), -1)
    peaks_C = np.max(np.abs(rows_CK), axis=1, initial=0.0)
    scales_C = np.clip(peaks_C / np.float32(LEVELS), SMALLEST_SCALE, LARGEST_SCALE)
    codes_CK = np.clip(np.rint(rows_CK / scales_C[:, None]), -LEVELS, LEVELS)
    return codes_CK.astype(np.int8).reshape(-1), scales_C


def dequantise(codes_N: Int8, scales_C: Float32, *, shape: tuple[int, ...]) -> Float32:
    """Return the tensor of a shape; there are as many codes as it has elements, and channels_of(shape) scales.

    Raises:
        ProtocolError: a scale is none that `quantise` makes, or a code is -128.
    """
    assert codes_N.size == math.prod(shape)
    assert scales_C.size == channels_of(shape)
    check_scales(scales_C)
    check_codes(codes_N)
    rows_CK = codes_N.reshape(scales_C.size, -1).astype(np.float32)
    rows_CK *= scales_C[:, None]
    return rows_CK.reshape(shape)


def check_scales(scales_C: Float32) -> None:
    """Refuse scales with which a code could stand for nan, infinity or a value of the other sign."""
    # Written so that nan fails.
    if not ((scales_C >= SMALLEST_SCALE) & (scales_C <= LARGEST_SCALE)).all():
        raise ProtocolError(
            "a scale of quantised values is out of range",
            got=f"{float(scales_C.min()):g} to {float(scales_C.max()):g}",
            expected=f"{SMALLEST_SCALE:g} to {LARGEST_SCALE:g}",
        )


def check_codes(codes_N: Int8) -> None:
    """Refuse the one 8-bit number that is no code."""
    if (codes_N == -LEVELS - 1).any():
        raise ProtocolError("quantised values hold a number that is no code", got="-128", expected="-127 to 127")
