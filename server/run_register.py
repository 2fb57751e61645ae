"""Which runs a coordinator has worked on: `runs.jsonl` in its folder, a line per run or validation, and every run below `runs/`.

A run may lie anywhere on the machine; the dashboard shows those that are noted here and opens no other path, whatever is asked for.
"""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Final

from server.checkpoint import CONFIGURATION
from server.folder import CoordinatorFolder
from server.validation_folder import VALIDATION

REGISTER: Final = "runs.jsonl"
_RUN, _VALIDATION = "run", "validation"


def note_run(folder: CoordinatorFolder, run_dir: Path) -> None:
    """Note that the coordinator works on a run; a folder that is noted already stays noted once."""
    _note(folder, run_dir.resolve(), _RUN)


def note_validation(folder: CoordinatorFolder, path: Path) -> None:
    """Note that the coordinator works on a cross-site validation, likewise."""
    _note(folder, path.resolve(), _VALIDATION)


def known_runs(folder: CoordinatorFolder) -> dict[str, Path]:
    """Return the folders of the runs that are still there, by a key that is safe in an address, in the order they were begun."""
    found = dict.fromkeys(_noted(folder, _RUN))
    if folder.runs.is_dir():
        found |= dict.fromkeys(sorted(folder.runs.iterdir()))
    present = [path for path in found if (path / CONFIGURATION).is_file()]
    return {run_key(path): path for path in sorted(present, key=lambda path: _begun(path / CONFIGURATION))}


def known_validations(folder: CoordinatorFolder) -> dict[str, Path]:
    """Return the folders of the validations that are still there, likewise."""
    found = dict.fromkeys(_noted(folder, _VALIDATION))
    present = [path for path in found if (path / VALIDATION).is_file()]
    return {run_key(path): path for path in sorted(present, key=lambda path: _begun(path / VALIDATION))}


def missing_runs(folder: CoordinatorFolder) -> list[Path]:
    """Return the folders of runs that are not where they were."""
    return [path for path in dict.fromkeys(_noted(folder, _RUN)) if not (path / CONFIGURATION).is_file()]


def run_key(run_dir: Path) -> str:
    """Return the key of a run: its folder's name, and the beginning of a digest, as folders of one name may lie in several places."""
    digest = hashlib.sha256(str(run_dir).encode()).hexdigest()[:8]
    name = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "-_") else "-" for letter in run_dir.name)
    return f"{name}-{digest}"


def _note(folder: CoordinatorFolder, path: Path, kind: str) -> None:
    if path in _noted(folder, kind):
        return
    # One short write at the end of the file is whole, whoever else writes; but for a full disk or a crash, which may have cut the last one.
    descriptor = os.open(folder.path / REGISTER, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        is_cut = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        line = b"\n" * is_cut + json.dumps({kind: str(path)}).encode() + b"\n"
        if os.write(descriptor, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder.path / REGISTER))
    finally:
        os.close(descriptor)


def _noted(folder: CoordinatorFolder, kind: str) -> list[Path]:
    try:
        lines = (folder.path / REGISTER).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        try:
            found.append(Path(json.loads(line)[kind]))
        except (ValueError, KeyError, TypeError):
            continue  # of the other kind, or cut short by a crash
    return found


def _begun(file: Path) -> float:
    return file.stat().st_mtime
