import json
import time
import tracemalloc

import pytest

from gmmas_schema.errors import ProtocolError, ReasonCode
from gmmas_schema.messages import PROTOCOL_VERSION, Action, SiteReport, TaskRequest
from gmmas_schema.model import ModelDefinition
from strategies.foreign_documents import LONGEST_DOCUMENT, parse_document

REPORT = SiteReport(site="north", run="r", round=1, model_digest="d")
FIELDS = REPORT.model_dump(mode="json")
REQUEST = TaskRequest(action=Action.TRAIN, run="r", round=1, rounds=2, seed=3, model=ModelDefinition())
ESCAPES = "\x1b]0;owned\x07\x1b[2J\n"


def refusal(text, kind=SiteReport):
    with pytest.raises(ProtocolError) as caught:
        parse_document(text, kind, name="report")
    return caught.value


def test_a_document_is_read_as_it_was_written():
    for document in (REPORT, REQUEST):
        assert parse_document(document.model_dump_json(), type(document), name="report") == document


@pytest.mark.parametrize("text", [None, b"{}", 1, "", "{", "[1]", '"a"', '{"a":' * 10_000, json.dumps(FIELDS)[:-1]])
def test_what_is_no_object_is_refused(text):
    assert refusal(text).code is ReasonCode.PROTOCOL


@pytest.mark.parametrize(
    ("version", "worded"),
    [
        (PROTOCOL_VERSION + 1, str(PROTOCOL_VERSION + 1)),
        (None, "NoneType"),
        ("Jane Doe", "str"),
        ([1] * 1000, "list"),
        (10**4000, "int"),
        (-(10**4000), "int"),
    ],
)
def test_another_version_is_named_before_its_unknown_keys_and_quoted_only_where_it_may_be_one(version, worded):
    error = refusal(json.dumps({"protocol": version, "something": "new"}))
    assert (error.code, error.got) == (ReasonCode.PROTOCOL_VERSION, worded)


@pytest.mark.parametrize("model", [None, {}, {"version": 2, "other": {}}, {"version": "Jane Doe"}, ["Jane Doe"]])
def test_another_version_of_the_network_is_named_as_such(model):
    error = refusal(json.dumps(REQUEST.model_dump(mode="json") | {"model": model}), TaskRequest)
    assert error.code is ReasonCode.MODEL_DEFINITION
    assert "Jane" not in error.explain()


def test_a_long_text_is_refused_before_it_is_parsed():
    text = '{"protocol":5,"x":[' + ",".join(["{}"] * 3_000_000) + "]}"
    tracemalloc.start()
    try:
        error = refusal(text)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert "too long" in error.what
    within = json.dumps(FIELDS | {"secure": "x" * 8000})
    assert parse_document(within.ljust(LONGEST_DOCUMENT), SiteReport, name="report").secure == "x" * 8000
    assert "too long" in refusal(within.ljust(LONGEST_DOCUMENT + 1)).what


@pytest.mark.parametrize(
    "change",
    [
        {ESCAPES: 1},
        {"site": ESCAPES},
        {"site": "\ud800"},
        {"losses": {ESCAPES: 0.1}},
        {"evaluation": {"split": "test", "cases": 1, "against": ESCAPES}},
        {"subsets": [{"a": [[{"b": ESCAPES}]]}]},
    ],
)
def test_no_text_of_a_document_is_anything_but_one_printable_line(change):
    error = refusal(json.dumps(FIELDS | change))
    assert "not printable" in error.what
    assert all(line.isprintable() for line in error.explain().split("\n"))


@pytest.mark.parametrize(
    "change",
    [
        {"k" * 200_000: 1},
        {"losses": {"k" * 200_000: 1}},
        {f"{n}": 1 for n in range(20_000)},
        {"modalities": [1] * 80_000},
        {"labelled": dict.fromkeys(map(str, range(10_000)), -1)},
    ],
)
def test_faults_are_named_in_one_short_line(change):
    begin = time.process_time()
    error = refusal(json.dumps(FIELDS | change))
    assert error.code is ReasonCode.PROTOCOL
    assert 0 < len(error.got) <= 200
    assert len(error.explain()) < 500
    assert time.process_time() - begin < 2


def test_the_first_faults_are_named_by_key():
    error = refusal(json.dumps({key: value for key, value in FIELDS.items() if key != "run"} | {"surprise": 1, "round": -1}))
    assert error.got == "run: missing; round: greater_than_equal; surprise: extra_forbidden"
