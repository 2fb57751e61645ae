"""Files encrypted at rest: the one place where the bytes of checkpoints, site states and cached samples meet the disk.

AES-256-GCM (NIST SP 800-38D) by the package `cryptography`. A sealed file is

    "GMMASEAL" | version, 1 byte | key id, 8 bytes | nonce, 12 bytes | ciphertext | tag, 16 bytes

and authenticates its header together with what it is: the run, the round and the name of the file, or the key of a cached sample. So a file
that was changed, cut, renamed or put in the place of another is refused, a sealed file of an earlier round under a later one's name too.
A folder as a whole put back to an older state is not noticed. Nonces are random, which is safe for 2^32 files of one key.

The keys are in a key file of rights 0600, newest first: the first seals, all open. It belongs on another disk, or in a vault that provides
it at the start. Rotation puts a new key in front, seals every file anew, and only then drops the old keys; broken off anywhere, it goes on
when it is called again.
"""

import contextlib
import hashlib
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_runtime.keys import check_private_file
from gmmas_schema.errors import TrustError

MAGIC: Final = b"GMMASEAL"
VERSION: Final = b"\x01"
KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 8
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
LARGEST_BYTES: Final = 2**31 - 1 - TAG_BYTES
"""What the package encrypts at a time."""

_HEADER_BYTES: Final = len(MAGIC) + len(VERSION) + KEY_ID_BYTES
_NOTE: Final = "# Keys of sealed files, newest first. Whoever has this file can read them; without it nobody can: keep a copy elsewhere.\n"


@dataclass(frozen=True)
class KeyRing:
    """The keys of a key file.

    Attributes:
        keys: of 32 bytes; the first seals, all open.
    """

    keys: tuple[bytes, ...]

    @classmethod
    def read(cls, path: Path) -> "KeyRing":
        """Read a key file.

        Raises:
            TrustError: it is missing, open to others, or holds something else.
        """
        if not path.is_file():
            raise TrustError(
                "the key file of the encryption is missing",
                where=path,
                got="no such file",
                expected="the key file with which the files were sealed",
                remedy="bring it back from its copy, or mount the disk it is on; where nothing was ever sealed, `gmmas server rotate-key` "
                "or `gmmas site rotate-key` makes the first key",
            )
        check_private_file(path)
        status = path.stat()
        return _read_ring(path, status.st_mtime_ns, status.st_ino)

    def encode(self) -> bytes:
        """Return the content of a key file."""
        return (_NOTE + "".join(f"{key.hex()}\n" for key in self.keys)).encode()

    def find(self, identifier: bytes) -> bytes | None:
        """Return the key of an identifier, if it is here."""
        return next((key for key in self.keys if key_id(key) == identifier), None)

    def describe(self) -> str:
        """Return the identifiers of the keys; they tell nothing of the keys."""
        return ", ".join(key_id(key).hex() for key in self.keys)


@dataclass(frozen=True)
class Seal:
    """How files lie on the disk: sealed under a key file, or plain where there is none.

    The key file is read when a file is, so a process that only looks at records needs none, and a running one sees a new key.
    """

    key_file: Path | None = None

    def write(self, path: Path, data: bytes, *, context: str) -> None:
        """Write a file as a whole (gmmas_runtime.files.write_atomic), sealed where there is a key.

        Args:
            path: the file to make or replace.
            data: its content.
            context: what the file is; read() must be told the same.

        Raises:
            TrustError: the key file cannot be used, or the data are more than LARGEST_BYTES.
            OSError: the disk does not take it.
        """
        write_atomic(path, data if self.key_file is None else seal_bytes(data, ring=KeyRing.read(self.key_file), context=context))

    def read(self, path: Path, *, context: str) -> bytes:
        """Return the content of a file.

        Raises:
            TrustError: the key file cannot be used; the file is sealed by another key, was changed or put in the place of another, or is
                not sealed although it should be, or sealed although no key is named.
            OSError: the file cannot be read.
        """
        data = path.read_bytes()
        if self.key_file is not None:
            return open_bytes(data, ring=KeyRing.read(self.key_file), context=context, where=path)
        if data.startswith(MAGIC):
            raise TrustError(
                "a file is encrypted, and no key file is named",
                where=path,
                got=f"a file sealed by key {_id_of(data).hex()}",
                expected="`encryption.key_file` in coordinator.yaml, or in site.yaml",
                remedy="name the key file there",
            )
        return data


PLAIN: Final = Seal()


@dataclass(frozen=True)
class SealedFile:
    """A file that is, or is to be, sealed; `context` as in Seal.write."""

    path: Path
    context: str


@dataclass(frozen=True)
class Rotation:
    """What a rotation did: how many files were sealed anew, how many had been, and the identifier of the key."""

    sealed: int
    untouched: int
    key: str


def key_id(key: bytes) -> bytes:
    """Return what names a key in the files that it sealed."""
    return hashlib.sha256(b"gmmas sealed files key\0" + key).digest()[:KEY_ID_BYTES]


