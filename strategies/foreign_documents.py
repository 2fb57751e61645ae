"""A JSON document from the other side as one of our types: bounded before it is parsed, and hardly quoted where it is refused.

    length -> JSON -> versions -> printable texts -> keys and bounds of the type

Parsed, a text can take thirty times its own memory, so its length comes first. A text that is not printable could make further lines, or
colours, of a log, an event or a terminal, so no document has one, in whatever field or key; what is refused is named in a line of ours.
"""

import json
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.messages import PROTOCOL_VERSION
from gmmas_schema.model import MODEL_DEFINITION_VERSION
from gmmas_schema.printable import printable

DocumentT = TypeVar("DocumentT", bound=BaseModel)

LONGEST_DOCUMENT: Final = 2**18
"""Characters; the longest that anybody writes, with figures by subset and sums for calibration, has about 2^16."""

UPDATE: Final = "run the same release of gmmas-fed on both sides"

_LONGEST_LINE: Final = 200
_LONGEST_KEY: Final = 60
_FAULTS_NAMED, _FAULTS_LISTED = 5, 100
_LARGEST_VERSION: Final = 10**6


def parse_document(text: object, kind: type[DocumentT], *, name: str) -> DocumentT:
    """Return the document that a text holds.

    Args:
        text: as it came, of whatever type.
        kind: what it must be.
        name: of its record, for the error.

    Raises:
        ProtocolError: another protocol version (code PROTOCOL_VERSION) or model definition (MODEL_DEFINITION), or no such document.
    """
    raw = _parse(text, name)
    _check_versions(raw)
    _check_texts(raw, name)
    try:
        return kind.model_validate_json(str(text))
    except ValidationError as error:
        raise _misfit(f"{name} is not a {kind.__name__}", name, name_faults(error), f"protocol {PROTOCOL_VERSION}") from error


def name_faults(error: ValidationError) -> str:
    """Return where the first faults are and of what kind, as one short printable line: keys are the other side's words."""
    if error.error_count() > _FAULTS_LISTED:  # listed, they take a hundred times the memory of the document
        return f"{error.error_count()} faults"
    faults = error.errors(include_url=False, include_context=False, include_input=False)[:_FAULTS_NAMED]
    return "; ".join(f"{shorten('.'.join(map(str, fault['loc'])), _LONGEST_KEY)}: {fault['type']}" for fault in faults)[:_LONGEST_LINE]


def shorten(text: str, longest: int = _LONGEST_LINE) -> str:
    """Return the beginning of a text without what is not printable."""
    return printable(text[:longest])


def _parse(text: object, name: str) -> dict[str, Any]:
    if isinstance(text, str) and len(text) > LONGEST_DOCUMENT:
        raise _misfit(f"{name} is too long", name, f"{len(text)} characters", f"{LONGEST_DOCUMENT} at most")
    try:
        raw = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        raw = None
    if not isinstance(raw, dict):
        raise _misfit(f"{name} holds no document", name, type(text).__name__, "a JSON object")
    return raw


def _check_versions(raw: dict[str, Any]) -> None:
    """Name a version conflict as such, before an unknown key of a newer version is called a fault."""
    if raw.get("protocol") != PROTOCOL_VERSION:
        raise ProtocolError(
            "the other side speaks another protocol version",
            got=_worded(raw.get("protocol")),
            expected=PROTOCOL_VERSION,
            remedy=UPDATE,
            code=ReasonCode.PROTOCOL_VERSION,
        )
    if "model" not in raw:
        return
    version = raw["model"].get("version") if isinstance(raw["model"], dict) else None
    if version != MODEL_DEFINITION_VERSION:
        raise ProtocolError(
            "the other side has another version of the network",
            got=_worded(version),
            expected=MODEL_DEFINITION_VERSION,
            remedy=UPDATE,
            code=ReasonCode.MODEL_DEFINITION,
        )


def _worded(version: object) -> str:
    """Return a version as it may be quoted: what is none is no text of ours."""
    return str(version) if isinstance(version, int) and abs(version) < _LARGEST_VERSION else type(version).__name__


def _check_texts(raw: dict[str, Any], name: str) -> None:
    """Refuse a document with a key or a value that is not printable."""
    left: list[object] = [raw]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value
        elif isinstance(value, str) and not value.isprintable():
            raise _misfit(f"{name} holds a text that is not printable", name, f"{len(value)} characters", "texts of one line each")


def _misfit(what: str, where: str, got: str, expected: str) -> ProtocolError:
    return ProtocolError(what, where=where, got=got, expected=expected, remedy=UPDATE)
