"""The keys that the members of a secure round are enrolled with, as its two halves want them."""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server.membership import Member


def enrolled_key(member: Member) -> ec.EllipticCurvePublicKey | None:
    """Return a member's enrolled key; None where it has none on P-384."""
    try:
        key = serialization.load_pem_public_key(member.node.public_key)
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP384R1) else None


def openssh(member: Member) -> str:
    """Return a member's enrolled key as it stands in a .pub file, without a comment."""
    key = enrolled_key(member)
    assert key is not None, "a site without an enrolled key has been refused"
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
