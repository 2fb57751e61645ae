import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from gmmas_model.calibration import calibrate_prediction
from gmmas_model.inference import predict_probabilities
from gmmas_model.network import GmmasNetwork
from gmmas_model.weights import load_weights, save_calibration, save_weights
from gmmas_schema.calibration import Calibration, HeadCalibration
from gmmas_schema.errors import ModelError
from gmmas_schema.model import GridConfig, ModelDefinition
from gmmas_schema.trained_parts import TrainedParts
from gmmas_schema.vocabulary import TASKS, Modality, Region, Task
from tests.gmmas_model.conftest import TINY

# MLflow's own modules warn while they are imported and while they map their tables.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*loader strategy is deprecated"),
]

DEFINITION = ModelDefinition(network=TINY, grid=GridConfig(shape=(8, 8, 8)))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    import mlflow

    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("test", artifact_location=(tmp_path / "artifacts").as_uri()))
    yield tmp_path
    mlflow.set_tracking_uri(None)


@pytest.fixture
def folder(tmp_path: Path, network: GmmasNetwork) -> Path:
    save_weights(tmp_path / "weights", {n: t.numpy() for n, t in network.state_dict().items()}, DEFINITION, metadata={"round": "3"})
    return tmp_path / "weights"


def test_a_logged_model_comes_back_by_pyfunc(store: Path, folder: Path, network: GmmasNetwork) -> None:
    import mlflow

    from gmmas_model import mlflow_flavor

    with mlflow.start_run():
        mlflow_flavor.log_model(folder, registered_model_name="gmmas")
    loaded = mlflow.pyfunc.load_model("models:/gmmas/1")
    image_BMXYZ, present_BM = torch.randn(2, 4, 8, 8, 8), torch.tensor([[True] * 4, [False, False, True, True]])
    answer = loaded.predict({"image": image_BMXYZ.numpy(), "present": present_BM.numpy()})
    expected = predict_probabilities(network, image_BMXYZ, present_BM)
    np.testing.assert_array_equal(answer["regions"], expected.region_probability().numpy())
    np.testing.assert_array_equal(answer["subtype"], expected.subtype_probability().numpy())
    assert answer["idh"].shape == answer["codeletion"].shape == (2,)


def test_a_model_with_optional_heads_answers_them(tmp_path: Path, networks: dict[tuple[Task, ...], GmmasNetwork]) -> None:
    import mlflow

    from gmmas_model import mlflow_flavor

    network = networks[TASKS]
    tensors = {name: tensor.detach().numpy() for name, tensor in network.state_dict().items()}
    save_weights(tmp_path / "weights", tensors, ModelDefinition(network=network.config, grid=DEFINITION.grid))
    mlflow_flavor.save_model(tmp_path / "weights", path=tmp_path / "model")
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    answer = loaded.predict({"image": np.zeros((2, 4, 8, 8, 8), np.float32), "present": np.ones((2, 4), bool)})
    assert list(answer) == ["regions", "idh", "codeletion", "grade", "mgmt", "subtype"] == loaded.metadata.signature.outputs.input_names()
    assert answer["grade"].shape == answer["mgmt"].shape == (2,)


def test_a_calibrated_model_comes_back_calibrated(tmp_path: Path, folder: Path, network: GmmasNetwork) -> None:
    import mlflow

    from gmmas_model import mlflow_flavor

    heads = {Region.TC: HeadCalibration(temperature=2.0), Task.IDH: HeadCalibration(temperature=4.0)}
    save_calibration(folder, Calibration(weights_sha256=load_weights(folder).sha256, heads=heads))
    mlflow_flavor.save_model(folder, path=tmp_path / "model")
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    image_BMXYZ, present_BM = torch.randn(1, 4, 8, 8, 8), torch.ones(1, 4, dtype=torch.bool)
    answer = loaded.predict({"image": image_BMXYZ.numpy(), "present": present_BM.numpy()})
    raw = predict_probabilities(network, image_BMXYZ, present_BM)
    np.testing.assert_allclose(answer["idh"], (raw.idh_logit_B / 4).sigmoid().numpy(), rtol=1e-6)
    np.testing.assert_array_equal(answer["regions"], calibrate_prediction(raw, {Region.TC: 2.0}).region_probability().numpy())


def test_a_model_folder_holds_text_and_safetensors_only(tmp_path: Path, folder: Path) -> None:
    from gmmas_model import mlflow_flavor

    (folder / "round.json").write_text("{}")
    mlflow_flavor.save_model(folder, path=tmp_path / "model")
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"MLmodel", "model.json", "model.safetensors"}
    assert "round.json" not in {path.name for path in files}
    for path in files:
        if path.name != "model.safetensors":
            path.read_text(encoding="utf-8")
    (size,) = np.frombuffer(next(p for p in files if p.name == "model.safetensors").read_bytes()[:8], "<u8")
    assert size < 1_000_000
    text = (tmp_path / "model" / "MLmodel").read_text()
    assert "gmmas_model.mlflow_flavor" in text
    assert DEFINITION.digest() in text
    assert "python_model" not in text
    assert "pkl" not in text


def test_a_wrong_input_is_refused_by_the_signature(tmp_path: Path, folder: Path) -> None:
    import mlflow

    from gmmas_model import mlflow_flavor

    mlflow_flavor.save_model(folder, path=tmp_path / "model")
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    with pytest.raises(mlflow.exceptions.MlflowException):
        loaded.predict({"image": np.zeros((1, 3, 8, 8, 8), np.float32), "present": np.ones((1, 4), bool)})


def test_changed_weights_are_refused(tmp_path: Path, folder: Path) -> None:
    import mlflow

    from gmmas_model import mlflow_flavor

    mlflow_flavor.save_model(folder, path=tmp_path / "model")
    record = next((tmp_path / "model").rglob("model.json"))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"sha256": "0" * 64}))
    with pytest.raises(ModelError):
        mlflow.pyfunc.load_model(str(tmp_path / "model"))


def test_what_nobody_trained_is_not_read_and_not_a_number(tmp_path: Path, network: GmmasNetwork) -> None:
    import mlflow

    from gmmas_model import mlflow_flavor

    trained = TrainedParts(modalities=(Modality.T1, Modality.T2, Modality.FLAIR), heads=(Region.WT, Region.TC, Task.IDH))
    save_weights(tmp_path / "weights", {n: t.numpy() for n, t in network.state_dict().items()}, DEFINITION, trained=trained)
    mlflow_flavor.save_model(tmp_path / "weights", path=tmp_path / "model")
    loaded = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    image, present = np.random.default_rng(1).normal(size=(1, 4, 8, 8, 8)).astype(np.float32), np.ones((1, 4), bool)
    other = image.copy()
    other[:, 1] = 7
    first, second = (loaded.predict({"image": each, "present": present}) for each in (image, other))
    for name, answer in first.items():
        np.testing.assert_array_equal(answer, second[name])
    assert np.isfinite(first["regions"][:, :2]).all()
    assert np.isfinite(first["idh"]).all()
    assert all(np.isnan(answer).all() for answer in (first["regions"][:, 2], first["codeletion"], first["subtype"]))
    own = loaded.metadata.flavors["gmmas"]
    assert (own["readable"], own["untrained"]) == (["t1", "t2", "flair"], ["et", "codeletion"])
