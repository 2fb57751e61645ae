import shutil
import warnings
from pathlib import Path

import pytest

from gmmas_model.weights import load_weights, save_weights
from gmmas_schema.errors import ConfigError, ModelError
from gmmas_workflows.model_source import read_model


@pytest.fixture(scope="module")
def folder(definition, start, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights")
    save_weights(path, start, definition, metadata={"round": "3"})
    return path


@pytest.fixture(scope="module")
def store(folder, tmp_path_factory) -> str:
    """A SQLite store with the weights as gmmas version 1, alias best, and a version 2 that is none of ours."""
    place = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{place / 'mlflow.db'}"
    with warnings.catch_warnings():
        # MLflow and SQLAlchemy warn of their own insides while they are imported and while they make their tables.
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        from gmmas_model.mlflow_flavor import save_model

        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        run = client.create_run(client.create_experiment("x", artifact_location=(place / "artifacts").as_uri())).info.run_id
        save_model(folder, path=place / "model")
    client.log_artifacts(run, str(place / "model"), "models/round-0003")
    client.log_text(run, "nothing", "models/other/readme.txt")
    client.create_registered_model("gmmas")
    client.create_model_version("gmmas", f"runs:/{run}/models/round-0003", run_id=run)
    client.create_model_version("gmmas", f"runs:/{run}/models/other", run_id=run)
    client.set_registered_model_alias("gmmas", "best", "1")
    return uri


def test_a_folder_is_read_as_it_is(folder) -> None:
    assert read_model(str(folder)).sha256 == load_weights(folder).sha256


@pytest.mark.parametrize("source", ["models:/gmmas@best", "models:/gmmas/1"])
def test_a_registered_model_comes_back_bit_for_bit(source, store, folder, monkeypatch) -> None:
    expected = load_weights(folder)
    found = read_model(source, tracking_uri=store)
    assert found.sha256 == expected.sha256
    assert found.metadata == {"round": "3"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    assert read_model(source).definition == expected.definition


@pytest.mark.parametrize("source", ["models:/gmmas@worst", "models:/gmmas/9", "models:/other/1", "runs:/0123/x"])
def test_a_model_that_is_not_there_is_one_clear_error(source, store) -> None:
    with pytest.raises(ModelError, match="cannot be fetched") as caught:
        read_model(source, tracking_uri=store)
    assert caught.value.where == source


def test_an_artifact_that_is_no_model_of_ours_is_refused(store) -> None:
    with pytest.raises(ModelError, match="not a gmmas model"):
        read_model("models:/gmmas/2", tracking_uri=store)


def test_a_store_must_be_named_and_be_there(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(ConfigError, match="no MLflow store"):
        read_model("models:/gmmas@best")
    with pytest.raises(ConfigError, match="not there"):
        read_model("models:/gmmas@best", tracking_uri=f"sqlite:///{tmp_path}/typo.db")
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights_are_refused(folder, tmp_path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    file = tmp_path / "copy" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(ModelError, match="weights cannot be read"):
        read_model(str(tmp_path / "copy"))
