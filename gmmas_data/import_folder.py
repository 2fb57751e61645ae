"""A cohort's folder while studies are imported into it: one import at a time, and the key under which identifiers are hashed.

The key is made with the first import and stays beside the cases (import.key, rights 0600).
"""

import fcntl
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gmmas_runtime.files import read_hex, write_atomic
from gmmas_schema.errors import ConfigError

Progress = Callable[[str, int, int], None]
"""Called with (what is done next, steps done, steps in all)."""

_KEY_NAME = "import.key"
_LOCK_NAME = ".import.lock"


@contextmanager
def held_for_import(target: Path, *, on_progress: Progress | None = None) -> Iterator[bytes]:
    """Hold a cohort's folder, which is made, and give its key; another import waits, for it would clear away what this one has begun.

    Raises:
        ConfigError: the key cannot be used.
    """
    target.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(target / _LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_progress is not None:
                on_progress("waiting for another import into this folder", 0, 1)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield _read_key(target / _KEY_NAME)
    finally:
        os.close(descriptor)


def keyed(key: bytes, kind: str, text: str) -> str:
    """Return the keyed hash of an identifier of some kind, in hexadecimal digits."""
    return hmac.new(key, f"{kind}|{text}".encode(), hashlib.sha256).hexdigest()


def _read_key(path: Path) -> bytes:
    if not path.exists():
        write_atomic(path, secrets.token_hex(32).encode())
    return read_hex(path, fewest=32, refuse=lambda got: _bad_key(path, got))


def _bad_key(path: Path, got: str) -> ConfigError:
    return ConfigError(
        "the key of the import cannot be used",
        where=path,
        got=got,
        expected="64 hexadecimal digits, as the first import wrote them",
        remedy="restore the file; without it patients get other names than before",
    )
