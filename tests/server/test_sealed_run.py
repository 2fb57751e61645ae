"""A run whose checkpoints lie encrypted: the weights of a plain one, killed or not, and nothing of them to be read on the disk."""

import json
import shutil
from pathlib import Path

import pytest

from gmmas_runtime.sealed_files import KeyRing, is_sealed, rotate_key
from gmmas_schema.encryption import EncryptionConfig
from gmmas_schema.errors import ModelError, TrustError
from gmmas_schema.events import EventKind
from server.checkpoint import ENCRYPTION, RunFolder, note_encryption
from server.events import EventLog
from tests.server.kills import Killed, kill_at
from tests.server.simulated_sites import make_grid
from tests.server.test_resume import ROUNDS, new_folder, outcome, resume, run, sites

ADAM = {"server_step": {"kind": "adam"}}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = new_folder(tmp_path_factory.mktemp("plain") / "run", **ADAM)
    run(make_grid(*sites()), folder)
    return outcome(folder)


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    rotate_key(tmp_path / "keys" / "seal.key", [])
    return tmp_path / "keys" / "seal.key"


def sealed_folder(path: Path, key_file: Path) -> RunFolder:
    new_folder(path, **ADAM)
    note_encryption(path, EncryptionConfig(key_file=key_file))
    return RunFolder.open(path)


def test_a_sealed_run_killed_in_every_round_ends_in_the_weights_of_a_plain_one(tmp_path: Path, key_file: Path, unbroken: object) -> None:
    folder = sealed_folder(tmp_path / "run", key_file)
    for kind, number in [(EventKind.REPLY_ACCEPTED, 1), (EventKind.ROUND_FINISHED, 2), (EventKind.ROUND_STARTED, 4)]:
        with pytest.raises(Killed):
            run(make_grid(*sites()), folder, events=EventLog(folder.events_path, on_event=kill_at(kind, number)))
        rotate_key(key_file, folder.sealed_files())
    resume(RunFolder.open(folder.path), unbroken)
    tensors = list((folder.path / "rounds").rglob("*.safetensors"))
    assert {file.name for file in tensors} == {"model.safetensors", "state.safetensors"}
    assert all(is_sealed(file) for file in tensors)
    assert not is_sealed(folder.model_path("best") / "model.safetensors"), "what is published is for others to read"


@pytest.fixture
def finished(tmp_path: Path, key_file: Path) -> RunFolder:
    folder = sealed_folder(tmp_path / "run", key_file)
    with pytest.raises(Killed):
        run(make_grid(*sites()), folder, events=EventLog(folder.events_path, on_event=kill_at(EventKind.ROUND_FINISHED, 3)))
    return folder


def test_the_checkpoint_of_another_round_is_not_taken_for_it(finished: RunFolder) -> None:
    last, before = (finished.round_path(number) for number in (3, 2))
    for name in ("model.safetensors", "model.json", "SHA256SUMS"):
        shutil.copyfile(before / name, last / name)
    with pytest.raises(TrustError, match="stands in the place of another"):
        finished.load_round(3)
    assert finished.load_round(2).tensors


def test_a_damaged_a_plain_and_a_missing_checkpoint_are_explained(finished: RunFolder) -> None:
    path = finished.round_path(3) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with pytest.raises(TrustError, match="damaged"):
        finished.load_round(3)
    path.write_bytes(b"plain")
    with pytest.raises(TrustError, match="is not encrypted"):
        finished.load_round(3)
    path.unlink()
    with pytest.raises(ModelError, match="a checkpoint is damaged"):
        finished.load_round(3)


def test_without_its_key_a_run_says_so_and_shows_its_records_all_the_same(finished: RunFolder, key_file: Path, tmp_path: Path) -> None:
    key_file.rename(tmp_path / "copy")
    folder = RunFolder.open(finished.path)
    assert len(folder.read_records()) == 3
    with pytest.raises(TrustError, match="key file of the encryption is missing"):
        run(make_grid(*sites()), folder)
    with pytest.raises(TrustError, match="key file of the encryption is missing"):
        note_encryption(finished.path, EncryptionConfig(key_file=key_file))
    (finished.path / ENCRYPTION).unlink()
    with pytest.raises(TrustError, match="no key file is named"):
        RunFolder.open(finished.path).load_round(3)


def test_encryption_may_begin_within_a_run(tmp_path: Path, key_file: Path, unbroken: object) -> None:
    folder = new_folder(tmp_path / "run", **ADAM)
    with pytest.raises(Killed):
        run(make_grid(*sites()), folder, events=EventLog(folder.events_path, on_event=kill_at(EventKind.ROUND_FINISHED, 2)))
    plain = folder.round_path(2).joinpath("SHA256SUMS").read_text()
    note_encryption(folder.path, EncryptionConfig(key_file=key_file))
    folder = RunFolder.open(folder.path)
    with pytest.raises(TrustError, match="is not encrypted"):
        folder.load_round(2)
    rotate_key(key_file, folder.sealed_files())
    assert folder.load_round(2).tensors, "readable between the rotation and the note of it"
    folder.note_seals()
    assert folder.round_path(2).joinpath("SHA256SUMS").read_text().replace("# sealed ", "") == plain
    resume(folder, unbroken)
    assert len(KeyRing.read(key_file).keys) == 1
    assert folder.finished_rounds()[-1] == ROUNDS


def test_a_note_that_is_none_is_told(finished: RunFolder) -> None:
    (finished.path / ENCRYPTION).write_text(json.dumps({"key": 1}))
    with pytest.raises(ValueError, match="run's file cannot be read"):
        RunFolder.open(finished.path)
