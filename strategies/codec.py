"""How requests, reports and tensors travel: Flower RecordDict <-> typed documents and named float32 arrays.

A message holds TASK or REPORT, a ConfigRecord with one JSON string under DOCUMENT, and, where tensors come with it, ARRAYS, an
ArrayRecord with one flat array of the bytes of all of them, and INDEX beside DOCUMENT, a JSON list in the same order with name, shape,
form and number of kept values of each (strategies.encoding). One array and not one per tensor, because flwr 1.41 moves each array as
two objects and each object by a signed request of its own on every hop: 6 requests a hop instead of 360 for the default network.
DIGEST beside the DOCUMENT of a request names the tensors by their content (strategies.content_hash); it is checked on arrival, and
stands alone where the site is known to hold them.

Nothing is pickled: the array is accepted only as .npy version 1.0 of unsigned bytes, one-dimensional, of exactly the length that the
index asks for, before a byte of it is interpreted or memory for its tensors is taken. Values that travel as float32 are read-only views
of it. Format: NEP 1, "A simple file format for NumPy arrays" (Kern, 2007).
"""

import io
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeInt, TypeAdapter, ValidationError

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.messages import ARRAYS, DOCUMENT, PROTOCOL_VERSION, REPORT, TASK, SiteDescription, SiteReport, TaskRequest
from gmmas_schema.model import MODEL_DEFINITION_VERSION
from strategies.content_hash import hash_tensors
from strategies.encoding import FULL, Form, Precision, Segment, decode, encode

Float32 = NDArray[np.float32]
DocumentT = TypeVar("DocumentT", bound=BaseModel)

INDEX: Final = "index"
DIGEST: Final = "digest"
TENSORS: Final = "tensors"
"""Name of the one array in ARRAYS."""

LARGEST_VALUES: Final = 2**29
"""Most values of one message where the reader knows no better: what protobuf could carry as float32."""

_STYPE, _DTYPE = "numpy.ndarray", "uint8"
_NPY_VERSION = (1, 0)
_HEADER_LIMIT_BYTES = 1024
_DIGEST_LENGTH = 64
_UPDATE = "run the same release of gmmas-fed on both sides"
_INDEX_ADAPTER = TypeAdapter(list[tuple[str, tuple[NonNegativeInt, ...], Form, NonNegativeInt]])


@dataclass(frozen=True)
class Parcel:
    """Tensors ready to travel: one array, and the index that takes it apart. Several messages may share it.

    Attributes:
        digest: of the tensors as they arrive; empty where nobody has named them.
    """

    arrays: ArrayRecord
    index: str
    digest: str = ""


def pack_tensors(tensors: Mapping[str, Float32], *, precision_of: Callable[[str], Precision] = lambda _: FULL) -> Parcel:
    """Return named float32 arrays of any shapes as a parcel.

    Args:
        tensors: what is to travel.
        precision_of: how the tensor of a name is packed; by default as it is.

    Raises:
        ProtocolError: an array is of another dtype, nothing is converted silently; or values that are to be rounded are not finite.
    """
    segments, parts = [], []
    for name, value in tensors.items():
        segment, part = encode(name, value, precision_of(name))
        segments.append((segment.name, segment.shape, segment.form, segment.kept))
        parts.append(part)
    stream = io.BytesIO()
    length = sum(map(len, parts))
    np.lib.format.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": (length,)})
    array = Array(_DTYPE, (length,), _STYPE, b"".join([stream.getvalue(), *parts]))
    return Parcel(ArrayRecord({TENSORS: array}), json.dumps(segments, separators=(",", ":")))


def unpack_tensors(parcel: Parcel, *, limit: int = LARGEST_VALUES) -> dict[str, Float32]:
    """Return the tensors of a parcel, those that travelled as float32 as read-only views of its own bytes.

    Args:
        parcel: as it came.
        limit: most values of all tensors together; a few bytes can stand for many values.

    Raises:
        ProtocolError: the array is not flat .npy data, or the index does not fit it, or exceeds the limit.
    """
    if set(parcel.arrays) != {TENSORS}:
        raise _misfit(f"arrays {', '.join(map(repr, parcel.arrays))}"[:200])
    flat = _read_flat(parcel.arrays[TENSORS])
    segments = _read_index(parcel.index, limit=limit)
    lengths = [segment.length_bytes for segment in segments]
    if sum(lengths) != flat.size:
        raise _misfit(f"{flat.size} bytes, an index of {len(segments)} tensors with {sum(lengths)} bytes")
    ends = itertools.accumulate(lengths)
    try:
        parts = zip(segments, lengths, ends, strict=True)
        return {segment.name: decode(segment, flat[end - length : end]) for segment, length, end in parts}
    except ProtocolError:
        raise
    except (ValueError, OverflowError) as error:
        raise _misfit("an index with a shape that no array has") from error


