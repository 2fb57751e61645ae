import os
import socket
import stat
import tempfile
from pathlib import Path

import pytest

from client.folder import SOCKET_PATH_BYTES, NodeFolder
from gmmas_schema.errors import ConfigError, DataError, FederationError, ReasonCode, TrustError

LONG = "a" * 60


def test_everything_is_private(tmp_path: Path) -> None:
    folder = NodeFolder(tmp_path / "state")
    folder.make()
    for path in (folder.root, folder.cache, folder.flower, folder.loopback, folder.log("trainer").parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="state folder") as caught:
        NodeFolder(tmp_path / "file" / "state").make()
    assert "file" in caught.value.where


def test_the_socket_lies_in_the_state_folder(tmp_path: Path) -> None:
    assert NodeFolder(tmp_path).socket == tmp_path / "trainer.sock"


def test_a_long_state_path_gets_a_short_private_socket_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = tempfile.mkdtemp(dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", short)
    folder = NodeFolder(tmp_path / LONG / LONG)
    folder.make()
    assert len(os.fsencode(folder.socket)) <= SOCKET_PATH_BYTES
    assert folder.socket == NodeFolder(tmp_path / LONG / LONG).socket != NodeFolder(tmp_path / LONG / (LONG + "b")).socket
    assert stat.S_IMODE(folder.socket.parent.stat().st_mode) == 0o700
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder.socket))
    folder.socket.unlink()
    folder.socket.parent.rmdir()
    Path(short).rmdir()


def test_a_socket_folder_others_can_open_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = tempfile.mkdtemp(dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", short)
    folder = NodeFolder(tmp_path / LONG / LONG)
    folder.socket.parent.mkdir()
    folder.socket.parent.chmod(0o755)
    with pytest.raises(TrustError, match="not safe"):
        folder.make()
    folder.socket.parent.rmdir()
    Path(short).rmdir()


def test_a_fault_arrives_whole(tmp_path: Path) -> None:
    folder = NodeFolder(tmp_path)
    assert folder.read_fault() is None
    folder.write_fault(DataError("what", where="where", got="got", expected="expected", remedy="remedy", code=ReasonCode.DATA_GRID))
    fault = folder.read_fault()
    assert fault is not None
    assert (fault.what, fault.where, fault.got, fault.expected, fault.remedy) == ("what", "where", "got", "expected", "remedy")
    assert fault.code is ReasonCode.DATA_GRID
    folder.clear_fault()
    assert folder.read_fault() is None


def test_one_trainer_per_folder(tmp_path: Path) -> None:
    folder = NodeFolder(tmp_path)
    with folder.held_by_trainer():
        with pytest.raises(FederationError, match="already running") as caught, folder.held_by_trainer():
            pass
        assert str(os.getpid()) in caught.value.got
    with folder.held_by_trainer():
        pass
