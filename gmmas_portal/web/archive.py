"""Unpacking an uploaded archive: into one folder, under names of our own making, and never more than was allowed.

An archive is hostile until it is unpacked. Refused as a whole are: names that lead out of the folder (absolute, `..`, drive letters,
backslashes), links and devices, encrypted members, more than MOST_MEMBERS of them, and contents that are larger than `most_bytes`, by what
the archive says as well as by what comes out of it (a bomb says less). Archives in archives stay closed. Member names may name a patient
and are not written to any log.
"""

import errno
import lzma
import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Final

from gmmas_schema.errors import DataError, ReasonCode

MOST_MEMBERS: Final = 20_000
_CHUNK: Final = 1 << 20
_DEEPEST: Final = 12
_DAMAGE: Final = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError)
_DAMAGE_NUMBERS: Final = (None, errno.EINVAL, errno.EEXIST, errno.ENOTDIR)
"""Of an OSError: bz2's own, a place before the archive's beginning, a name twice or below a file; a full disk is none of the archive's."""


def is_archive(path: Path) -> bool:
    """Return whether a file is a ZIP archive, whatever its name says."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")


def unpack(archive: Path, folder: Path, *, most_bytes: int) -> int:
    """Unpack an archive into a new folder and return the number of files.

    Args:
        archive: the file.
        folder: made here; nothing is left of it when the archive is refused.
        most_bytes: largest content over all members.

    Raises:
        DataError: the archive is damaged, or one of the above is in it.
    """
    folder.mkdir(parents=True)
    try:
        return _unpack(archive, folder, most_bytes)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, _DAMAGE) or (isinstance(error, OSError) and error.errno in _DAMAGE_NUMBERS):
            raise _refuse(f"an archive that cannot be read ({type(error).__name__})") from error
        raise


def safe_name(name: str, *, place: int) -> str:
    """Return a file name with nothing in it but letters, digits, dots, hyphens and underscores, told apart by its place.

    >>> safe_name("../T1 (post).nii.gz", place=3)
    'T1__post_.nii.gz'
    """
    last = PurePosixPath(name.replace("\\", "/")).name
    cleaned = re.sub(r"[^A-Za-z0-9._+-]", "_", last).lstrip(".")[-100:]
    return cleaned if cleaned.strip("._") else f"file-{place}"


def _unpack(archive: Path, folder: Path, most_bytes: int) -> int:
    written, files = 0, 0
    with zipfile.ZipFile(archive) as opened:
        members = [member for member in opened.infolist() if not member.is_dir()]
        _check_members(members, most_bytes)
        for place, member in enumerate(members):
            name = PurePosixPath(member.filename)
            if name.name.startswith(".") or "__MACOSX" in name.parts:
                continue
            target = folder.joinpath(*(safe_name(part, place=place) for part in name.parts[:-1]), safe_name(name.name, place=place))
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                target = target.with_name(f"{place}-{target.name}")
            written += _write(opened, member, target, room=most_bytes - written)
            files += 1
    return files


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, *, room: int) -> int:
    """Write one member and return its bytes; stops as soon as more comes out than there is room for."""
    written = 0
    with opened.open(member) as source, target.open("xb") as out:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > room:
                raise _refuse("contents that are larger than the archive says")
            out.write(chunk)
    return written


def _check_members(members: list[zipfile.ZipInfo], most_bytes: int) -> None:
    """Refuse an archive for what it says of itself."""
    if len(members) > MOST_MEMBERS:
        raise _refuse(f"{len(members)} files", expected=f"at most {MOST_MEMBERS}")
    if (size := sum(member.file_size for member in members)) > most_bytes:
        raise _refuse(f"{size / 2**20:.0f} MiB of contents", expected=f"at most {most_bytes / 2**20:.0f} MiB")
    for member in members:
        # zipfile itself cuts a name at a NUL and turns the system's separator into `/`; the name as stored is looked at.
        name, parts = member.orig_filename, PurePosixPath(member.filename).parts
        if name.startswith(("/", "\\")) or "\\" in name or ".." in parts or "\0" in name or re.match(r"[A-Za-z]:", name):
            raise _refuse("a file name that leads out of the archive")
        if len(parts) > _DEEPEST:
            raise _refuse("folders that are nested too deeply")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise _refuse("a link or a device")
        if member.flag_bits & 0x1:
            raise _refuse("an encrypted file", expected="an archive without a password")


def _refuse(got: str, *, expected: str = "a ZIP archive of the files of one study") -> DataError:
    return DataError(
        "this archive is not taken",
        got=got,
        expected=expected,
        remedy="make a plain ZIP of the DICOM or NIfTI files of one study, and upload that",
        code=ReasonCode.DATA_UNREADABLE,
    )
