import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml

from client.folder import NodeFolder
from gmmas_cli.main import run_program
from gmmas_runtime.process_state import SupervisorLock
from gmmas_runtime.sealed_files import KeyRing, Seal, is_sealed
from gmmas_schema.site import SiteConfig
from gmmas_workflows.site_state import SiteState
from server.checkpoint import RunFolder, read_seal
from server.deployment import init_coordinator
from server.folder import CoordinatorFolder
from server.run_register import note_run
from tests.client.sites import write_site
from tests.server.simulated_sites import make_config, make_grid, run
from tests.server.test_resume import sites


@pytest.fixture
def coordinator(tmp_path: Path) -> CoordinatorFolder:
    made = init_coordinator(tmp_path / "coordinator", port=19321)
    path = made.path / "coordinator.yaml"
    path.write_text(path.read_text().replace("encryption: null", "encryption: {key_file: ../keys/seal.key}"))
    return CoordinatorFolder.open(made.path)


def test_the_checkpoints_of_all_runs_are_encrypted_and_rotated(
    tmp_path: Path, coordinator: CoordinatorFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = RunFolder.create(tmp_path / "run", make_config(rounds=2, sites=3, replies=2))
    run(make_grid(*sites()), folder)
    note_run(coordinator, folder.path)
    before = folder.load_round(2).tensors
    keys = []
    for _ in range(2):
        assert run_program(["server", "rotate-key", str(coordinator.path)]) == 0, capsys.readouterr().err
        keys.append(KeyRing.read(tmp_path / "keys" / "seal.key").keys)
        opened = RunFolder.open(folder.path)
        assert opened.load_round(2).tensors.keys() == before.keys()
        assert all(np.array_equal(value, before[name]) for name, value in opened.load_round(2).tensors.items())
        assert is_sealed(opened.round_path(2) / "model.safetensors")
    assert keys[0] != keys[1]
    assert read_seal(folder.path).key_file == coordinator.path / "../keys/seal.key"
    (folder.path / "federation.json").rename(tmp_path / "aside")
    assert run_program(["server", "rotate-key", str(coordinator.path)]) != 0
    assert "not where they were" in capsys.readouterr().err
    assert run_program(["server", "rotate-key", str(coordinator.path), "--forget-missing"]) == 0


def test_without_a_key_file_in_the_configuration_the_command_says_what_to_add(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init_coordinator(tmp_path / "coordinator", port=19322)
    assert run_program(["server", "rotate-key", str(tmp_path / "coordinator")]) != 0
    assert "encryption: {key_file: PATH}" in capsys.readouterr().err


def test_a_nodes_files_are_encrypted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_site(tmp_path, cases=1)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"encryption": {"key_file": "keys/seal.key"}}))
    config = SiteConfig.from_yaml(path)
    folder = NodeFolder(config.node.state)
    SiteState(folder.training, kind="feedback").write({"a": np.ones(3, np.float32)}, run="r", round=1)
    assert run_program(["site", "rotate-key", "--config", str(path)]) == 0, capsys.readouterr().err
    sealed = SiteState(folder.training, kind="feedback", seal=Seal(tmp_path / "keys" / "seal.key"))
    assert np.array_equal(sealed.before(run="r", round=2)["a"], np.ones(3, np.float32))
    with folder.held_by_trainer():
        assert run_program(["site", "rotate-key", "--config", str(path)]) != 0
    assert "already running" in capsys.readouterr().err


def test_deleted_rows_give_their_room_back(coordinator: CoordinatorFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(coordinator.database, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL").fetchall()
        database.execute("CREATE TABLE messages (content BLOB)")
        database.executemany("INSERT INTO messages VALUES (?)", [(b"x" * 100_000,)] * 20)
        database.execute("DELETE FROM messages")
    assert run_program(["server", "compact", str(coordinator.path)]) == 0
    assert coordinator.database.stat().st_size < 20_000
    assert "1.9 MiB, now 0.0 MiB" in capsys.readouterr().out.replace("\n", " ")
    lock = SupervisorLock.take(coordinator.state_file)  # it starts, and has not written its state, for instance to a full disk
    assert run_program(["server", "compact", str(coordinator.path)]) != 0
    assert "the coordinator is running" in capsys.readouterr().err
    lock.release()
