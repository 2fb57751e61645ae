"""A JSON record signed with a node's key, so that the coordinator knows whose it is and that nobody changed it on the way.

{"record": {...}, "signature": base64 of ECDSA P-384 over SHA-384 of the record's canonical JSON}
"""

import base64
import binascii
import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from gmmas_schema.errors import TrustError

_MAXIMUM_BYTES = 64 * 2**20


def sign_record(record: dict[str, Any], key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the file of a record: canonical JSON with its signature."""
    signature = key.sign(_canonical(record), ec.ECDSA(hashes.SHA384()))
    return json.dumps({"record": record, "signature": base64.b64encode(signature).decode()}, sort_keys=True, indent=1).encode()


def read_signed_record(path: Path, public_key: ec.EllipticCurvePublicKey) -> dict[str, Any]:
    """Return the record of a signed file.

    Raises:
        TrustError: the file cannot be read, is no signed record, or was not signed with this key.
    """
    try:
        if path.stat().st_size > _MAXIMUM_BYTES:
            raise ValueError(f"more than {_MAXIMUM_BYTES} bytes")
        content = json.loads(path.read_bytes())
        record, signature = content["record"], base64.b64decode(content["signature"], validate=True)
        if not isinstance(record, dict):
            raise TypeError("the record is no object")
        public_key.verify(signature, _canonical(record), ec.ECDSA(hashes.SHA384()))
    except InvalidSignature as error:
        raise _refuse(path, "a signature of another key, or a record that was changed") from error
    except (OSError, ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
        raise _refuse(path, f"{type(error).__name__}: {error}") from error
    return record


def _canonical(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def _refuse(path: Path, got: str) -> TrustError:
    return TrustError(
        "a signed record is not to be trusted",
        where=path,
        got=got,
        expected="a file as the site wrote it, signed with the site's key",
        remedy="ask the site for the file again, and check that its .pub file is the enrolled one",
    )
