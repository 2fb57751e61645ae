"""The key of the SuperLink's administration: key = HMAC-SHA256(superexec.secret, "gmmas control"), RFC 2104.

server.superlink asks for it, server.control sends it. It is derived, so that a coordinator has one secret to protect.
"""

import hashlib
import hmac
from typing import Final

CONTROL_HEADER: Final = "x-gmmas-control"


def control_key(secret: bytes) -> str:
    """Return the key in hexadecimal digits, from the contents of superexec.secret."""
    return hmac.new(secret, b"gmmas control", hashlib.sha256).hexdigest()
