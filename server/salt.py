"""The federation's salt: a secret of the hospitals and the coordinator, without which keyed fingerprints say nothing.

fingerprint.salt     64 hexadecimal digits, rights 0600; handed to the hospitals, to no one else
"""

import secrets
from pathlib import Path
from typing import Final

from gmmas_runtime.files import write_atomic
from gmmas_schema.audit import SALT_BYTES
from gmmas_schema.errors import TrustError
from server.folder import CoordinatorFolder

SALT_FILE: Final = "fingerprint.salt"


def make_salt(folder: CoordinatorFolder) -> Path:
    """Make the salt; returns its path.

    Raises:
        TrustError: there is one: with another, fingerprints that hospitals have sent would not be found any more.
    """
    path = folder.path / SALT_FILE
    if path.exists():
        raise TrustError(
            "the federation has a salt",
            where=path,
            got="an existing file",
            expected="none",
            remedy="use it as it is; for another, move it away, and ask every hospital for its aggregate anew",
        )
    write_atomic(path, secrets.token_hex(SALT_BYTES).encode() + b"\n")
    return path
