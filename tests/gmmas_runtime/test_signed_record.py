import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_runtime.keys import load_node_key, make_node_key
from gmmas_runtime.signed_record import read_signed_record, sign_record
from gmmas_schema.errors import TrustError

RECORD = {"site": "north", "counts": {"cases": 40, "with t1": None}, "spacing": [1.0, 2.5]}


def test_a_record_comes_back_and_a_changed_one_does_not(tmp_path: Path) -> None:
    for name in ("north", "south"):
        make_node_key(tmp_path / name)
    key, other = load_node_key(tmp_path / "north"), load_node_key(tmp_path / "south")
    path = tmp_path / "record.json"
    path.write_bytes(sign_record(RECORD, key))
    assert read_signed_record(path, key.public_key()) == RECORD
    with pytest.raises(TrustError, match="another key"):
        read_signed_record(path, other.public_key())
    content = json.loads(path.read_bytes())
    content["record"]["counts"]["cases"] = 41
    path.write_text(json.dumps(content))
    with pytest.raises(TrustError, match="was changed"):
        read_signed_record(path, key.public_key())


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"record": 1, "signature": ""}', b'{"record": {}, "signature": "%"}', b"\xff", b"[" * 100_000]
)
def test_what_is_no_record_is_refused(tmp_path: Path, content: bytes) -> None:
    make_node_key(tmp_path / "north")
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(TrustError, match="not to be trusted"):
        read_signed_record(tmp_path / "record.json", load_node_key(tmp_path / "north").public_key())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> ec.EllipticCurvePrivateKey:
    path = tmp_path_factory.mktemp("keys") / "north"
    make_node_key(path)
    return load_node_key(path)


@settings(max_examples=50)
@given(record=st.dictionaries(st.text(), VALUES))
def test_any_record_survives(tmp_path_factory: pytest.TempPathFactory, key: ec.EllipticCurvePrivateKey, record: dict[str, object]) -> None:
    path = tmp_path_factory.getbasetemp() / "record.json"
    path.write_bytes(sign_record(record, key))
    assert read_signed_record(path, key.public_key()) == record
