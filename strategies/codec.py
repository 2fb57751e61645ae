"""How requests, reports and tensors travel: Flower RecordDict <-> typed documents and named float32 arrays.

A message holds ARRAYS (an ArrayRecord of named tensors in numpy's .npy form) and TASK or REPORT (a ConfigRecord with one JSON string).
Nothing is pickled: an array is accepted only as .npy version 1.0, little-endian float32, C order, with the length its shape asks for,
and is read without a copy. Format: NEP 1, "A simple file format for NumPy arrays" (Kern, 2007).
"""

import io
import json
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.messages import ARRAYS, DOCUMENT, PROTOCOL_VERSION, REPORT, TASK, SiteDescription, SiteReport, TaskRequest
from gmmas_schema.model import MODEL_DEFINITION_VERSION

Float32 = NDArray[np.float32]
DocumentT = TypeVar("DocumentT", bound=BaseModel)

_STYPE, _DTYPE = "numpy.ndarray", "float32"
_NPY_VERSION = (1, 0)
_HEADER_LIMIT_BYTES = 1024
_UPDATE = "run the same release of gmmas-fed on both sides"


def pack_array(value: Float32) -> Array:
    """Return a float32 array of any shape as a Flower Array.

    Raises:
        ProtocolError: the array is of another dtype; nothing is converted silently.
    """
    if value.dtype != np.float32:
        raise ProtocolError("only float32 tensors travel", got=value.dtype, expected=_DTYPE, remedy="convert before sending")
    return Array(np.asarray(value, order="C"))


def pack_tensors(tensors: Mapping[str, Float32]) -> ArrayRecord:
    """Return named float32 arrays as an ArrayRecord."""
    return join_arrays({name: pack_array(value) for name, value in tensors.items()})


def join_arrays(arrays: Mapping[str, Array]) -> ArrayRecord:
    """Return a record of the same Array objects, so that records which overlap share memory, digests and chunks."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = array
    return record


def unpack_tensors(record: ArrayRecord) -> dict[str, Float32]:
    """Return the arrays of a record as read-only views of the record's own bytes.

    Raises:
        ProtocolError: an array is not float32 .npy data of its declared shape.
    """
    return {name: _view(name, array) for name, array in record.items()}


def _view(name: str, array: Array) -> Float32:
    """Return one Flower Array as a read-only float32 view after checking its header against its declaration."""
    if array.stype != _STYPE or array.dtype != _DTYPE:
        _refuse_array(name, got=f"{array.dtype} as {array.stype}")
    stream = io.BytesIO(array.data)
    try:
        version = np.lib.format.read_magic(stream)
        if version != _NPY_VERSION:
            _refuse_array(name, got=f".npy version {version}")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=_HEADER_LIMIT_BYTES)
    except ProtocolError:
        raise
    except (ValueError, SyntaxError, EOFError) as error:
        raise ProtocolError(
            "a tensor cannot be read", where=name, got=type(error).__name__, expected=".npy data", remedy=_UPDATE
        ) from error
    count = int(np.prod(shape, dtype=np.int64))
    length = len(array.data) - stream.tell()
    if fortran or dtype != np.dtype("<f4") or tuple(shape) != tuple(array.shape) or length != 4 * count:
        _refuse_array(name, got=f"{dtype} {shape} in {length} bytes, declared {array.dtype} {array.shape}")
    return np.frombuffer(array.data, dtype="<f4", offset=stream.tell()).reshape(shape)


def _refuse_array(name: str, *, got: str) -> NoReturn:
    raise ProtocolError(
        "a tensor is not what it declares", where=name, got=got, expected="float32, C order, .npy 1.0 of the declared shape", remedy=_UPDATE
    )


def write_request(request: TaskRequest, arrays: ArrayRecord | None = None) -> RecordDict:
    """Return the content of a message to a site."""
    return _write(TASK, request, arrays)


def read_request(content: RecordDict) -> tuple[TaskRequest, dict[str, Float32]]:
    """Return a request and the tensors that came with it (none for DESCRIBE).

    Raises:
        ProtocolError: another protocol version (`PROTOCOL_VERSION`) or model definition (`MODEL_DEFINITION`), or not a request.
    """
    return _read(content, TASK, TaskRequest), _tensors(content)


def write_report(report: SiteReport | SiteDescription, arrays: ArrayRecord | None = None) -> RecordDict:
    """Return the content of a site's reply."""
    return _write(REPORT, report, arrays)


def read_report(content: RecordDict) -> tuple[SiteReport, dict[str, Float32]]:
    """Return a reply to TRAIN or EVALUATE and its tensors (none where the site sent none).

    Raises:
        ProtocolError: another protocol version, or not a report.
    """
    return _read(content, REPORT, SiteReport), _tensors(content)


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


def _write(name: str, document: BaseModel, arrays: ArrayRecord | None) -> RecordDict:
    content = RecordDict({name: ConfigRecord({DOCUMENT: document.model_dump_json()})})
    if arrays is not None:
        content[ARRAYS] = arrays
    return content


def _tensors(content: RecordDict) -> dict[str, Float32]:
    record = content.get(ARRAYS)
    return unpack_tensors(record) if isinstance(record, ArrayRecord) else {}


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
