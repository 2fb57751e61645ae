"""One tensor as bytes and back, in one of four forms; which form, shape and number of values are known before the bytes are looked at.

    form  bytes of a tensor of N elements in C channels            what it is
    f4    4 N                                                      float32
    f2    2 N                                                      float16
    i1    4 C + N                                                  int8 with a float32 scale per channel (strategies.quantisation)
    s1    4 C + ceil(N / 8) + K                                    the K largest as int8, and a bitmap (strategies.sparsification)

Little-endian, row order. A lossy form is taken only where it makes the tensor smaller and can hold its values, so biases of one element
and weights beyond 65,504 stay float32. The length of every form follows from the index and is checked before anything is read.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.errors import ProtocolError
from gmmas_schema.printable import printable
from strategies.quantisation import channels_of, dequantise, quantise
from strategies.sparsification import count_kept, largest, read_bitmap, write_bitmap

Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Form = Literal["f4", "f2", "i1", "s1"]

_LARGEST_FP16: Final = 65504.0


@dataclass(frozen=True)
class Precision:
    """How a side wants tensors packed.

    Attributes:
        form: f4 packs every tensor as float32; f2 and i1 those that become smaller by it.
        top_k: share of each tensor's elements that travels, with i1 only; None: all.
        whole_up_to: elements of the largest tensor of which all travel in spite of top_k.
    """

    form: Literal["f4", "f2", "i1"] = "f4"
    top_k: float | None = None
    whole_up_to: int = 0


FULL: Final = Precision()

_BYTES_EACH: Final = {"f4": 4, "f2": 2}


@dataclass(frozen=True)
class Segment:
    """What the index says of one tensor.

    Attributes:
        name: of the tensor.
        shape: of the tensor.
        form: of its bytes.
        kept: values that travel of a tensor in the form s1; 0 in all others.
    """

    name: str
    shape: tuple[int, ...]
    form: Form = "f4"
    kept: int = 0

    @cached_property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @cached_property
    def length_bytes(self) -> int:
        """Number of bytes, by the shape alone."""
        if self.form in _BYTES_EACH:
            return _BYTES_EACH[self.form] * self.size
        values = self.size if self.form == "i1" else -(-self.size // 8) + self.kept
        return 4 * channels_of(self.shape) + values


def encode(name: str, value: Float32, precision: Precision = FULL) -> tuple[Segment, bytes]:
    """Return a tensor's bytes, in the smallest form of this precision, and its line of the index.

    Raises:
        ProtocolError: the tensor is not float32, or has values that are not finite and would be rounded.
    """
    if value.dtype != np.float32:
        raise ProtocolError("only float32 tensors travel", where=name, got=value.dtype, expected="float32", remedy="convert it first")
    if precision.form != "f4" and not np.isfinite(value).all():
        # Whatever form it would take: what error feedback keeps of it would spoil every later answer.
        raise ProtocolError(
            "a tensor that is to be rounded is not finite",
            where=name,
            got="nan or infinity",
            expected="finite numbers",
            remedy="lower training.learning_rate",
        )
    segment = _choose(Segment(name, value.shape), value, precision)
    return segment, _WRITERS[segment.form](value, segment)


def decode(segment: Segment, data: Bytes) -> Float32:
    """Return the tensor of `segment.length_bytes` bytes: float32, read-only.

    Raises:
        ProtocolError: the bytes are none that `encode` makes.
    """
    assert data.size == segment.length_bytes
    value = _READERS[segment.form](segment, data).reshape(segment.shape)
    value.flags.writeable = False
    return value


def _choose(plain: Segment, value: Float32, precision: Precision) -> Segment:
    """Return the segment in the form that takes the fewest bytes; the plainer one of two that take as many."""
    forms = [plain]
    if precision.form == "f2" and np.max(np.abs(value), initial=0.0) <= _LARGEST_FP16:
        forms.append(Segment(plain.name, plain.shape, "f2"))
    if precision.form == "i1" and plain.size:
        forms.append(Segment(plain.name, plain.shape, "i1"))
        if precision.top_k is not None and plain.size > precision.whole_up_to:
            forms.append(Segment(plain.name, plain.shape, "s1", count_kept(plain.size, precision.top_k)))
    return min(forms, key=lambda segment: segment.length_bytes)


def _write_f4(value: Float32, _: Segment) -> bytes:
    return np.asarray(value, dtype="<f4", order="C").tobytes()


def _write_f2(value: Float32, _: Segment) -> bytes:
    return value.astype("<f2", order="C").tobytes()


def _write_i1(value: Float32, _: Segment) -> bytes:
    codes_N, scales_C = quantise(value)
    return scales_C.astype("<f4").tobytes() + codes_N.tobytes()


def _write_s1(value: Float32, segment: Segment) -> bytes:
    mask_N = largest(value, count=segment.kept)
    # A scale follows from the largest value of its channel, which is among those that are kept if any is.
    codes_N, scales_C = quantise(value)
    return scales_C.astype("<f4").tobytes() + write_bitmap(mask_N) + codes_N[mask_N].tobytes()


def _read_f4(_: Segment, data: Bytes) -> Float32:
    # Only a copy where an odd number of bytes lies before the tensor.
    return np.require(data.view("<f4"), requirements="A")


def _read_f2(segment: Segment, data: Bytes) -> Float32:
    value: Float32 = data.view("<f2").astype(np.float32)
    if not np.isfinite(value).all():
        raise ProtocolError("a rounded tensor holds values that are not finite", where=printable(segment.name), expected="finite numbers")
    return value


def _read_i1(segment: Segment, data: Bytes) -> Float32:
    scales_C, rest = _split_scales(segment, data)
    return dequantise(rest.view(np.int8), scales_C, shape=segment.shape)


def _read_s1(segment: Segment, data: Bytes) -> Float32:
    scales_C, rest = _split_scales(segment, data)
    end = rest.size - segment.kept
    mask_N = read_bitmap(rest[:end], size=segment.size, count=segment.kept)
    codes_N = np.zeros(segment.size, np.int8)
    codes_N[mask_N] = rest[end:].view(np.int8)
    return dequantise(codes_N, scales_C, shape=segment.shape)


def _split_scales(segment: Segment, data: Bytes) -> tuple[Float32, Bytes]:
    end = 4 * channels_of(segment.shape)
    return data[:end].view("<f4").astype(np.float32), data[end:]


_WRITERS: Final[dict[Form, Callable[[Float32, Segment], bytes]]] = {"f4": _write_f4, "f2": _write_f2, "i1": _write_i1, "s1": _write_s1}
_READERS: Final[dict[Form, Callable[[Segment, Bytes], Float32]]] = {"f4": _read_f4, "f2": _read_f2, "i1": _read_i1, "s1": _read_s1}
