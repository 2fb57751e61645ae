"""The file that lets a hospital in: whose it is, that nobody changed it, and the fingerprint that two people compare."""

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gmmas_runtime.enrolment_file import (
    fingerprint_of,
    is_enrolment_file,
    is_fingerprint,
    key_sha256,
    openssh_text,
    parse_public_key,
    read_enrolment,
    write_enrolment,
)
from gmmas_runtime.keys import make_node_key
from gmmas_runtime.signed_record import sign_record
from gmmas_schema.enrolment import Enrolment
from gmmas_schema.errors import TrustError
from gmmas_schema.messages import PROTOCOL_VERSION

KEY = ec.generate_private_key(ec.SECP384R1())
OTHER = ec.generate_private_key(ec.SECP384R1())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_enrolment(tmp_path / "north.enrolment.json", site="north", key=KEY, contact="Kim, radiology IT, +49 1234 567")
    return tmp_path / "north.enrolment.json"


def test_it_says_who_asks_to_be_let_in(file: Path) -> None:
    enrolment, key = read_enrolment(file)
    assert key == KEY.public_key()
    assert (enrolment.site, enrolment.contact) == ("north", "Kim, radiology IT, +49 1234 567")
    assert enrolment.protocol == PROTOCOL_VERSION
    assert enrolment.software
    assert is_enrolment_file(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert "PRIVATE" not in file.read_text()


def test_a_bare_key_is_none(tmp_path: Path) -> None:
    public = make_node_key(tmp_path / "north")
    assert not is_enrolment_file(public)
    assert not is_enrolment_file(tmp_path / "absent")
    with pytest.raises(TrustError, match="not to be trusted"):
        read_enrolment(public)


@pytest.mark.parametrize(
    "change",
    [
        {"site": "south"},
        {"contact": "somebody else"},
        {"software": "9.9"},
        {"made": "2026-01-01T00:00:00Z"},
        {"public_key": openssh_text(OTHER.public_key())},
    ],
)
def test_any_change_is_found(file: Path, change: dict[str, str]) -> None:
    content = json.loads(file.read_text())
    content["record"] |= change
    file.write_text(json.dumps(content))
    with pytest.raises(TrustError, match="not to be trusted"):
        read_enrolment(file)


def signed(path: Path, **changes: object) -> Path:
    record = Enrolment(site="north", public_key=openssh_text(KEY.public_key()), software="1", made=datetime.now(UTC)).model_dump(
        mode="json"
    )
    path.write_bytes(sign_record(record | changes, KEY))
    return path


@pytest.mark.parametrize(
    ("days", "taken"), [(0, True), (-29.9, True), (-30.1, False), (0.9, True), (1.1, False)], ids=["now", "month", "old", "ahead", "future"]
)
def test_it_is_taken_for_thirty_days(tmp_path: Path, days: float, taken: bool) -> None:
    made = datetime.now(UTC) + timedelta(days=days)
    path = signed(tmp_path / "file", made=made.isoformat())
    if taken:
        read_enrolment(path)
    else:
        with pytest.raises(TrustError, match=f"{made:%Y-%m-%d}") as caught:
            read_enrolment(path)
        assert "gmmas site enrolment" in caught.value.remedy


@pytest.mark.parametrize(
    "changes",
    [{"site": "Not a name"}, {"kind": "other"}, {"extra": 1}, {"contact": "two\nlines"}, {"contact": "x" * 201}, {"made": "2026"}],
)
def test_a_signed_file_of_another_form_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    with pytest.raises(TrustError, match="not to be trusted"):
        read_enrolment(signed(tmp_path / "file", **changes))


def test_a_signature_of_another_key_is_refused(tmp_path: Path) -> None:
    path = signed(tmp_path / "file")
    content = json.loads(path.read_text())
    path.write_bytes(sign_record(content["record"], OTHER))
    with pytest.raises(TrustError, match="another key"):
        read_enrolment(path)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(content=st.binary(max_size=300) | st.recursive(st.none() | st.text(), lambda v: st.lists(v) | st.dictionaries(
    st.sampled_from(["record", "signature", "public_key"]) , v), max_leaves=8).map(lambda v: json.dumps(v).encode()))  # fmt: skip
def test_any_file_is_read_or_refused_in_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(TrustError):
        read_enrolment(path)


def test_a_contact_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one line"):
        write_enrolment(tmp_path / "file", site="north", key=KEY, contact="a\tb")


def test_fingerprints_are_short_and_tell_keys_apart() -> None:
    sha256 = key_sha256(KEY.public_key())
    fingerprint = fingerprint_of(sha256)
    assert [len(part) for part in fingerprint.split("-")] == [4, 4, 4, 4]
    assert set(fingerprint) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567-")
    assert fingerprint_of("00" * 32) == "AAAA-AAAA-AAAA-AAAA"
    assert fingerprint_of("ff" * 32) == "7777-7777-7777-7777"
    assert is_fingerprint(fingerprint.lower().replace("-", " "), sha256)
    assert not is_fingerprint(fingerprint_of(key_sha256(OTHER.public_key())), sha256)
    assert not is_fingerprint("", sha256)


def test_keys_survive_their_text_and_others_are_refused() -> None:
    assert parse_public_key(openssh_text(KEY.public_key())) == KEY.public_key()
    smaller = ec.generate_private_key(ec.SECP256R1()).public_key()
    for text in ("", "ssh-rsa AAAA", openssh_text(smaller), openssh_text(ed25519.Ed25519PrivateKey.generate().public_key())):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"."):
            parse_public_key(text)
