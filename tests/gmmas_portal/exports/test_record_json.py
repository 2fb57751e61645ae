import json

import pytest

from gmmas_portal.analysis import Analysis
from gmmas_portal.exports import read_record_json, record_json
from gmmas_schema.errors import DataError


def test_a_record_is_read_as_it_was_written(analysis: Analysis) -> None:
    content = record_json(analysis.record)
    assert read_record_json(content) == analysis.record
    document = json.loads(content)
    assert document["form"] == "gmmas-case-record/1"
    assert document["record"]["facts"][0]["id"] == analysis.record.facts[0].id


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"form": "gmmas-case-record/2", "record": {}}', b'{"form": "gmmas-case-record/1", "record": {}}']
)
def test_anything_else_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="record"):
        read_record_json(content)
