import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from gmmas_model.weights import load_weights
from gmmas_schema.errors import ConfigError, FederationError, ModelError
from gmmas_schema.federation import FederationConfig
from gmmas_schema.trained_parts import TrainedParts
from gmmas_schema.vocabulary import Modality, Region, Task
from gmmas_workflows.run_folder import KEEP_LAST
from server.checkpoint import RunFolder
from server.initial_model import make_initial_model
from server.records import Outcome, RoundRecord, SiteRecord
from tests.server.simulated_sites import make_config


@pytest.fixture(scope="module")
def tensors():
    return make_initial_model(make_config())


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", make_config(rounds=9), run="r1")


def record(number):
    return RoundRecord(run="r1", round=number, rounds=9, attempt=1, started_at=0.0, seconds=1.0, sites=(), model_sha256="")


def write_rounds(folder, tensors, count):
    folder.write_round(tensors, record=None)
    for number in range(1, count + 1):
        folder.write_round({name: value + np.float32(number) for name, value in tensors.items()}, record=record(number))


def test_a_run_is_opened_as_it_was_made(folder):
    opened = RunFolder.open(folder.path)
    assert (opened.config, opened.run) == (folder.config, "r1")
    assert RunFolder.create(folder.path, folder.config).run == "r1"
    assert folder.path.stat().st_mode & 0o077 == 0


def test_a_run_is_named_by_its_configuration(tmp_path):
    names = [RunFolder.create(tmp_path / name, make_config(rounds=rounds)).run for name, rounds in (("a", 3), ("b", 3), ("c", 4))]
    assert names[0] == names[1] != names[2]
    assert all(name.startswith("test-") for name in names)


def test_a_secure_run_has_a_name_of_its_own_that_a_resume_keeps(tmp_path):
    """The hospitals keep by run and round what they have opened, and what noise has cost them."""
    settings = {"secure": {}, "robustness": {"norm_limit": None}, "quorum": {"sites": 3, "replies": 3}}
    config = FederationConfig.parse(make_config().model_dump() | settings, where="test")
    names = [RunFolder.create(tmp_path / name, config).run for name in ("a", "b")]
    assert names[0] != names[1]
    assert names[0].rpartition("-")[0] == names[1].rpartition("-")[0] == f"test-{config.choices_digest()[:8]}"
    assert names == [RunFolder.create(tmp_path / name, config).run for name in ("a", "b")]
    assert names == [RunFolder.open(tmp_path / name).run for name in ("a", "b")]
    longest = config.model_copy(update={"name": "n" * 63})
    assert len(RunFolder.create(tmp_path / "c", longest).run) <= 128, "as the terms of a round allow"


def test_a_folder_of_another_configuration_is_refused(folder):
    with pytest.raises(ConfigError, match="another configuration"):
        RunFolder.create(folder.path, make_config(rounds=8))


@pytest.mark.parametrize("damage", ["missing", "cut short", "unknown key"])
def test_a_folder_that_is_no_run_is_refused(folder, damage):
    file = folder.path / "federation.json"
    if damage == "missing":
        file.unlink()
    else:
        file.write_text("{" if damage == "cut short" else file.read_text().replace('"rounds"', '"runds"'))
    with pytest.raises(ConfigError) as caught:
        RunFolder.open(folder.path)
    assert str(file) in caught.value.where


def test_a_round_is_read_as_it_was_written(folder, tensors):
    write_rounds(folder, tensors, 2)
    assert folder.finished_rounds() == (0, 1, 2)
    loaded = folder.load_round(2).tensors
    assert list(loaded) == sorted(tensors)
    for name, value in tensors.items():
        assert loaded[name].shape == value.shape
        np.testing.assert_array_equal(loaded[name], value + np.float32(2))
    assert folder.read_record(2).model_sha256 == folder.load_round(2).sha256


def test_sha256sum_agrees(folder, tensors):
    write_rounds(folder, tensors, 1)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder.round_path(1), check=True, capture_output=True)


def test_a_half_written_round_is_ignored_and_swept_away(folder, tensors):
    write_rounds(folder, tensors, 1)
    leftover = folder.path / "rounds" / ".unfinished-0002"
    leftover.mkdir()
    (leftover / "model.safetensors").write_bytes(b"half")
    assert folder.finished_rounds() == (0, 1)
    folder.write_round(tensors, record=record(2))
    assert not leftover.exists()
    assert folder.load_round(2).tensors.keys() == tensors.keys()


def test_a_failure_while_writing_leaves_no_round(folder, tensors, monkeypatch):
    write_rounds(folder, tensors, 1)

    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("gmmas_workflows.run_folder.write_sums", fail)
    with pytest.raises(OSError, match="disk full"):
        folder.write_round(tensors, record=record(2))
    assert folder.finished_rounds() == (0, 1)


