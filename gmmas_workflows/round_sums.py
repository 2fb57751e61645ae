"""The digests of a round's folder: one file in the form of sha256sum, which every file of the folder is held against before it is used.

Those of sealed files are digests of their content, in lines that sha256sum passes over (`# sealed ...`).
"""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from gmmas_runtime.files import sha256_file, write_atomic
from gmmas_runtime.sealed_files import is_sealed
from gmmas_schema.errors import ModelError

logger = logging.getLogger(__name__)

SUMS: Final = "SHA256SUMS"
_SEALED_LINE: Final = "# sealed "


def write_sums(folder: Path, sums: Mapping[str, str]) -> None:
    """Write the digests of a folder's files by name."""
    lines = [
        f"{_SEALED_LINE if (folder / name).is_file() and is_sealed(folder / name) else ''}{digest}  {name}\n"
        for name, digest in sorted(sums.items())
    ]
    write_atomic(folder / SUMS, "".join(lines).encode())


def rewrite_sums(folder: Path, *, without: Collection[str] = ()) -> bool:
    """Write a folder's digests again, without some of its files; returns whether they could be read."""
    try:
        sums = read_sums(folder)
    except ModelError as error:
        logger.warning("the folder of round %s stays as it is: %s", folder.name, error)
        return False
    write_sums(folder, {name: digest for name, digest in sums.items() if name not in without})
    return True


def read_sums(folder: Path) -> dict[str, str]:
    """Return the digests of a folder's files by name.

    Raises:
        ModelError: they are missing or cannot be read.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(folder / SUMS, got=type(error).__name__) from error
    return {name: digest for digest, _, name in (line.removeprefix(_SEALED_LINE).partition("  ") for line in lines)}


def check_sums(folder: Path, *, needed: Collection[str]) -> None:
    """Refuse a folder in which a needed file is missing or differs from its digest.

    Raises:
        ModelError: it is one.
    """
    sums = read_sums(folder)
    for name in needed:
        expected = expected_digest(folder / name, sums)
        check_digest(folder / name, sha256_file(folder / name), expected)


def expected_digest(file: Path, sums: Mapping[str, str]) -> str:
    """Return the digest that a file must have.

    Raises:
        ModelError: the file is missing, or has none.
    """
    if file.name not in sums or not file.is_file():
        raise _damaged(file, got="no such file")
    return sums[file.name]


def check_digest(file: Path, found: str, expected: str) -> None:
    """Refuse a file of another digest.

    Raises:
        ModelError: it is one.
    """
    if found != expected:
        raise _damaged(file, got=f"digest {found[:12]}", expected=f"digest {expected[:12]} ({SUMS})")


def _damaged(file: Path, *, got: str, expected: str = "the file as it was written") -> ModelError:
    return ModelError(
        "a checkpoint is damaged",
        where=file,
        got=got,
        expected=expected,
        remedy=f"restore it from a copy, or delete the folder {file.parent.name}: a run goes on from the newest round that is left",
    )