def _read_index(text: str, *, limit: int) -> list[Segment]:
    """Return the lines of an index after checking each by itself, their names and the sum of their values."""
    try:
        lines = _INDEX_ADAPTER.validate_json(text, strict=True)
    except ValidationError as error:
        raise _misfit(f"an index with {error.error_count()} faults") from error
    segments = [Segment(*line) for line in lines]
    for segment in segments:
        if not (1 <= segment.kept <= segment.size if segment.form == "s1" else segment.kept == 0):
            raise _misfit(f"{segment.kept} kept values in the form {segment.form}")
        if segment.size == 0 and segment.form != "f4":
            raise _misfit(f"no values in the form {segment.form}")
    names, size = {segment.name for segment in segments}, sum(segment.size for segment in segments)
    if len(names) != len(segments) or size > limit:
        raise _misfit(f"{len(segments)} tensors of {len(names)} names with {size} values, where {limit} can be")
    return segments


def _read_flat(array: Array) -> NDArray[np.uint8]:
    """Return a Flower Array as a read-only one-dimensional view after checking its header against its declaration."""
    if array.stype != _STYPE or array.dtype != _DTYPE:
        raise _misfit(f"{array.dtype} as {array.stype}"[:200])
    stream = io.BytesIO(array.data)
    try:
        version = np.lib.format.read_magic(stream)
        if version != _NPY_VERSION:
            raise _misfit(f".npy version {version}")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=_HEADER_LIMIT_BYTES)
    except ProtocolError:
        raise
    except Exception as error:  # numpy reads a header as Python, and hands on whatever that raises
        raise _misfit(f"data that are not .npy ({type(error).__name__})") from error
    length = len(array.data) - stream.tell()
    if dtype != np.dtype("u1") or tuple(array.shape) != shape or shape != (length,):
        raise _misfit(f"{dtype} {shape} in {length} bytes, declared {array.dtype} {array.shape}"[:200])
    return np.frombuffer(array.data, dtype=np.uint8, offset=stream.tell())


def _misfit(got: str) -> ProtocolError:
    return ProtocolError(
        "the tensors of a message cannot be read", got=got, expected="one flat .npy 1.0 array of bytes and its index", remedy=_UPDATE
    )


def write_request(request: TaskRequest, parcel: Parcel | None = None, *, digest: str = "") -> RecordDict:
    """Return the content of a message to a site: with tensors, or with the digest of tensors that the site holds, or with neither."""
    if parcel is not None:
        digest = parcel.digest or hash_tensors(unpack_tensors(parcel))
    return _write(TASK, request, parcel, {DIGEST: digest} if digest else {})


def read_request(content: RecordDict) -> tuple[TaskRequest, dict[str, Float32]]:
    """Return a request and the tensors that came with it (none for DESCRIBE, and none where `read_digest` names them alone).

    Raises:
        ProtocolError: another protocol version (`PROTOCOL_VERSION`) or model definition (`MODEL_DEFINITION`), not a request, or tensors
            that are not those of their digest.
    """
    request, tensors = _read(content, TASK, TaskRequest), _tensors(content, TASK)
    if ARRAYS in content and hash_tensors(tensors) != read_digest(content):
        raise ProtocolError(
            "the tensors of a request are not those it names", got="another digest", expected="their SHA-256", remedy="ask again"
        )
    return request, tensors


def read_digest(content: RecordDict) -> str:
    """Return the digest that a request read by `read_request` gives of its tensors; empty for a request about no tensors."""
    digest = content[TASK].get(DIGEST, "")
    if not isinstance(digest, str) or len(digest) not in {0, _DIGEST_LENGTH}:
        raise ProtocolError("a request's digest is none", got=type(digest).__name__, expected="64 hexadecimal digits", remedy=_UPDATE)
    return digest


def write_report(report: SiteReport | SiteDescription, parcel: Parcel | None = None) -> RecordDict:
    """Return the content of a site's reply."""
    return _write(REPORT, report, parcel, {})


