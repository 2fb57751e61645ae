"""Exclusive locks on files that end with their process, however it ends, and that can be asked about without being taken.

They are Linux's locks of an open file description (fcntl(2), F_OFD_SETLK), which the kernel drops when the last descriptor of it is
closed. flock(2) would have to be taken to find out whether it is held, so that whoever asks could keep its taker away.
"""

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

# struct flock: l_type, l_whence, l_start, l_len (0: to the end, wherever that is), l_pid (0 for a lock of an open file description).
_FLOCK: Final = "hhqqi4x"


def try_lock(descriptor: int) -> bool:
    """Lock a file open for writing until its descriptor is closed; returns False where another open file has the lock."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Return whether an open file has the lock; a file that is not there, or cannot be read, has none."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    finally:
        os.close(descriptor)
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)
