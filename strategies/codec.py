"""How requests, reports and tensors travel: Flower RecordDict <-> typed documents and named float32 arrays.

A message holds TASK or REPORT, a ConfigRecord with one JSON string under DOCUMENT, and, where tensors come with it, ARRAYS, an
ArrayRecord with one flat float32 array of all of them, and INDEX beside DOCUMENT, the JSON list of their names and shapes in the same
order. One array and not one per tensor, because flwr 1.41 moves each array as two objects and each object by a signed request of its
own on every hop: 6 requests a hop instead of 360 for the default network.

Nothing is pickled: the array is accepted only as .npy version 1.0, little-endian float32, one-dimensional, of exactly the length that
the index asks for, and tensors are read-only views of it. Format: NEP 1, "A simple file format for NumPy arrays" (Kern, 2007).
"""

import io
import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, NonNegativeInt, TypeAdapter, ValidationError

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.messages import ARRAYS, DOCUMENT, PROTOCOL_VERSION, REPORT, TASK, SiteDescription, SiteReport, TaskRequest
from gmmas_schema.model import MODEL_DEFINITION_VERSION

Float32 = NDArray[np.float32]
DocumentT = TypeVar("DocumentT", bound=BaseModel)

INDEX: Final = "index"
TENSORS: Final = "tensors"
"""Name of the one array in ARRAYS."""

_STYPE, _DTYPE = "numpy.ndarray", "float32"
_NPY_VERSION = (1, 0)
_HEADER_LIMIT_BYTES = 1024
_UPDATE = "run the same release of gmmas-fed on both sides"
_INDEX_ADAPTER = TypeAdapter(list[tuple[str, tuple[NonNegativeInt, ...]]])


@dataclass(frozen=True)
class Parcel:
    """Tensors ready to travel: one array, and the index that takes it apart. Several messages may share it."""

    arrays: ArrayRecord
    index: str


def pack_tensors(tensors: Mapping[str, Float32]) -> Parcel:
    """Return named float32 arrays of any shapes as a parcel.

    Raises:
        ProtocolError: an array is of another dtype; nothing is converted silently.
    """
    for name, value in tensors.items():
        if value.dtype != np.float32:
            raise ProtocolError("only float32 tensors travel", where=name, got=value.dtype, expected=_DTYPE, remedy="convert it first")
    count = sum(value.size for value in tensors.values())
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (count,)})
    for value in tensors.values():
        stream.write(np.asarray(value, dtype="<f4", order="C").tobytes())
    array = Array(_DTYPE, (count,), _STYPE, stream.getvalue())
    index = json.dumps([[name, value.shape] for name, value in tensors.items()], separators=(",", ":"))
    return Parcel(ArrayRecord({TENSORS: array}), index)


def unpack_tensors(parcel: Parcel) -> dict[str, Float32]:
    """Return the tensors of a parcel as read-only views of its own bytes.

    Raises:
        ProtocolError: the array is not flat float32 .npy data, or the index does not fit it.
    """
    if set(parcel.arrays) != {TENSORS}:
        raise _misfit(f"arrays {', '.join(map(repr, parcel.arrays))}"[:200])
    flat = _read_flat(parcel.arrays[TENSORS])
    try:
        index = _INDEX_ADAPTER.validate_json(parcel.index, strict=True)
    except ValidationError as error:
        raise _misfit(f"an index with {error.error_count()} faults") from error
    sizes = [math.prod(shape) for _, shape in index]
    names = {name for name, _ in index}
    if len(names) != len(index) or sum(sizes) != flat.size:
        raise _misfit(f"{flat.size} values, an index of {len(index)} tensors ({len(names)} names) with {sum(sizes)} values")
    ends = itertools.accumulate(sizes)
    try:
        return {name: flat[end - size : end].reshape(shape) for (name, shape), size, end in zip(index, sizes, ends, strict=True)}
    except (ValueError, OverflowError) as error:
        raise _misfit("an index with a shape that no array has") from error


def _read_flat(array: Array) -> Float32:
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
    except (ValueError, SyntaxError, EOFError) as error:
        raise _misfit(f"data that are not .npy ({type(error).__name__})") from error
    length = len(array.data) - stream.tell()
    if dtype != np.dtype("<f4") or tuple(array.shape) != shape or shape != (length // 4,) or length % 4:
        raise _misfit(f"{dtype} {shape} in {length} bytes, declared {array.dtype} {array.shape}"[:200])
    return np.frombuffer(array.data, dtype="<f4", offset=stream.tell())


def _misfit(got: str) -> ProtocolError:
    return ProtocolError(
        "the tensors of a message cannot be read", got=got, expected="one flat float32 .npy 1.0 array and its index", remedy=_UPDATE
    )


def write_request(request: TaskRequest, parcel: Parcel | None = None) -> RecordDict:
    """Return the content of a message to a site."""
    return _write(TASK, request, parcel)


def read_request(content: RecordDict) -> tuple[TaskRequest, dict[str, Float32]]:
    """Return a request and the tensors that came with it (none for DESCRIBE).

    Raises:
        ProtocolError: another protocol version (`PROTOCOL_VERSION`) or model definition (`MODEL_DEFINITION`), or not a request.
    """
    return _read(content, TASK, TaskRequest), _tensors(content, TASK)


def write_report(report: SiteReport | SiteDescription, parcel: Parcel | None = None) -> RecordDict:
    """Return the content of a site's reply."""
    return _write(REPORT, report, parcel)


def read_report(content: RecordDict) -> tuple[SiteReport, dict[str, Float32]]:
    """Return a reply to TRAIN or EVALUATE and its tensors (none where the site sent none).

    Raises:
        ProtocolError: another protocol version, or not a report.
    """
    return _read(content, REPORT, SiteReport), _tensors(content, REPORT)


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
            total += sum(len(key) + len(str(value).encode()) for key, value in record.items())
    return total


def _write(name: str, document: BaseModel, parcel: Parcel | None) -> RecordDict:
    text = document.model_dump_json()
    if parcel is None:
        return RecordDict({name: ConfigRecord({DOCUMENT: text})})
    return RecordDict({name: ConfigRecord({DOCUMENT: text, INDEX: parcel.index}), ARRAYS: parcel.arrays})


def _tensors(content: RecordDict, name: str) -> dict[str, Float32]:
    """Return the tensors of a content whose records have been checked."""
    record = content.get(ARRAYS)
    return unpack_tensors(Parcel(record, str(content[name].get(INDEX, "")))) if isinstance(record, ArrayRecord) else {}


def _read(content: RecordDict, name: str, kind: type[DocumentT]) -> DocumentT:
    """Return the one document of a content after checking that nothing else came with it."""
    _check_records(content, name)
    text = content[name].get(DOCUMENT)
    try:
        raw = json.loads(text) if isinstance(text, str) else None
    except ValueError:
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
            got=raw.get("protocol"),
            expected=PROTOCOL_VERSION,
            remedy=_UPDATE,
            code=ReasonCode.PROTOCOL_VERSION,
        )
    model = raw.get("model")
    if isinstance(model, dict) and model.get("version") != MODEL_DEFINITION_VERSION:
        raise ProtocolError(
            "the other side has another version of the network",
            got=model.get("version"),
            expected=MODEL_DEFINITION_VERSION,
            remedy=_UPDATE,
            code=ReasonCode.MODEL_DEFINITION,
        )
