"""The enrolment file: a site's name and public key, signed with its private key, and the fingerprint by which two people compare keys.

The signature shows that the sender has the key and that nothing in the file was changed. It does not show who the sender is: anybody can
make a key. That is what the fingerprint is for, read out over a telephone number that the coordinator knew before:

    fingerprint = first 80 bits of SHA-256(public key as SubjectPublicKeyInfo, DER), in base 32 (RFC 4648) by fours, as ABCD-EFGH-IJKL-MNOP

To make another key with a given fingerprint takes 2^80 attempts.
"""

import base64
import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from gmmas_runtime.files import write_atomic
from gmmas_runtime.signed_record import read_signed_record, sign_record
from gmmas_schema.enrolment import ENROLMENT_DAYS, Enrolment
from gmmas_schema.errors import TrustError

SUFFIX: Final = ".enrolment.json"
_FINGERPRINT_BYTES: Final = 10
_LONGEST_FILE_BYTES: Final = 64 * 2**10
_FUTURE: Final = timedelta(days=1)


def key_sha256(key: ec.EllipticCurvePublicKey) -> str:
    """Return the SHA-256 hex digest of a public key (SubjectPublicKeyInfo, DER)."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def fingerprint_of(sha256: str) -> str:
    """Return the fingerprint of a key, to be read out, from its SHA-256 hex digest."""
    text = base64.b32encode(bytes.fromhex(sha256)[:_FINGERPRINT_BYTES]).decode()
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4))


def is_fingerprint(told: str, sha256: str) -> bool:
    """Tell whether somebody read out the fingerprint of a key; capitals, blanks and dashes do not matter."""
    return re.sub(r"[^A-Za-z0-9]", "", told).upper() == fingerprint_of(sha256).replace("-", "")


def openssh_text(key: ec.EllipticCurvePublicKey) -> str:
    """Return a public key in OpenSSH form, one line."""
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def parse_public_key(text: str) -> ec.EllipticCurvePublicKey:
    """Return a public key from its OpenSSH form.

    Raises:
        ValueError: it is none on P-384.
    """
    try:
        key = serialization.load_ssh_public_key(text.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError("a key of another kind") from error
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1):
        return key
    raise ValueError("a key of another kind")


def write_enrolment(path: Path, *, site: str, key: ec.EllipticCurvePrivateKey, contact: str = "") -> Enrolment:
    """Write a site's enrolment file; an older one is replaced.

    Args:
        path: of the file; it may be read by anybody.
        site: its name.
        key: the node's private key, which signs and stays where it is.
        contact: whom the coordinator can call.

    Raises:
        ValueError: name or contact do not fit.
    """
    enrolment = Enrolment(
        site=site,
        public_key=openssh_text(key.public_key()),
        contact=contact,
        software=version("gmmas-fed"),
        made=datetime.now(UTC).replace(microsecond=0),
    )
    write_atomic(path, sign_record(enrolment.model_dump(mode="json"), key), mode=0o644)
    return enrolment


def is_enrolment_file(path: Path) -> bool:
    """Tell an enrolment file from a bare public key."""
    try:
        with path.open("rb") as handle:
            return handle.read(64).lstrip().startswith(b"{")
    except OSError:
        return False


def read_enrolment(path: Path) -> tuple[Enrolment, ec.EllipticCurvePublicKey]:
    """Return what an enrolment file says, and its key, which has signed it.

    Raises:
        TrustError: it is none, was changed, or is too old or from the future.
    """
    try:
        if path.stat().st_size > _LONGEST_FILE_BYTES:
            raise ValueError("more than an enrolment file holds")
        key = parse_public_key(json.loads(path.read_bytes())["record"]["public_key"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _refuse(path, f"no enrolment file: {type(error).__name__}") from error
    try:
        enrolment = Enrolment.model_validate(read_signed_record(path, key))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise _refuse(path, f"{faults:.200}") from error
    age = datetime.now(UTC) - enrolment.made
    if not -_FUTURE <= age <= timedelta(days=ENROLMENT_DAYS):
        raise _refuse(path, f"a file made on {enrolment.made:%Y-%m-%d}, today is {datetime.now(UTC):%Y-%m-%d}")
    return enrolment, key


def _refuse(path: Path, got: str) -> TrustError:
    return TrustError(
        "an enrolment file is not to be trusted",
        where=path,
        got=got,
        expected=f"a file as `gmmas site init` or `gmmas site enrolment` wrote it, at most {ENROLMENT_DAYS} days old",
        remedy="let the hospital make it anew with `gmmas site enrolment`, and check both clocks",
    )
