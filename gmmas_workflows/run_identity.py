"""What makes a folder that of a run: its identity, its configuration, and the hold of the one process that works in it.

run.json           identifier of the run; a resumed run keeps it
<configuration>    written last: with it, the folder is a run
lock               held while a process works
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from gmmas_runtime.disk import told_of_disk
from gmmas_runtime.file_locks import is_locked, try_lock
from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ConfigError, FederationError

IDENTITY: Final = "run.json"
_LOCK: Final = "lock"

ConfigT = TypeVar("ConfigT", bound=FrozenModel)


class RunIdentity(FrozenModel):
    """Contents of run.json."""

    run: str


@contextmanager
def hold_folder(path: Path) -> Iterator[None]:
    """Keep other processes from working in a folder; the hold ends with the process, however it ends.

    Raises:
        FederationError: another process holds it, or nobody can: the disk is read-only (code DISK).
    """
    with told_of_disk(path):
        file = (path / _LOCK).open("w")
    with file as lock:
        if not try_lock(lock.fileno()):
            raise FederationError(
                "another process is at work on this run",
                where=path,
                got="a held lock",
                expected="one process a run",
                remedy="wait for it or stop it first",
            )
        yield


def is_held(path: Path) -> bool:
    """Return whether a process works in a folder now."""
    return is_locked(path / _LOCK)


def begin_run(path: Path, config: FrozenModel, *, file: str, run: str) -> None:
    """Make the folder of a new run and write its identity and then its configuration, which makes it a run.

    Raises:
        FederationError: code DISK, the disk does not take them.
    """
    with told_of_disk(path):
        make_private_folder(path)
        write_atomic(path / IDENTITY, RunIdentity(run=run).model_dump_json().encode() + b"\n")
        write_atomic(path / file, config.model_dump_json(indent=2).encode() + b"\n")


def read_run(path: Path, config_type: type[ConfigT], *, file: str) -> tuple[ConfigT, str]:
    """Return the configuration and the identifier of the run in a folder.

    Raises:
        ConfigError: there is no run, or its configuration cannot be read.
    """
    config = config_type.parse(read_json(path / file), where=path / file)
    return config, RunIdentity.parse(read_json(path / IDENTITY), where=path / IDENTITY).run


def read_json(path: Path) -> Any:
    """Return the contents of a JSON file of a run.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            "a run's file cannot be read",
            where=path,
            got=type(error).__name__,
            expected="a JSON file that `gmmas run` or `gmmas train` wrote",
            remedy="name the folder of a run",
        ) from error
