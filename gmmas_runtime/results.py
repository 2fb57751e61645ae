"""Result folders: whole or absent, and never over something that is not a result of the same kind."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gmmas_schema.errors import ConfigError


def check_result_folder(folder: Path, *, kind: str, marker: str, overwrite: bool) -> None:
    """Refuse a folder that must not be replaced, before any work is done.

    Args:
        folder: where a result is to go.
        kind: what the result is called, for instance `an ONNX export`.
        marker: a file that every result of this kind has, relative to its folder.
        overwrite: an earlier result of this kind may be replaced.

    Raises:
        ConfigError: the folder exists, and `overwrite` is off or it holds something else.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    earlier = (folder / marker).is_file()
    if overwrite and earlier:
        return
    raise ConfigError(
        "the output folder exists",
        where=folder,
        got=kind if earlier else f"something that is not {kind}",
        expected="no folder of this name, or an empty one",
        remedy="replace it with --force" if earlier else "name another folder",
    )


@contextlib.contextmanager
def result_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder to fill; it takes the place of `folder` when all went well, and nothing is left of it otherwise.

    Args:
        folder: the folder to make or to replace; its parents are made. Ask check_result_folder first.

    Raises:
        OSError: the disk is full or not writable; what was there before is there again.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    made, replaced = scratch / "made", scratch / "replaced"
    try:
        made.mkdir()
        yield made
        if folder.exists():
            folder.rename(replaced)
        try:
            made.rename(folder)
        except BaseException:
            if replaced.exists():
                replaced.rename(folder)
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
