"""Keys and certificates of a federation: the coordinator's authority, server certificates, and the keys of the nodes.

Everything is on NIST P-384. Certificates are PEM; node keys are in OpenSSH form, the only one Flower reads. A private file has
rights 0600 and is never overwritten: a lost authority would cut off every enrolled hospital.
"""

import datetime
import ipaddress
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_schema.errors import TrustError

AUTHORITY_CERTIFICATE, AUTHORITY_KEY = "authority.pem", "authority.key"
SERVER_CERTIFICATE, SERVER_KEY = "server.pem", "server.key"
SIGNING_CERTIFICATE, SIGNING_KEY = "signing.pem", "signing.key"
AUTHORITY_DAYS, SERVER_DAYS = 3653, 825
LOOPBACK_HOSTS = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class Authority:
    """Paths of a certificate authority; the certificate is public, the key stays where it was made."""

    certificate_path: Path
    key_path: Path


@dataclass(frozen=True)
class ServerCertificate:
    """Paths of a TLS server's certificate and key."""

    certificate_path: Path
    key_path: Path


def make_authority(folder: Path, *, name: str) -> Authority:
    """Make a certificate authority (P-384, ten years, may sign leaf certificates only).

    Raises:
        TrustError: the folder already holds one.
    """
    make_private_folder(folder)
    authority = Authority(folder / AUTHORITY_CERTIFICATE, folder / AUTHORITY_KEY)
    _refuse_existing(authority.certificate_path, authority.key_path)
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject=subject, issuer=subject, key=key.public_key(), days=AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    _write_pair(authority.certificate_path, certificate, authority.key_path, key)
    return authority


def issue_server_certificate(authority_folder: Path, folder: Path, *, hosts: Sequence[str], replace: bool = False) -> ServerCertificate:
    """Issue a TLS server certificate for the named hosts; 127.0.0.1 and localhost are always among them.

    Args:
        authority_folder: where make_authority() put its files.
        folder: where server.pem and server.key go.
        hosts: DNS names or IP addresses by which clients reach the server.
        replace: renew an existing certificate (clients that trust the authority notice nothing).

    Raises:
        TrustError: the authority is missing, damaged, expired or readable by others, or a certificate exists and `replace` is off.
    """
    make_private_folder(folder)
    issued = ServerCertificate(folder / SERVER_CERTIFICATE, folder / SERVER_KEY)
    if not replace:
        _refuse_existing(issued.certificate_path, issued.key_path)
    authority = load_certificate(authority_folder / AUTHORITY_CERTIFICATE)
    authority_key = load_private_key(authority_folder / AUTHORITY_KEY)
    _check_pair(authority, authority_key, authority_folder / AUTHORITY_KEY)
    key = ec.generate_private_key(ec.SECP384R1())
    names = tuple(dict.fromkeys([*hosts, *LOOPBACK_HOSTS]))
    days = min(SERVER_DAYS, (authority.not_valid_after_utc - _now()).days)
    certificate = (
        _builder(
            subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]),
            issuer=authority.subject,
            key=key.public_key(),
            days=days,
        )
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA384())
    )
    _write_pair(issued.certificate_path, certificate, issued.key_path, key)
    return issued


def issue_signing_certificate(authority_folder: Path, folder: Path, *, name: str) -> None:
    """Issue the certificate by which a coordinator signs models: signing.pem and signing.key, valid as long as the authority.

    Raises:
        TrustError: the authority is missing, damaged, expired or readable by others, or a certificate exists.
    """
    make_private_folder(folder)
    certificate_path, key_path = folder / SIGNING_CERTIFICATE, folder / SIGNING_KEY
    _refuse_existing(certificate_path, key_path)
    authority = load_certificate(authority_folder / AUTHORITY_CERTIFICATE)
    authority_key = load_private_key(authority_folder / AUTHORITY_KEY)
    _check_pair(authority, authority_key, authority_folder / AUTHORITY_KEY)
    key = ec.generate_private_key(ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    certificate = (
        _builder(subject=subject, issuer=authority.subject, key=key.public_key(), days=(authority.not_valid_after_utc - _now()).days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA384())
    )
    _write_pair(certificate_path, certificate, key_path, key)


def make_node_key(path: Path) -> Path:
    """Make a node's key pair (P-384, OpenSSH form); returns the path of the public half, `<path>.pub`.

    Raises:
        TrustError: one of the two files exists.
    """
    public_path = path.with_name(path.name + ".pub")
    _refuse_existing(path, public_path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP384R1())
    write_atomic(path, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()))
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    write_atomic(public_path, public + b" " + path.name.encode() + b"\n", mode=0o644)
    return public_path


