"""The record as JSON: one document with the form's name, so that a reader knows what it holds."""

import json
from typing import Final

from pydantic import ValidationError

from gmmas_schema.case_record import CaseRecord
from gmmas_schema.errors import DataError, ReasonCode

FORM: Final = "gmmas-case-record/1"


def record_json(record: CaseRecord) -> bytes:
    """Return a record as UTF-8 JSON."""
    document = {"form": FORM, "record": record.model_dump(mode="json")}
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def read_record_json(content: bytes) -> CaseRecord:
    """Return the record that record_json wrote.

    Raises:
        DataError: it is something else.
    """
    try:
        document = json.loads(content)
        if not isinstance(document, dict) or document.get("form") != FORM:
            raise TypeError("no record of this form")
        return CaseRecord.model_validate_json(json.dumps(document["record"]))
    except (ValueError, TypeError, KeyError) as error:
        got = f"{error.error_count()} faults" if isinstance(error, ValidationError) else type(error).__name__
        raise DataError(
            "a record cannot be read",
            got=got,
            expected=f"JSON of form {FORM}",
            remedy="export the record again",
            code=ReasonCode.DATA_UNREADABLE,
        ) from error
