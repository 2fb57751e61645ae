"""Files that are whole or absent, and folders nobody else can read."""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

_UNFINISHED: Final = ".unfinished-"


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write a file so that a reader, or a crash, sees the old content or the new, never a part.

    The data go to a temporary file of the same folder, reach the disk, and take the name in one step.

    Args:
        path: the file to make or replace; its folder must exist.
        data: the whole content.
        mode: access rights of the file, whatever the umask.
        durable: wait for the disk; off for a file that means nothing after a power cut.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full; the old file is untouched.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        error.filename = str(path)  # not the temporary name, which tells nobody anything
        raise
    try:
        with os.fdopen(descriptor, "wb") as handle:
            os.fchmod(handle.fileno(), mode)
            handle.write(data)
            if durable:
                handle.flush()
                os.fsync(handle.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; flush it to the disk and rename it to `target` when all went well.

    A failure leaves `target` as it was, and no leftover; a crash leaves at most one that clear_unfinished removes.

    Args:
        target: the folder to make; it must not exist. Its parents are made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.parent / f"{_UNFINISHED}{target.name}"
    folder.mkdir()
    try:
        yield folder
        for file in folder.iterdir():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
        sync_folder(folder)
        folder.rename(target)
    except Exception:
        # A full disk has its room back at once. Only exceptions: whatever else ends the process is a crash, and crashes are tested as such.
        shutil.rmtree(folder, ignore_errors=True)
        raise
    sync_folder(target.parent)


def clear_unfinished(parent: Path) -> None:
    """Remove the folders that a crash left half-written by whole_folder."""
    for leftover in parent.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(leftover)


def make_private_folder(path: Path) -> Path:
    """Make a folder (and its parents) with rights 0700, or tighten an existing one; returns it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def read_hex(path: Path, *, fewest: int, refuse: Callable[[str], Exception]) -> bytes:
    """Return the bytes that a text file gives in hexadecimal digits.

    Args:
        path: the file.
        fewest: bytes that it must give.
        refuse: returns the error to raise, from what the file is instead.
    """
    try:
        secret = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise refuse(type(error).__name__) from error
    if len(secret) < fewest:
        raise refuse(f"{len(secret)} bytes")
    return secret


def sha256_file(path: Path) -> str:
    """Return the SHA-256 hex digest of a file."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