def load_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Load and check a node's private key.

    Raises:
        TrustError: missing, readable by others, not an OpenSSH private key, or not on P-384.
    """
    raw = _read_private(path, remedy="make a key with `gmmas site init`, or give the right path in site.yaml")
    try:
        key = serialization.load_ssh_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _wrong_kind(path, raw, expected="an unencrypted P-384 private key in OpenSSH form (made by `gmmas site init`)") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _wrong_kind(path, raw, expected="a private key on P-384", got=_key_kind(key))
    return key


def load_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Load and check the public half of a node's key, as a hospital hands it to the coordinator.

    Raises:
        TrustError: missing, a private key, or not a P-384 public key in OpenSSH form.
    """
    raw = _read(path, remedy="give the .pub file that `gmmas site init` wrote at the hospital")
    if b"PRIVATE KEY" in raw:
        raise TrustError(
            "this is a private key",
            where=path,
            got="a private key",
            expected="the public half, a .pub file",
            remedy="a private key must never leave its hospital: make a new pair there with `gmmas site init` and send the .pub file only",
        )
    try:
        key = serialization.load_ssh_public_key(raw)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _wrong_kind(path, raw, expected="a P-384 public key in OpenSSH form (ecdsa-sha2-nistp384 ...)") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _wrong_kind(path, raw, expected="a public key on P-384 (ecdsa-sha2-nistp384 ...)", got=_key_kind(key))
    return key


def load_certificate(path: Path) -> x509.Certificate:
    """Load a PEM certificate and check that it is valid today.

    Raises:
        TrustError: missing, not a certificate, expired or not valid yet.
    """
    raw = _read(path, remedy="copy authority.pem from the coordinator, or give the right path")
    try:
        certificate = x509.load_pem_x509_certificate(raw)
    except ValueError as error:
        raise _wrong_kind(path, raw, expected="a PEM certificate") from error
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not first <= _now() <= last:
        raise TrustError(
            "a certificate is not valid today",
            where=path,
            got=f"valid from {first:%Y-%m-%d} to {last:%Y-%m-%d}, today is {_now():%Y-%m-%d}",
            expected="a certificate that is valid today",
            remedy="check this machine's clock; if it is right, the coordinator renews with `gmmas server renew`",
        )
    return certificate


def load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Load and check the PEM private key of a certificate.

    Raises:
        TrustError: missing, readable by others, or not an elliptic-curve private key.
    """
    raw = _read_private(path, remedy="restore it from the backup of this folder")
    try:
        key = serialization.load_pem_private_key(raw, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _wrong_kind(path, raw, expected="an unencrypted PEM private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise _wrong_kind(path, raw, expected="an elliptic-curve private key", got=_key_kind(key))
    return key


def check_server_certificate(folder: Path, *, authority_certificate: Path) -> ServerCertificate:
    """Check that a server's certificate is valid, fits its key and was issued by the authority; returns its paths.

    Raises:
        TrustError: any of the three does not hold.
    """
    issued = ServerCertificate(folder / SERVER_CERTIFICATE, folder / SERVER_KEY)
    authority, certificate = load_certificate(authority_certificate), load_certificate(issued.certificate_path)
    _check_pair(certificate, load_private_key(issued.key_path), issued.key_path)
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise TrustError(
            "a server certificate was issued by another authority",
            where=issued.certificate_path,
            got=certificate.issuer.rfc4514_string(),
            expected=f"a certificate issued by {authority_certificate}",
            remedy="issue a new one with `gmmas server renew`",
        ) from error
    return issued


def check_private_file(path: Path) -> None:
    """Check that a file exists and that only its owner can read it.

    Raises:
        TrustError: missing, or open to the group or others.
    """
    _read_private(path, remedy="check the path")


def _builder(*, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    # Five minutes back, so that a clock that is a little behind accepts a new certificate.
    first = _now() - datetime.timedelta(minutes=5)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(first + datetime.timedelta(days=days))
    )


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_pair(certificate_path: Path, certificate: x509.Certificate, key_path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_atomic(key_path, pem)
    write_atomic(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)


def _check_pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, key_path: Path) -> None:
    if certificate.public_key() != key.public_key():
        raise TrustError(
            "a private key does not fit its certificate",
            where=key_path,
            got="the key of another certificate",
            expected=f"the key of {certificate.subject.rfc4514_string()}",
            remedy="restore both files from the same backup",
        )


def _refuse_existing(*paths: Path) -> None:
    for path in paths:
        if path.exists():
            raise TrustError(
                "a key or certificate exists already and is never overwritten",
                where=path,
                got="an existing file",
                expected="no file of that name",
                remedy="use it as it is; to start anew, move the old file away first (everything that trusts it must then be set up again)",
            )


def _read(path: Path, *, remedy: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TrustError(
            "a key or certificate file cannot be read",
            where=path,
            got=error.strerror or type(error).__name__,
            expected="a readable file",
            remedy=remedy,
        ) from error


def _read_private(path: Path, *, remedy: str) -> bytes:
    raw = _read(path, remedy=remedy)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise TrustError(
            "a private file can be read by others",
            where=path,
            got=f"rights {mode:04o}",
            expected="rights 0600",
            remedy=f"run `chmod 600 {path}`, and make a new key if others use this machine",
        )
    return raw


def _wrong_kind(path: Path, raw: bytes, *, expected: str, got: str = "") -> TrustError:
    if not got and b"PRIVATE" in raw:  # never quote a secret
        got = "another kind of private key, or a damaged one"
    elif not got:
        got = f"a file that begins with {raw[:40].decode('ascii', 'replace')!r}" if raw else "an empty file"
    what = "a file is not the kind of key or certificate needed here"
    return TrustError(what, where=path, got=got, expected=expected, remedy="give the right file")


def _key_kind(key: object) -> str:
    curve = getattr(key, "curve", None)
    return f"a key on {curve.name}" if curve is not None else f"a key of kind {type(key).__name__.strip('_')}"


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
