"""A disk of a few MiB that a test may fill and make read-only: a tmpfs, which root may mount."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted tmpfs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take all room but some."""
        free = os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize
        descriptor = os.open(self._ballast, os.O_WRONLY | os.O_CREAT)
        try:
            os.posix_fallocate(descriptor, 0, max(1, free - leave_bytes))
        finally:
            os.close(descriptor)

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Refuse every write inside."""
        _mount("-o", "remount,ro", str(self.path))
        try:
            yield
        finally:
            _mount("-o", "remount,rw", str(self.path))


@contextmanager
def small_disk(path: Path, *, mib: int) -> Iterator[SmallDisk]:
    """Mount a disk, or skip the test where that is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    path.mkdir()
    done = _mount("-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", str(path), check=False)
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def _mount(*options: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["mount", *options], check=check, capture_output=True)
