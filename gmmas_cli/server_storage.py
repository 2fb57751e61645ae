"""`gmmas server rotate-key`, `gmmas server compact`: the key under which checkpoints lie encrypted, and the room of the databases."""

import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from gmmas_cli.encryption import require_encryption, rotate, tell
from gmmas_runtime.disk import told_of_disk
from gmmas_runtime.process_state import is_supervised
from gmmas_schema.errors import FederationError
from server.checkpoint import RunFolder, note_encryption
from server.events import EVENTS_FILE
from server.folder import CoordinatorFolder
from server.run_register import known_runs, missing_runs

MIB = 2**20


def rotate_key(
    folder: Annotated[Path, typer.Argument(help="Folder of the coordinator.", envvar="GMMAS_SERVER")] = Path("coordinator"),
    *,
    forget_missing: Annotated[
        bool, typer.Option("--forget-missing", help="Go on although the folders of some runs are not there; they can never be read then.")
    ] = False,
) -> None:
    """Encrypt the checkpoints of this coordinator's runs under a new key.

    The first call makes the key file that coordinator.yaml names. No run may be at work. Broken off, call it again.
    """
    opened = CoordinatorFolder.open(folder)
    encryption = require_encryption(opened.config.encryption, where=opened.path / "coordinator.yaml")
    missing = missing_runs(opened)
    if missing and not forget_missing:
        raise FederationError(
            "some runs are not where they were",
            where=", ".join(map(str, missing)),
            got=f"{len(missing)} of the runs in {opened.path} are missing",
            expected="every run's folder, for the old key is forgotten in the end",
            remedy="mount their disk; where they were deleted or moved for good, add --forget-missing",
        )
    with ExitStack() as held:
        runs = [RunFolder.open(path) for path in known_runs(opened).values()]
        for run in runs:
            held.enter_context(run.hold())
        files = [file for run in runs for file in run.sealed_files()]
        done = rotate(encryption, files)
        for run in runs:
            run.note_seals()
            note_encryption(run.path, encryption)
    tell(encryption, done)


def compact(
    folder: Annotated[Path, typer.Argument(help="Folder of the coordinator.", envvar="GMMAS_SERVER")] = Path("coordinator"),
) -> None:
    """Give the room back that deleted messages take in Flower's database, and bring every run's databases into one file each.

    The coordinator must not run. Nothing is deleted.
    """
    opened = CoordinatorFolder.open(folder)
    if is_supervised(opened.state_file):
        raise FederationError(
            "the coordinator is running",
            where=opened.path,
            got="processes that use these databases",
            expected="a stopped coordinator",
            remedy=f"gmmas server down {folder}, compact, and start it again",
        )
    console = Console()
    files = [opened.database, *(run / name for run in known_runs(opened).values() for name in (EVENTS_FILE, "mlflow.db"))]
    for path in files:
        if path.is_file():
            before = _size(path)
            _compact(path)
            console.print(Text(f"{path}: {before / MIB:.1f} MiB, now {_size(path) / MIB:.1f} MiB"), soft_wrap=True)


def _compact(path: Path) -> None:
    with told_of_disk(path), closing(sqlite3.connect(path, timeout=10, isolation_level=None)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _size(path: Path) -> int:
    """Return the bytes of a database with those of its write-ahead log."""
    return sum(file.stat().st_size for file in (path, path.with_name(path.name + "-wal")) if file.exists())