def read_report(content: RecordDict, *, limit: int = LARGEST_VALUES) -> tuple[SiteReport, dict[str, Float32]]:
    """Return a reply to TRAIN or EVALUATE and its tensors (none where the site sent none), `limit` values at most.

    Raises:
        ProtocolError: another protocol version, or not a report, or more values.
    """
    return _read(content, REPORT, SiteReport), _tensors(content, REPORT, limit=limit)


def read_description(content: RecordDict) -> SiteDescription:
    """Return a reply to DESCRIBE.

    Raises:
        ProtocolError: another protocol version, or not a description.
    """
    return _read(content, REPORT, SiteDescription)


def size_bytes(content: RecordDict) -> int:
    """Return the bytes of a content's tensors (with their headers) and documents, without the transport's framing."""
    total = 0
    for record in content.values():
        if isinstance(record, ArrayRecord):
            total += sum(len(name) + len(array.data) for name, array in record.items())
        else:
            total += sum(len(key) + len(value if isinstance(value, bytes) else str(value).encode()) for key, value in record.items())
    return total


def _write(name: str, document: BaseModel, parcel: Parcel | None, more: Mapping[str, str]) -> RecordDict:
    fields = {DOCUMENT: document.model_dump_json(), **more}
    if parcel is None:
        return RecordDict({name: ConfigRecord(dict(fields))})
    return RecordDict({name: ConfigRecord({**fields, INDEX: parcel.index}), ARRAYS: parcel.arrays})


def _tensors(content: RecordDict, name: str, *, limit: int = LARGEST_VALUES) -> dict[str, Float32]:
    """Return the tensors of a content whose records have been checked."""
    record = content.get(ARRAYS)
    return unpack_tensors(Parcel(record, str(content[name].get(INDEX, ""))), limit=limit) if isinstance(record, ArrayRecord) else {}


def _read(content: RecordDict, name: str, kind: type[DocumentT]) -> DocumentT:
    """Return the one document of a content after checking that nothing else came with it."""
    _check_records(content, name)
    text = content[name].get(DOCUMENT)
    try:
        raw = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise ProtocolError(f"{name} holds no document", got=type(text).__name__, expected="a JSON object", remedy=_UPDATE)
    _check_versions(raw)
    try:
        return kind.model_validate_json(str(text))
    except ValidationError as error:
        faults = "; ".join(".".join(map(str, fault["loc"])) + ": " + fault["type"] for fault in error.errors()[:5])
        raise ProtocolError(
            f"{name} is not a {kind.__name__}", where=name, got=faults, expected=f"protocol {PROTOCOL_VERSION}", remedy=_UPDATE
        ) from error


def _check_records(content: RecordDict, name: str) -> None:
    """Refuse a content whose records are not exactly the document and, perhaps, the arrays."""
    kinds = {key: type(record) for key, record in content.items()}
    if kinds.pop(name, None) is not ConfigRecord or kinds.pop(ARRAYS, ArrayRecord) is not ArrayRecord or kinds:
        raise ProtocolError(
            "a message holds other records than the protocol names",
            got=", ".join(f"{key} ({type(record).__name__})" for key, record in content.items()) or "none",
            expected=f"{name} (ConfigRecord), {ARRAYS} (ArrayRecord)",
            remedy=_UPDATE,
        )


def _check_versions(raw: dict[str, Any]) -> None:
    """Name a version conflict as such, before an unknown key of a newer version is called a fault."""
    if raw.get("protocol") != PROTOCOL_VERSION:
        raise ProtocolError(
            "the other side speaks another protocol version",
            got=_worded(raw.get("protocol")),
            expected=PROTOCOL_VERSION,
            remedy=_UPDATE,
            code=ReasonCode.PROTOCOL_VERSION,
        )
    model = raw.get("model")
    if isinstance(model, dict) and model.get("version") != MODEL_DEFINITION_VERSION:
        raise ProtocolError(
            "the other side has another version of the network",
            got=_worded(model.get("version")),
            expected=MODEL_DEFINITION_VERSION,
            remedy=_UPDATE,
            code=ReasonCode.MODEL_DEFINITION,
        )


def _worded(version: object) -> str:
    """Return a version as it may be quoted: what is none is no text of ours."""
    return str(version) if isinstance(version, int) else type(version).__name__