@pytest.mark.parametrize("file", ["model.safetensors", "model.json", "round.json", "SHA256SUMS"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_round_is_refused_by_name(folder, tensors, file, damage):
    write_rounds(folder, tensors, 1)
    path = folder.round_path(1) / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    with pytest.raises(ModelError) as caught:
        (folder.read_record if file == "round.json" else folder.load_round)(1)
    assert "damaged" in caught.value.what
    assert "0001" in caught.value.where + caught.value.remedy
    assert caught.value.remedy


def test_old_models_go_and_records_stay(folder, tensors):
    write_rounds(folder, tensors, 6)
    folder.prune_models(keep={2})
    kept = [number for number in folder.finished_rounds() if (folder.round_path(number) / "model.safetensors").exists()]
    assert kept == [2, *range(7 - KEEP_LAST, 7)]
    assert [folder.read_record(number).round for number in range(1, 7)] == list(range(1, 7))
    folder.load_round(2)
    with pytest.raises(ModelError):
        folder.load_round(1)


def test_what_the_next_round_must_remember_lies_with_the_last_rounds(folder, tensors):
    write_rounds(folder, tensors, 1)
    assert folder.load_state(1) == {}
    for number in range(2, 8):
        folder.write_round(tensors, record=record(number), state={"b/x": np.float32([number]), "a": np.array(0.5, np.float32)})
    folder.prune_models(keep={2})
    found = folder.load_state(7)
    assert list(found) == ["a", "b/x"]
    assert (found["a"].shape, found["b/x"].tolist()) == ((), [7])
    kept = [number for number in folder.finished_rounds() if (folder.round_path(number) / "state.safetensors").exists()]
    assert kept == [5, 6, 7]
    folder.load_round(2)
    assert folder.load_state(2) == {}


@pytest.mark.parametrize("damage", ["flip", "gone"])
def test_a_damaged_memory_is_refused_by_name(folder, tensors, damage):
    folder.write_round(tensors, record=None)
    folder.write_round(tensors, record=record(1), state={"a": np.ones(3, np.float32)})
    path = folder.round_path(1) / "state.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.unlink() if damage == "gone" else path.write_bytes(data)
    with pytest.raises(ModelError, match="damaged"):
        folder.load_state(1)


def test_a_crash_while_pruning_leaves_every_folder_sound(folder, tensors, monkeypatch):
    write_rounds(folder, tensors, 4)

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.unlink", fail)
        with pytest.raises(KeyboardInterrupt):
            folder.prune_models(keep=())
    assert folder.read_record(1).round == 1
    folder.prune_models(keep=())
    assert not (folder.round_path(1) / "model.safetensors").exists()


def test_a_published_model_is_whole_and_replaces_the_one_before(folder, tensors):
    write_rounds(folder, tensors, 2)
    for number in (1, 2):
        path = folder.publish_model("best", round=number)
        assert path == folder.model_path("best")
        assert (path / "model.safetensors").read_bytes() == (folder.round_path(number) / "model.safetensors").read_bytes()


def test_a_checkpoint_of_another_model_is_refused(folder, tensors, tmp_path):
    write_rounds(folder, tensors, 1)
    grid = folder.config.model.grid.model_copy(update={"shape": (16, 16, 16)})
    config = folder.config.model_copy(update={"model": folder.config.model.model_copy(update={"grid": grid})})
    mixed = RunFolder.create(tmp_path / "mixed", config)
    shutil.copytree(folder.path / "rounds", mixed.path / "rounds")
    with pytest.raises(ModelError, match="another model"):
        mixed.load_round(1)


def test_only_one_process_works_in_a_folder(folder):
    program = (
        "import sys; from pathlib import Path; from server.checkpoint import RunFolder\n"
        "with RunFolder.open(Path(sys.argv[1])).hold(): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "held"
        with pytest.raises(FederationError, match="another process"), folder.hold():
            pass
        other.kill()
    with folder.hold():
        pass


def moved(number, *groups):
    share = dict.fromkeys(groups, 1.0) | {"encoder.t1": 0.0}
    return record(number).model_copy(update={"sites": (SiteRecord(site="north", node="1", outcome=Outcome.ACCEPTED, shares=share),)})


def test_a_model_says_what_the_rounds_up_to_it_trained(folder, tensors):
    folder.write_round(tensors, record=None)
    folder.write_round(tensors, record=moved(1, "encoder.t2", "head.segmentation.wt"))
    folder.write_round(tensors, record=moved(2, "encoder.flair", "head.idh"))
    # Another process goes on, and one of the first rounds' models is gone.
    folder.prune_models(keep=())
    again = RunFolder.open(folder.path)
    again.write_round(tensors, record=moved(3, "fusion"))
    first = TrainedParts(modalities=(Modality.T2,), heads=(Region.WT,))
    both = TrainedParts(modalities=(Modality.T2, Modality.FLAIR), heads=(Region.WT, Task.IDH))
    assert [again.load_round(number).trained for number in range(4)] == [TrainedParts(), first, both, both]
    assert load_weights(again.publish_model("best", round=1)).trained == first
    assert load_weights(again.publish_model("last", round=3)).trained == both


def forget_what_was_trained(folder, number):
    """Make a round's model.json that of an earlier release."""
    path = folder.round_path(number)
    content = json.loads((path / "model.json").read_text())
    content.pop("trained")
    (path / "model.json").write_text(json.dumps(content))


def test_a_run_of_an_earlier_release_goes_on_by_its_records(folder, tensors, caplog):
    folder.write_round(tensors, record=None)
    folder.write_round(tensors, record=moved(1, "encoder.t2"))
    folder.write_round(tensors, record=moved(2, "encoder.flair"))
    forget_what_was_trained(folder, 2)
    folder.write_round(tensors, record=moved(3, "head.idh"))
    assert folder.load_round(3).trained == TrainedParts(modalities=(Modality.T2, Modality.FLAIR), heads=(Task.IDH,))
    # Where a record is damaged nobody knows, and the run goes on all the same.
    forget_what_was_trained(folder, 3)
    (folder.round_path(1) / "round.json").write_text("{")
    folder.write_round(tensors, record=moved(4, "head.mgmt"))
    assert folder.load_round(4).trained is None
    assert "is not known" in caplog.text
