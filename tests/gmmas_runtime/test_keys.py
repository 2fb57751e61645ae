import datetime
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from gmmas_runtime import keys
from gmmas_runtime.keys import (
    check_private_file,
    check_server_certificate,
    issue_server_certificate,
    load_certificate,
    load_node_key,
    load_private_key,
    load_public_key,
    make_authority,
    make_node_key,
)
from gmmas_schema.errors import TrustError


@pytest.fixture(scope="module")
def authority_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("authority")
    make_authority(folder, name="test authority")
    return folder


def rights(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def handshake(server_folder: Path, authority: Path, *, host: str) -> str | None:
    """Make a TLS handshake in memory with Python's own verifier; return the client's complaint or None."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(server_folder / "server.pem", server_folder / "server.key")
    client = ssl.create_default_context(cafile=str(authority))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server_end = server.wrap_bio(to_server, to_client, server_side=True)
    client_end = client.wrap_bio(to_client, to_server, server_hostname=host)
    for _ in range(4):
        for end in (client_end, server_end):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                return str(error)
    return None


def test_authority_and_certificate_satisfy_a_strict_verifier(authority_folder: Path, tmp_path: Path) -> None:
    issue_server_certificate(authority_folder, tmp_path, hosts=["coordinator.example", "10.1.2.3"])
    for host in ("coordinator.example", "10.1.2.3", "127.0.0.1", "localhost"):
        assert handshake(tmp_path, authority_folder / "authority.pem", host=host) is None
    assert "Hostname mismatch" in str(handshake(tmp_path, authority_folder / "authority.pem", host="elsewhere.example"))
    assert check_server_certificate(tmp_path, authority_certificate=authority_folder / "authority.pem").key_path == tmp_path / "server.key"


def test_another_authority_is_refused(authority_folder: Path, tmp_path: Path) -> None:
    other = make_authority(tmp_path / "other", name="other")
    issue_server_certificate(tmp_path / "other", tmp_path / "server", hosts=[])
    assert "certificate verify failed" in str(handshake(tmp_path / "server", authority_folder / "authority.pem", host="localhost"))
    with pytest.raises(TrustError, match="another authority"):
        check_server_certificate(tmp_path / "server", authority_certificate=authority_folder / "authority.pem")
    assert other.certificate_path.exists()


def test_private_files_are_private_and_public_ones_are_not(authority_folder: Path, tmp_path: Path) -> None:
    issued = issue_server_certificate(authority_folder, tmp_path, hosts=[])
    public = make_node_key(tmp_path / "node.key")
    assert [rights(path) for path in (authority_folder / "authority.key", issued.key_path, tmp_path / "node.key")] == [0o600] * 3
    assert [rights(path) for path in (authority_folder / "authority.pem", issued.certificate_path, public)] == [0o644] * 3
    assert rights(authority_folder) == 0o700


def test_nothing_is_overwritten_unless_a_certificate_is_renewed(authority_folder: Path, tmp_path: Path) -> None:
    make_node_key(tmp_path / "node.key")
    issue_server_certificate(authority_folder, tmp_path, hosts=[])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for attempt in (
        lambda: make_node_key(tmp_path / "node.key"),
        lambda: issue_server_certificate(authority_folder, tmp_path, hosts=[]),
        lambda: make_authority(authority_folder, name="again"),
    ):
        with pytest.raises(TrustError, match="never overwritten"):
            attempt()
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    issue_server_certificate(authority_folder, tmp_path, hosts=["new.example"], replace=True)
    assert handshake(tmp_path, authority_folder / "authority.pem", host="new.example") is None


def test_node_key_round_trip(tmp_path: Path) -> None:
    public_path = make_node_key(tmp_path / "keys" / "node.key")
    assert public_path == tmp_path / "keys" / "node.key.pub"
    assert load_node_key(tmp_path / "keys" / "node.key").public_key() == load_public_key(public_path)


def test_missing_file_says_so(tmp_path: Path) -> None:
    for load in (load_node_key, load_public_key, load_certificate, load_private_key, check_private_file):
        with pytest.raises(TrustError, match="cannot be read") as caught:
            load(tmp_path / "absent")
        assert caught.value.where == str(tmp_path / "absent")
        assert caught.value.remedy


def test_open_rights_are_refused_with_the_command_that_mends_them(tmp_path: Path) -> None:
    make_node_key(tmp_path / "node.key")
    (tmp_path / "node.key").chmod(0o644)
    with pytest.raises(TrustError, match="0644") as caught:
        load_node_key(tmp_path / "node.key")
    assert f"chmod 600 {tmp_path / 'node.key'}" in caught.value.remedy


def write_private(path: Path, key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey, form: serialization.PrivateFormat) -> None:
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    path.chmod(0o600)


def test_wrong_kinds_of_key_are_named(tmp_path: Path) -> None:
    p256, edwards = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    write_private(tmp_path / "p256", p256, serialization.PrivateFormat.OpenSSH)
    write_private(tmp_path / "edwards", edwards, serialization.PrivateFormat.OpenSSH)
    write_private(tmp_path / "pkcs8", ec.generate_private_key(ec.SECP384R1()), serialization.PrivateFormat.PKCS8)
    with pytest.raises(TrustError, match="secp256r1"):
        load_node_key(tmp_path / "p256")
    with pytest.raises(TrustError, match="Ed25519"):
        load_node_key(tmp_path / "edwards")
    with pytest.raises(TrustError, match="OpenSSH"):
        load_node_key(tmp_path / "pkcs8")
    public = p256.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (tmp_path / "p256.pub").write_bytes(public)
    with pytest.raises(TrustError, match="secp256r1"):
        load_public_key(tmp_path / "p256.pub")


def test_a_private_key_handed_in_as_public_is_refused_without_quoting_it(tmp_path: Path) -> None:
    make_node_key(tmp_path / "node.key")
    with pytest.raises(TrustError, match="must never leave") as caught:
        load_public_key(tmp_path / "node.key")
    secret = (tmp_path / "node.key").read_text().splitlines()[1]
    assert secret not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xfe\x00", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_damaged_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "damaged"
    path.write_bytes(content)
    path.chmod(0o600)
    for load in (load_node_key, load_public_key, load_certificate, load_private_key):
        with pytest.raises(TrustError, match="not the kind"):
            load(path)


def test_expired_certificate_names_its_dates(authority_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issue_server_certificate(authority_folder, tmp_path, hosts=[])
    last = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes()).not_valid_after_utc
    monkeypatch.setattr(keys, "_now", lambda: last + datetime.timedelta(days=1))
    with pytest.raises(TrustError, match=f"to {last:%Y-%m-%d}"):
        load_certificate(tmp_path / "server.pem")


def test_key_of_another_certificate_is_refused(authority_folder: Path, tmp_path: Path) -> None:
    issue_server_certificate(authority_folder, tmp_path / "a", hosts=[])
    issue_server_certificate(authority_folder, tmp_path / "b", hosts=[])
    (tmp_path / "a" / "server.key").replace(tmp_path / "b" / "server.key")
    with pytest.raises(TrustError, match="does not fit its certificate"):
        check_server_certificate(tmp_path / "b", authority_certificate=authority_folder / "authority.pem")
