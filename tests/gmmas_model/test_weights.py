import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import (
    RECORD_FILE,
    TENSORS_FILE,
    Weights,
    load_network,
    load_weights,
    make_network,
    save_calibration,
    save_weights,
)
from gmmas_schema.calibration import Calibration, HeadCalibration
from gmmas_schema.errors import ModelError
from gmmas_schema.model import GridConfig, ModelDefinition
from gmmas_schema.trained_parts import TrainedParts
from gmmas_schema.vocabulary import MODALITIES, Modality, Region, Task
from tests.gmmas_model.conftest import TINY

DEFINITION = ModelDefinition(network=TINY, grid=GridConfig(shape=(8, 8, 8)))


@pytest.fixture
def tensors(network: GmmasNetwork) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in network.state_dict().items()}


@pytest.fixture
def folder(tmp_path: Path, tensors: dict[str, np.ndarray]) -> Path:
    save_weights(tmp_path / "model", tensors, DEFINITION, metadata={"round": "3"})
    return tmp_path / "model"


def test_round_trip_is_exact(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    weights = load_weights(folder)
    assert weights.tensors.keys() == tensors.keys()
    assert all(np.array_equal(weights.tensors[name], tensors[name]) for name in tensors)
    assert weights.definition == DEFINITION
    assert weights.metadata == {"round": "3"}
    assert sorted(path.name for path in folder.iterdir()) == [RECORD_FILE, TENSORS_FILE]


def test_network_predicts_the_same_after_a_round_trip(folder: Path, network: GmmasNetwork) -> None:
    image_BMXYZ, present_BM = torch.randn(1, 4, 8, 8, 8), torch.ones(1, 4, dtype=torch.bool)
    loaded = load_network(folder)
    assert not loaded.training
    assert torch.equal(loaded(image_BMXYZ, present_BM).region_logits_BRXYZ, network(image_BMXYZ, present_BM).region_logits_BRXYZ)
    few = load_network(folder, modalities=(Modality.T2,))
    assert not [name for name in few.state_dict() if "t1" in name]


def test_the_digest_names_the_values_not_their_order(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    first = save_weights(tmp_path / "a", tensors, DEFINITION)
    assert save_weights(tmp_path / "b", dict(reversed(tensors.items())), DEFINITION, metadata={"x": "y"}) == first
    tensors = {name: value.copy() for name, value in tensors.items()}
    tensors["heads.idh.logit.bias"] += 1
    assert save_weights(tmp_path / "c", tensors, DEFINITION) != first


def test_no_file_is_a_pickle(folder: Path) -> None:
    (header_size,) = np.frombuffer((folder / TENSORS_FILE).read_bytes()[:8], "<u8")
    json.loads((folder / TENSORS_FILE).read_bytes()[8 : 8 + int(header_size)])
    json.loads((folder / RECORD_FILE).read_bytes())


def edit_record(folder: Path, **changes: object) -> None:
    record = json.loads((folder / RECORD_FILE).read_text())
    (folder / RECORD_FILE).write_text(json.dumps(record | changes))


def flip_byte(folder: Path) -> None:
    data = bytearray((folder / TENSORS_FILE).read_bytes())
    data[-3] ^= 1
    (folder / TENSORS_FILE).write_bytes(data)


def spoil_header(folder: Path) -> None:
    import hashlib

    data = b"\xff" * 64
    (folder / TENSORS_FILE).write_bytes(data)
    edit_record(folder, sha256=hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    "damage",
    [
        flip_byte,
        spoil_header,
        lambda folder: (folder / TENSORS_FILE).write_bytes((folder / TENSORS_FILE).read_bytes()[:100]),
        lambda folder: (folder / TENSORS_FILE).unlink(),
        lambda folder: (folder / RECORD_FILE).unlink(),
        lambda folder: (folder / RECORD_FILE).write_text("{"),
        lambda folder: edit_record(folder, surprise=1),
        lambda folder: edit_record(folder, definition={"version": 2}),
    ],
)
def test_damaged_weights_are_refused(folder: Path, damage: object) -> None:
    damage(folder)  # type: ignore[operator]
    with pytest.raises(ModelError, match="weights cannot be read") as caught:
        load_weights(folder)
    assert caught.value.got
    assert caught.value.remedy


@pytest.mark.parametrize("value", [np.array([np.nan], np.float32), np.array([1.0]), np.array([1], np.int32)])
def test_only_finite_float32_is_written(tmp_path: Path, tensors: dict[str, np.ndarray], value: np.ndarray) -> None:
    with pytest.raises(ModelError, match="finite float32"):
        save_weights(tmp_path / "model", tensors | {"heads.idh.logit.bias": value}, DEFINITION)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"heads.idh.logit.bias": None}, "heads.idh.logit.bias is missing"),
        ({"heads.grade.bias": np.zeros(1, np.float32)}, "heads.grade.bias is not part"),
        ({"heads.idh.logit.bias": np.zeros(2, np.float32)}, r"has shape \(2,\), not \(1,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tensors: dict[str, np.ndarray], change: dict[str, np.ndarray | None], fault: str) -> None:
    changed = {name: value for name, value in (tensors | change).items() if value is not None}
    with pytest.raises(ModelError, match=fault):
        make_network(Weights(changed, DEFINITION, "0" * 64))


def test_a_failed_write_leaves_the_old_pair(folder: Path, tensors: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_weights(folder, {name: value + 1 for name, value in tensors.items()}, DEFINITION)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def calibration(sha256: str) -> Calibration:
    return Calibration(weights_sha256=sha256, heads={Region.ET: HeadCalibration(temperature=1.5, fitted=True, patients=12)})


def test_a_calibration_lies_beside_its_weights(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    before = load_weights(folder)
    assert (before.calibration, before.temperatures) == (None, {})
    save_calibration(folder, calibration(before.sha256))
    assert load_weights(folder).calibration == calibration(before.sha256)
    assert load_weights(folder).temperatures == {Region.ET: 1.5}
    save_weights(folder, {name: value + 1 for name, value in tensors.items()}, DEFINITION)
    assert load_weights(folder).calibration is None


def test_a_calibration_of_other_weights_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match="of other weights"):
        save_calibration(folder, calibration("0" * 64))
    (folder / "calibration.json").write_text(calibration("0" * 64).model_dump_json())
    with pytest.raises(ModelError, match="of other weights"):
        load_weights(folder)
    (folder / "calibration.json").write_text("{}")
    with pytest.raises(ModelError, match=r"calibration\.json with 1 faults"):
        load_weights(folder)


def test_reading_weights_needs_no_torch() -> None:
    code = "import sys, gmmas_model.weights, gmmas_model.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_was_trained_is_read_back_and_says_what_is_read_and_told(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    trained = TrainedParts(modalities=(Modality.T1, Modality.FLAIR), heads=(Region.WT, Region.TC, Task.CODELETION))
    save_weights(tmp_path, tensors, DEFINITION, trained=trained)
    weights = load_weights(tmp_path)
    assert weights.trained == trained
    assert weights.readable == (Modality.T1, Modality.FLAIR)
    # 1p/19q is told of a mutant tumour, and of that nobody taught the model anything.
    assert weights.untrained == (Region.ET, Task.IDH, Task.CODELETION)
    assert not weights.tells_subtype
    assert load_network(tmp_path).modalities == (Modality.T1, Modality.FLAIR)
    assert load_network(tmp_path, modalities=(Modality.T2,)).modalities == (Modality.T2,)


def test_weights_that_do_not_say_what_was_trained_count_as_trained_throughout(folder: Path) -> None:
    weights = load_weights(folder)
    assert "trained" not in json.loads((folder / RECORD_FILE).read_text())
    assert (weights.trained, weights.readable, weights.untrained, weights.tells_subtype) == (None, MODALITIES, (), True)
    assert load_network(folder).modalities == MODALITIES
