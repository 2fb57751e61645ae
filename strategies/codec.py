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
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Final, get_args

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, FailFast, Field, TypeAdapter, ValidationError

from gmmas_schema.errors import ProtocolError
from gmmas_schema.messages import ARRAYS, DOCUMENT, REPORT, TASK, SiteDescription, SiteReport, TaskRequest
from strategies.content_hash import hash_tensors
from strategies.encoding import FULL, Form, Precision, Segment, decode, encode
from strategies.foreign_documents import UPDATE, DocumentT, parse_document, shorten

Float32 = NDArray[np.float32]

INDEX: Final = "index"
DIGEST: Final = "digest"
TENSORS: Final = "tensors"
"""Name of the one array in ARRAYS."""

LARGEST_VALUES: Final = 2**29
"""Most values of one message where the reader knows no better: what protobuf could carry as float32."""

LONGEST_INDEX: Final = 2**20
"""Characters; that of the larger network has 14,000."""

DOWN: Final[frozenset[Form]] = frozenset({"f4", "f2"})
"""Forms of a model on its way to a site. A few bytes of the others can stand for much memory, and changes alone travel in them."""

_STYPE, _DTYPE = "numpy.ndarray", "uint8"
_NPY_VERSION = (1, 0)
_HEADER_LIMIT_BYTES = 1024
_DIGEST = re.compile(r"[0-9a-f]{64}")
_FORMS: Final[frozenset[Form]] = frozenset(get_args(Form))
_Count = Annotated[int, Field(ge=0, le=LARGEST_VALUES)]
# A product of many large numbers is slow to calculate and a fault to print: each is bounded, and so is how many there are.
_Line = tuple[Annotated[str, Field(max_length=200)], Annotated[tuple[_Count, ...], Field(max_length=8)], Form, _Count]
_INDEX_ADAPTER = TypeAdapter(Annotated[list[_Line], FailFast()])


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


def unpack_tensors(parcel: Parcel, *, limit: int = LARGEST_VALUES, forms: Collection[Form] = _FORMS) -> dict[str, Float32]:
    """Return the tensors of a parcel, those that travelled as float32 as read-only views of its own bytes.

    Args:
        parcel: as it came.
        limit: most values of all tensors together; a few bytes can stand for many values.
        forms: in which they may have travelled.

    Raises:
        ProtocolError: the array is not flat .npy data, or the index does not fit it, exceeds the limit or has another form.
    """
    if set(parcel.arrays) != {TENSORS}:
        raise _misfit(f"{len(parcel.arrays)} arrays, or one of another name")
    flat = _read_flat(parcel.arrays[TENSORS])
    segments = _read_index(parcel.index, limit=limit, forms=forms)
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


def _read_index(text: str, *, limit: int, forms: Collection[Form]) -> list[Segment]:
    """Return the lines of an index after checking its length, each line by itself, their names and the sum of their values."""
    if len(text) > LONGEST_INDEX:
        raise _misfit(f"an index of {len(text)} characters, where {LONGEST_INDEX} can be")
    try:
        lines = _INDEX_ADAPTER.validate_json(text, strict=True)
    except ValidationError as error:
        raise _misfit("an index with a line that is none") from error
    segments = [Segment(*line) for line in lines]
    for segment in segments:
        if segment.form not in forms:
            raise _misfit(f"a tensor in the form {segment.form}, where {', '.join(sorted(forms))} can be")
        if not (1 <= segment.kept <= segment.size if segment.form == "s1" else segment.kept == 0):
            raise _misfit(f"{segment.kept} kept values in the form {segment.form}")
        if segment.size == 0 and segment.form != "f4":
            raise _misfit(f"no values in the form {segment.form}")
    if len({segment.name for segment in segments}) != len(segments):
        raise _misfit(f"an index of {len(segments)} tensors with a name twice")
    # How many more is not said: the number is the other side's, and Python does not print every one.
    if sum(segment.size for segment in segments) > limit:
        raise _misfit(f"{len(segments)} tensors with more values than the {limit} that can be")
    return segments