def seal_bytes(data: bytes, *, ring: KeyRing, context: str) -> bytes:
    """Return the sealed form of bytes.

    Raises:
        TrustError: more than LARGEST_BYTES.
    """
    if len(data) > LARGEST_BYTES:
        raise TrustError(
            "a file is too large to be encrypted", where=context, got=f"{len(data)} bytes", expected=f"at most {LARGEST_BYTES}"
        )
    key, nonce = ring.keys[0], secrets.token_bytes(NONCE_BYTES)
    header = MAGIC + VERSION + key_id(key)
    return header + nonce + AESGCM(key).encrypt(nonce, data, header + context.encode())


def open_bytes(data: bytes, *, ring: KeyRing, context: str, where: Path) -> bytes:
    """Return what was sealed.

    Raises:
        TrustError: the bytes are not sealed, or by a key that is not here, or not as they were sealed in this context.
    """
    if not data.startswith(MAGIC + VERSION):
        raise TrustError(
            "a file is not encrypted",
            where=where,
            got="a plain file" if not data.startswith(MAGIC) else "a seal of another version",
            expected="a file sealed under the key file",
            remedy="if it is from before encryption was set up, `gmmas server rotate-key` or `gmmas site rotate-key` seals it; "
            "else somebody has put it there",
        )
    key = ring.find(_id_of(data))
    if key is None:
        raise TrustError(
            "a file is encrypted with another key",
            where=where,
            got=f"key {_id_of(data).hex()}",
            expected=f"a key of the key file: {ring.describe()}",
            remedy="bring back the key file it was written with",
        )
    header, nonce = data[:_HEADER_BYTES], data[_HEADER_BYTES : _HEADER_BYTES + NONCE_BYTES]
    try:
        return AESGCM(key).decrypt(nonce, data[_HEADER_BYTES + NONCE_BYTES :], header + context.encode())
    except (InvalidTag, ValueError) as error:
        raise TrustError(
            "an encrypted file is damaged, or stands in the place of another",
            where=where,
            got="a seal that does not fit",
            expected=f"the file as it was written for {context}",
            remedy="restore it from a copy",
        ) from error


def rotate_key(
    key_file: Path, files: Iterable[SealedFile], *, on_progress: Callable[[int, int], None] = lambda _done, _total: None
) -> Rotation:
    """Seal files under a new key, and then forget the old ones; the first call makes the key file, and plain files are sealed too.

    Nobody else may write these files meanwhile. Broken off, it goes on when it is called again, with the key that it had made.

    Args:
        key_file: made with rights 0600 in a folder of rights 0700 where it is missing and nothing is sealed yet.
        files: all that are sealed under this key file, or are to be; those that are not there are passed over.
        on_progress: is called with (done, total) files.

    Raises:
        TrustError: the key file is missing while there are sealed files, or a file cannot be opened; the old keys stay then.
    """
    key_file = key_file.resolve()  # a link to a vault stays one, and the key stays there
    present = [file for file in files if file.path.is_file()]
    if key_file.exists() or any(is_sealed(file.path) for file in present):
        ring = KeyRing.read(key_file)
        # Two keys: an earlier rotation was broken off, and this one finishes it.
        ring = ring if len(ring.keys) > 1 else KeyRing((secrets.token_bytes(KEY_BYTES), *ring.keys))
    else:
        if not key_file.parent.exists():
            make_private_folder(key_file.parent)
        ring = KeyRing((secrets.token_bytes(KEY_BYTES),))
    write_atomic(key_file, ring.encode())
    sealed = 0
    for done, file in enumerate(present, start=1):
        with contextlib.suppress(FileNotFoundError):
            sealed += _seal_anew(file, ring)
        on_progress(done, len(present))
    write_atomic(key_file, KeyRing(ring.keys[:1]).encode())
    return Rotation(sealed, len(present) - sealed, key_id(ring.keys[0]).hex())


def _seal_anew(file: SealedFile, ring: KeyRing) -> bool:
    """Seal one file under the first key, unless it is already."""
    data = file.path.read_bytes()
    if data.startswith(MAGIC + VERSION + key_id(ring.keys[0])):
        return False
    content = open_bytes(data, ring=ring, context=file.context, where=file.path) if data.startswith(MAGIC) else data
    write_atomic(file.path, seal_bytes(content, ring=ring, context=file.context))
    return True


def is_sealed(path: Path) -> bool:
    """Return whether a file is sealed, under whichever key."""
    with path.open("rb") as handle:
        return handle.read(len(MAGIC)) == MAGIC


def _id_of(data: bytes) -> bytes:
    return data[len(MAGIC) + len(VERSION) : _HEADER_BYTES]


@lru_cache(maxsize=8)
def _read_ring(path: Path, _changed_ns: int, _inode: int) -> KeyRing:
    """Return the keys of a file; a file that was replaced is another one to the cache."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="ascii").splitlines()]
        keys = tuple(bytes.fromhex(line) for line in lines if line and not line.startswith("#"))
    except ValueError:
        keys = ()
    if not keys or any(len(key) != KEY_BYTES for key in keys):
        raise TrustError(
            "the key file of the encryption cannot be read",
            where=path,
            got="something else",
            expected=f"keys of {2 * KEY_BYTES} hexadecimal digits, one a line",
            remedy="bring it back from its copy",
        )
    return KeyRing(keys)
