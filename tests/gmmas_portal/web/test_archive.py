"""Hostile archives: nothing leaves the folder, nothing is larger than allowed, nothing is left of a refused one."""

import io
import shutil
import stat
import struct
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_portal.web import archive
from gmmas_portal.web.archive import is_archive, safe_name, unpack
from gmmas_schema.errors import DataError

ROOM = 10_000_000


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in members.items():
            info = zipfile.ZipInfo("x")
            info.filename = name  # as given, without zipfile's own cleaning
            info.compress_type = zipfile.ZIP_DEFLATED
            made.writestr(info, content)
    return path


def refused(path: Path, folder: Path, *, room: int = ROOM) -> str:
    before = set(folder.parent.rglob("*"))
    with pytest.raises(DataError) as error:
        unpack(path, folder, most_bytes=room)
    assert not folder.exists()
    assert set(folder.parent.rglob("*")) == before
    return error.value.got


def test_a_plain_archive_keeps_its_folders(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"case/t1.nii.gz": b"1", "case/sub/t2.nii.gz": b"22", "__MACOSX/._t1": b"x", "case/.hidden": b"x"})
    assert unpack(path, tmp_path / "out", most_bytes=ROOM) == 2
    assert {str(file.relative_to(tmp_path / "out")) for file in (tmp_path / "out").rglob("*") if file.is_file()} == {
        "case/t1.nii.gz",
        "case/sub/t2.nii.gz",
    }


@pytest.mark.parametrize(
    "name",
    ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "a\\..\\evil", "C:\\evil", "C:evil", "\\\\host\\evil", "a/..", "..", "a\0/../b"],
)
def test_no_name_leads_out(tmp_path: Path, name: str) -> None:
    assert "leads out" in refused(zip_of(tmp_path / "a.zip", {"good": b"1", name: b"evil"}), tmp_path / "in" / "out")


def test_links_devices_and_passwords_are_refused(tmp_path: Path) -> None:
    for kind in (stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO, stat.S_IFSOCK):
        info = zipfile.ZipInfo("link")
        info.external_attr = (kind | 0o777) << 16
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
            made.writestr(info, "/etc/passwd")
        assert refused(tmp_path / "a.zip", tmp_path / "out") == "a link or a device"
    content = bytearray(zip_of(tmp_path / "b.zip", {"a": b"1"}).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.index(signature) + offset
        content[place : place + 2] = struct.pack("<H", 1)
    (tmp_path / "b.zip").write_bytes(content)
    assert refused(tmp_path / "b.zip", tmp_path / "out") == "an encrypted file"


def test_a_bomb_is_stopped_by_what_it_says(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"zeros": bytes(2_000_000)})
    assert path.stat().st_size < 10_000
    assert "contents" in refused(path, tmp_path / "out", room=1_000_000)
    halves = zip_of(tmp_path / "b.zip", {"one": bytes(600_000), "two": bytes(600_000)})
    assert "contents" in refused(halves, tmp_path / "out", room=1_000_000)


def test_a_bomb_that_lies_is_stopped_by_what_comes_out(tmp_path: Path) -> None:
    """Its directory says ten bytes; two million come out. zipfile itself reads only what the directory says, so none gets through."""
    content = bytearray(zip_of(tmp_path / "a.zip", {"zeros": bytes(2_000_000)}).read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = content.index(signature) + offset
        content[place : place + 4] = struct.pack("<I", 10)
    (tmp_path / "a.zip").write_bytes(content)
    folder = tmp_path / "out"
    try:
        unpack(tmp_path / "a.zip", folder, most_bytes=1_000_000)
    except DataError:
        assert not folder.exists()
    else:
        assert sum(file.stat().st_size for file in folder.rglob("*")) <= 10


def test_members_and_depth_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_MEMBERS", 3)
    assert refused(zip_of(tmp_path / "a.zip", {str(n): b"" for n in range(4)}), tmp_path / "out") == "4 files"
    assert "deeply" in refused(zip_of(tmp_path / "b.zip", {"a/" * 20 + "b": b""}), tmp_path / "out")


@pytest.mark.parametrize("cut", [0.2, 0.6, 0.95])
def test_a_damaged_archive_is_refused(tmp_path: Path, cut: float) -> None:
    whole = zip_of(tmp_path / "a.zip", {"a": b"some content" * 1000, "b": b"other" * 900}).read_bytes()
    (tmp_path / "a.zip").write_bytes(whole[: int(cut * len(whole))])
    refused(tmp_path / "a.zip", tmp_path / "out")
    flipped = bytearray(whole)
    flipped[45] ^= 0xFF
    (tmp_path / "b.zip").write_bytes(flipped)
    refused(tmp_path / "b.zip", tmp_path / "out")


def test_equal_names_do_not_overwrite_one_another(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a b": b"1", "a?b": b"2"})
    with zipfile.ZipFile(path, "a") as more, pytest.warns(UserWarning, match="Duplicate name"):
        more.writestr("a b", b"3")
    unpack(path, tmp_path / "out", most_bytes=ROOM)
    assert sorted(file.read_bytes() for file in (tmp_path / "out").iterdir()) == [b"1", b"2", b"3"]


@given(name=st.text(max_size=60))
def test_a_safe_name_is_one_plain_part(name: str) -> None:
    safe = safe_name(name, place=7)
    assert safe == Path(safe).name
    assert safe not in ("", ".", "..")
    assert not safe.startswith(".")
    assert safe.isascii()
    assert len(safe) <= 100


def test_an_archive_is_known_by_its_content(tmp_path: Path) -> None:
    assert is_archive(zip_of(tmp_path / "a.nii", {"a": b"1"}))
    (tmp_path / "b.zip").write_bytes(b"no archive")
    assert not is_archive(tmp_path / "b.zip")
    stream = io.BytesIO()
    zipfile.ZipFile(stream, "w").close()
    (tmp_path / "c.zip").write_bytes(stream.getvalue())
    assert is_archive(tmp_path / "c.zip")


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_whatever_byte_is_damaged_the_archive_is_refused_or_unpacked(tmp_path: Path, kind: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", kind) as made:
        made.writestr("a/b.nii", b"hello" * 40)
    content, outcomes = (tmp_path / "a.zip").read_bytes(), set()
    for place in range(len(content)):
        (tmp_path / "b.zip").write_bytes(content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :])
        try:
            unpack(tmp_path / "b.zip", tmp_path / "out", most_bytes=ROOM)
            shutil.rmtree(tmp_path / "out")
            outcomes.add("unpacked")
        except DataError:
            outcomes.add("refused")
        assert not (tmp_path / "out").exists()
    assert outcomes == {"unpacked", "refused"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("names", [("a", "a/b"), ("2-x", "x", "x")])
def test_names_that_cannot_stand_beside_each_other_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        for name in names:
            made.writestr(name, b"1")
    assert "cannot be read" in refused(tmp_path / "a.zip", tmp_path / "out")