def _read_flat(array: Array) -> NDArray[np.uint8]:
    """Return a Flower Array as a read-only one-dimensional view after checking its header against its declaration."""
    if array.stype != _STYPE or array.dtype != _DTYPE:
        raise _misfit(f"{array.dtype!s:.60} as {array.stype!s:.60}")
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
        raise _misfit(f"{dtype} in {length} bytes, of another shape than they fill, or than is declared")
    return np.frombuffer(array.data, dtype=np.uint8, offset=stream.tell())


def _misfit(got: str) -> ProtocolError:
    return ProtocolError(
        "the tensors of a message cannot be read",
        got=shorten(got),
        expected="one flat .npy 1.0 array of bytes and its index",
        remedy=UPDATE,
    )


def write_request(request: TaskRequest, parcel: Parcel | None = None, *, digest: str = "") -> RecordDict:
    """Return the content of a message to a site: with tensors, or with the digest of tensors that the site holds, or with neither."""
    if parcel is not None:
        digest = parcel.digest or hash_tensors(unpack_tensors(parcel))
    return _write(TASK, request, parcel, {DIGEST: digest} if digest else {})


def read_task(content: RecordDict) -> TaskRequest:
    """Return a request by its document alone: of its tensors nothing is looked at.

    Raises:
        ProtocolError: another protocol version (`PROTOCOL_VERSION`) or model definition (`MODEL_DEFINITION`), or not a request.
    """
    return _read(content, TASK, TaskRequest)


def check_size(content: RecordDict, *, values: int) -> None:
    """Refuse a request read by `read_task` whose tensors would have more values, before memory is taken for them.

    Raises:
        ProtocolError: they would, or would travel in a form in which no model does, or there is no index of them.
    """
    if ARRAYS in content:
        _read_index(_index(content, TASK), limit=values, forms=DOWN)


def read_request(content: RecordDict) -> tuple[TaskRequest, dict[str, Float32]]:
    """Return a request and the tensors that came with it (none for DESCRIBE, and none where `read_digest` names them alone).

    Raises:
        ProtocolError: as read_task and check_size; or the tensors are not those of their digest.
    """
    request, tensors = read_task(content), _tensors(content, TASK, forms=DOWN)
    if ARRAYS in content and hash_tensors(tensors) != read_digest(content):
        raise ProtocolError(
            "the tensors of a request are not those it names", got="another digest", expected="their SHA-256", remedy="ask again"
        )
    return request, tensors


def read_digest(content: RecordDict) -> str:
    """Return the digest that a request read by `read_task` gives of its tensors; empty for a request about no tensors."""
    digest = content[TASK].get(DIGEST, "")
    if not isinstance(digest, str) or not (digest == "" or _DIGEST.fullmatch(digest)):
        raise ProtocolError("a request's digest is none", got=type(digest).__name__, expected="64 hexadecimal digits", remedy=UPDATE)
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


def _tensors(content: RecordDict, name: str, *, limit: int = LARGEST_VALUES, forms: Collection[Form] = _FORMS) -> dict[str, Float32]:
    """Return the tensors of a content whose records have been checked."""
    record = content.get(ARRAYS)
    return unpack_tensors(Parcel(record, _index(content, name)), limit=limit, forms=forms) if isinstance(record, ArrayRecord) else {}


def _index(content: RecordDict, name: str) -> str:
    index = content[name].get(INDEX)
    if not isinstance(index, str):
        raise _misfit("an array without an index")
    return index


def _read(content: RecordDict, name: str, kind: type[DocumentT]) -> DocumentT:
    """Return the one document of a content after checking that nothing else came with it."""
    _check_records(content, name)
    return parse_document(content[name].get(DOCUMENT), kind, name=name)


def _check_records(content: RecordDict, name: str) -> None:
    """Refuse a content whose records are not exactly the document and, perhaps, the arrays."""
    kinds = {key: type(record) for key, record in content.items()}
    if kinds.pop(name, None) is not ConfigRecord or kinds.pop(ARRAYS, ArrayRecord) is not ArrayRecord or kinds:
        found = itertools.islice(content.items(), 5)
        raise ProtocolError(
            "a message holds other records than the protocol names",
            got=", ".join(f"{shorten(key, 30)} ({type(record).__name__})" for key, record in found) or "none",
            expected=f"{name} (ConfigRecord), {ARRAYS} (ArrayRecord)",
            remedy=UPDATE,
        )
