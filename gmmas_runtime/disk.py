"""A disk that takes no more, told in one clear error: what could not be written, where, how much room there is, what to do.

Full (ENOSPC), over a quota (EDQUOT), beyond the largest file (EFBIG), read-only (EROFS) or not this user's (EACCES, EPERM): in each case
what was written before stays as it was, since files and folders of this project appear whole or not at all (gmmas_runtime.files) and
SQLite takes back an unfinished transaction. So the work goes on once there is room.
"""

import errno
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from gmmas_schema.errors import FederationError, ReasonCode

MIB: Final = 2**20

_NO_ROOM: Final = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "this user's quota is used up", errno.EFBIG: "the file is too large"}
_NO_RIGHT: Final = {
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "this user may not write there",
    errno.EPERM: "this user may not write there",
}
_SQLITE: Final = {
    sqlite3.SQLITE_FULL: (errno.ENOSPC, "the disk is full"),
    sqlite3.SQLITE_IOERR: (errno.ENOSPC, "the disk does not take it"),
    sqlite3.SQLITE_READONLY: (errno.EROFS, "the file or its disk is read-only"),
    sqlite3.SQLITE_CANTOPEN: (errno.EACCES, "the file cannot be opened"),
}
_PRIMARY: Final = 0xFF
"""SQLite's extended result codes keep the kind of fault in the lowest byte (https://sqlite.org/rescode.html)."""


def disk_fault(error: BaseException, *, where: Path) -> FederationError | None:
    """Return what a disk's refusal means (code DISK), or None for an error of another kind.

    Args:
        error: what was raised.
        where: the file or folder that was being written, where the error does not name one.
    """
    if isinstance(error, OSError):
        number, reason = error.errno or 0, (_NO_ROOM | _NO_RIGHT).get(error.errno or 0)
        place = Path(error.filename) if isinstance(error.filename, str) else where
    elif isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None)
        number, reason = _SQLITE.get(code & _PRIMARY, (0, "")) if code is not None else (0, "")
        place = where
    else:
        return None
    if not reason:
        return None
    full = number in _NO_ROOM
    return FederationError(
        "the disk does not take what is to be written",
        where=place,
        got=f"{reason}; {_free(place)}",
        expected="room to write" if full else "a folder this user may write to",
        remedy=("make room, or give this user more" if full else "mend the rights or mount the disk writable")
        + "; nothing is half-written, and the work goes on from where it was",
        code=ReasonCode.DISK,
    )


@contextmanager
def told_of_disk(where: Path) -> Iterator[None]:
    """Write inside; a disk's refusal becomes the error of disk_fault.

    Raises:
        FederationError: code DISK.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        fault = disk_fault(error, where=where)
        if fault is None:
            raise
        raise fault from error


def require_room(where: Path, needed_bytes: int, *, what: str) -> None:
    """Refuse to begin what cannot be finished.

    Args:
        where: a folder, which need not be there yet, of the disk that is meant.
        needed_bytes: to be written there.
        what: for which these bytes are needed.

    Raises:
        FederationError: code DISK, less room than that.
    """
    free = shutil.disk_usage(_existing(where)).free
    if free < needed_bytes:
        raise FederationError(
            f"there is too little room for {what}",
            where=where,
            got=f"{free / MIB:.0f} MiB free",
            expected=f"{needed_bytes / MIB:.0f} MiB or more",
            remedy="make room, or name a folder on another disk",
            code=ReasonCode.DISK,
        )


def _existing(path: Path) -> Path:
    return next((place for place in (path, *path.absolute().parents) if place.exists()), Path("/"))


def _free(place: Path) -> str:
    try:
        return f"{shutil.disk_usage(_existing(place)).free / MIB:.1f} MiB free"
    except OSError as error:
        return type(error).__name__
