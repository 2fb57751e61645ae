"""Agreement, sealing and signing: the few uses of `cryptography` that the protocol makes, with nothing to choose.

X25519 (RFC 7748) for agreement, HKDF-SHA256 (RFC 5869) for every key, AES-256-GCM (NIST SP 800-38D) for what one site tells another through
the coordinator, ECDSA on P-384 with SHA-384 (FIPS 186-5) under the identity a node was enrolled with, as r and s of 48 bytes each. Whatever
is derived, sealed or signed names its purpose first, so that nothing made for one purpose serves another.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gmmas_schema.errors import ProtocolError, ReasonCode

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
SIGNATURE_BYTES: Final = 96
_DOMAIN: Final = "gmmas-secure-1"


@dataclass(frozen=True)
class KeyPair:
    """An X25519 key pair of one attempt; the private half is in no representation of this object."""

    public: bytes
    private: bytes = field(repr=False)

    @classmethod
    def make(cls) -> Self:
        """Draw a new pair."""
        return cls.from_private(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_private(cls, private: bytes) -> Self:
        """Return the pair of a private key of 32 bytes."""
        return cls(X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw(), private)

    def agree(self, other_public: bytes) -> bytes:
        """Return the secret of 32 bytes that both owners can compute.

        Raises:
            ProtocolError: the other key has small order (code TRUST).
        """
        try:
            return X25519PrivateKey.from_private_bytes(self.private).exchange(X25519PublicKey.from_public_bytes(other_public))
        except ValueError as error:
            raise untrusted("a public key", "a key that gives no secret", "an X25519 public key") from error


def bind(*parts: str | bytes) -> bytes:
    """Return the parts as one string of bytes that no other parts give: the domain, then each part behind its length."""
    raw = [part.encode() if isinstance(part, str) else part for part in (_DOMAIN, *parts)]
    return b"".join(len(part).to_bytes(8, "big") + part for part in raw)


def digest(*parts: str | bytes) -> bytes:
    """Return the SHA-256 of the bound parts."""
    return hashlib.sha256(bind(*parts)).digest()


def derive_key(secret: bytes, *purpose: str | bytes) -> bytes:
    """Return a key of 32 bytes for one purpose."""
    return HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=bind("derive", *purpose)).derive(secret)


def seal(key: bytes, plain: bytes, *, purpose: bytes) -> bytes:
    """Return nonce, ciphertext and tag; `purpose` must be the same for opening."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, purpose)


def unseal(key: bytes, sealed: bytes, *, purpose: bytes, plain_bytes: int, where: str) -> bytes:
    """Return what was sealed.

    Raises:
        ProtocolError: another length, key or purpose, or changed on the way (code TRUST).
    """
    if len(sealed) != NONCE_BYTES + plain_bytes + TAG_BYTES:
        raise untrusted(where, f"{len(sealed)} bytes", f"{NONCE_BYTES + plain_bytes + TAG_BYTES} bytes")
    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], purpose)
    except InvalidTag as error:
        raise untrusted(where, "bytes that another key sealed, or that were changed", "what the peer sealed for this site") from error


def sign(identity: ec.EllipticCurvePrivateKey, *parts: str | bytes) -> bytes:
    """Return the identity's signature of the bound parts, of SIGNATURE_BYTES."""
    numbers = decode_dss_signature(identity.sign(bind("signed", *parts), ec.ECDSA(hashes.SHA384())))
    return b"".join(number.to_bytes(SIGNATURE_BYTES // 2, "big") for number in numbers)


def check_signature(identity: ec.EllipticCurvePublicKey, signature: bytes, *parts: str | bytes, where: str) -> None:
    """Check a signature of the bound parts.

    Raises:
        ProtocolError: it is not by this identity, or not of this (code TRUST).
    """
    r, s = (int.from_bytes(half, "big") for half in (signature[: SIGNATURE_BYTES // 2], signature[SIGNATURE_BYTES // 2 :]))
    try:
        identity.verify(encode_dss_signature(r, s), bind("signed", *parts), ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise untrusted(where, "a signature that does not fit", "one by the enrolled key, for this very attempt") from error


def check_distinct(identities: Mapping[str, ec.EllipticCurvePublicKey], *, where: str) -> None:
    """Refuse one identity under two names: it would count as two sites of a threshold, and as two of those behind a sum.

    Args:
        identities: enrolled keys by site.
        where: they come from, for the error.

    Raises:
        ProtocolError: two names have one key (code TRUST).
    """
    known: dict[bytes, str] = {}
    for site, identity in sorted(identities.items()):
        point = identity.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
        if (other := known.setdefault(point, site)) != site:
            raise untrusted(where, f"one key under two names, {other} and {site}", "a key of its own for every site")


def untrusted(where: str, got: str, expected: str) -> ProtocolError:
    """Return the error for something that is not what its owner would have sent."""
    return ProtocolError(
        "secure aggregation refuses what it cannot trust",
        where=where,
        got=got,
        expected=expected,
        remedy="compare the enrolled keys (`gmmas server sites`) with the hospitals' own; if they agree, look at the sites' logs",
        code=ReasonCode.TRUST,
    )
