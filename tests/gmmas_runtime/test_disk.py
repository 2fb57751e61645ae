import errno
import os
import pickle
import shutil
import sqlite3

import pytest

from gmmas_runtime.disk import disk_fault, require_room, told_of_disk
from gmmas_runtime.files import whole_folder, write_atomic
from gmmas_schema.errors import FederationError, ReasonCode


@pytest.mark.parametrize(
    ("number", "reason", "remedy"),
    [
        (errno.ENOSPC, "the disk is full", "make room"),
        (errno.EDQUOT, "quota", "make room"),
        (errno.EFBIG, "too large", "make room"),
        (errno.EROFS, "read-only", "mend the rights"),
        (errno.EACCES, "may not write", "mend the rights"),
    ],
)
def test_a_refusal_says_what_where_and_what_to_do(tmp_path, number, reason, remedy):
    fault = disk_fault(OSError(number, os.strerror(number)), where=tmp_path / "model")
    assert fault.code is ReasonCode.DISK
    assert reason in fault.got
    assert "MiB free" in fault.got
    assert remedy in fault.remedy
    assert fault.where == str(tmp_path / "model")
    assert pickle.loads(pickle.dumps(fault)).remedy == fault.remedy


def test_the_file_that_the_system_names_is_named(tmp_path):
    error = OSError(errno.ENOSPC, "full", str(tmp_path / "cache" / "entry"))
    assert disk_fault(error, where=tmp_path).where.endswith("cache/entry")


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "io"), FileNotFoundError(2, "none"), ValueError("x"), sqlite3.OperationalError("locked")]
)
def test_other_errors_are_left_alone(tmp_path, error):
    assert disk_fault(error, where=tmp_path) is None
    with pytest.raises(type(error)), told_of_disk(tmp_path):
        raise error


def test_a_database_that_may_not_grow_is_a_full_disk(tmp_path):
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE t (x)")
        database.execute("PRAGMA max_page_count = 3")
        with pytest.raises(FederationError, match="the disk is full"), told_of_disk(tmp_path):
            database.executemany("INSERT INTO t VALUES (?)", [("x" * 4000,)] * 20)
    database.close()


def test_a_read_only_database_is_told(tmp_path):
    sqlite3.connect(tmp_path / "a.db").execute("CREATE TABLE t (x)").connection.close()
    database = sqlite3.connect(f"{(tmp_path / 'a.db').as_uri()}?mode=ro", uri=True)
    with pytest.raises(FederationError, match="read-only"), told_of_disk(tmp_path):
        database.execute("INSERT INTO t VALUES (1)")
    database.close()


def test_too_little_room_is_told_before_anything_is_begun(tmp_path):
    require_room(tmp_path / "not" / "there", 1, what="a test")
    with pytest.raises(FederationError, match="too little room for a test") as caught:
        require_room(tmp_path / "not" / "there", shutil.disk_usage(tmp_path).total + 1, what="a test")
    assert caught.value.code is ReasonCode.DISK


def test_a_folder_that_could_not_be_filled_gives_its_room_back(tmp_path):
    def fill():
        with whole_folder(tmp_path / "round") as folder:
            (folder / "part").write_bytes(b"x")
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_the_name_of_the_file_is_told_not_that_of_its_draft(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomic(tmp_path / "none" / "file", b"")
    assert caught.value.filename == str(tmp_path / "none" / "file")
