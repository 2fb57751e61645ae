"""Where a model comes from: a folder of weights, or a version in an MLflow registry.

    runs/demo/run/models/best      model.safetensors and model.json
    models:/gmmas@best             an alias in the registry
    models:/gmmas/3                a version in it
    runs:/<run>/models/round-0007  an artifact of an MLflow run

Whatever the source, only safetensors and JSON are read: nothing that is fetched can run. A model with a manifest is read only if its files
are those of the manifest (gmmas_runtime.manifest).
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gmmas_model.weights import RECORD_FILE, Weights, load_weights
from gmmas_runtime.manifest import Origin, check_manifest
from gmmas_schema.errors import ConfigError, ModelError
from gmmas_schema.manifest import CARD_FILE, CARD_TEXT, MANIFEST_FILE

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_MODELS: Final = "models:/"
_RUNS: Final = "runs:/"


@dataclass(frozen=True)
class OpenedModel:
    """A model and what is known of where it comes from.

    Attributes:
        origin: its manifest, checked.
        documents: the model card's files and the manifest by name, as far as they are there.
    """

    weights: Weights
    origin: Origin
    documents: Mapping[str, bytes] = field(default_factory=dict)


def read_model(source: str, *, tracking_uri: str = "") -> Weights:
    """Read weights from a folder or from MLflow; arguments and errors as of open_model."""
    return open_model(source, tracking_uri=tracking_uri).weights


def open_model(source: str, *, tracking_uri: str = "", authority: Path | None = None) -> OpenedModel:
    """Read a model from a folder or from MLflow, after checking its manifest.

    Args:
        source: a folder, or a URI of MLflow.
        tracking_uri: MLflow store of that URI, for instance `sqlite:///runs/demo/run/mlflow.db`; by default MLFLOW_TRACKING_URI.
        authority: certificate of a coordinator's authority; nothing but a model signed under it is read then.

    Raises:
        ConfigError: a URI of MLflow without a store, or a SQLite store that does not exist.
        ModelError: the store has no such model, or the weights cannot be read.
        TrustError: the files are not those of the manifest, its signature is wrong, or it is not of this authority.
    """
    with model_folder(source, tracking_uri=tracking_uri) as folder:
        origin = check_manifest(folder, authority=authority)
        documents = {name: (folder / name).read_bytes() for name in (CARD_FILE, CARD_TEXT, MANIFEST_FILE) if (folder / name).is_file()}
        return OpenedModel(load_weights(folder), origin, documents)


@contextmanager
def model_folder(source: str, *, tracking_uri: str = "") -> Iterator[Path]:
    """Give the folder of a model; one of MLflow's is fetched and is gone after the context. Arguments and errors as of open_model."""
    if not source.startswith((_MODELS, _RUNS)):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield _fetch(source, store_of(source, tracking_uri), into=Path(scratch))


def store_of(source: str, tracking_uri: str = "") -> str:
    """Return the address of the MLflow store that a name of MLflow is looked up in.

    Raises:
        ConfigError: none is named, or a SQLite file that does not exist.
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri:
        raise ConfigError(
            "an MLflow model is named but no MLflow store",
            where=source,
            expected="--tracking-uri or MLFLOW_TRACKING_URI, for instance sqlite:///<run folder>/mlflow.db",
            remedy="name the store, or the folder models/best of the run",
        )
    database = uri.removeprefix("sqlite:///")
    if database != uri and not Path(database).is_file():
        # MLflow would make an empty store there and then miss the model in it.
        raise ConfigError("the MLflow store is not there", where=uri, got="no such file", expected="the mlflow.db of a run")
    return uri


def _fetch(source: str, uri: str, *, into: Path) -> Path:
    """Download a model and return the folder inside it that holds the weights."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # MLflow and SQLAlchemy warn of their own insides.
        warnings.simplefilter("ignore")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
        from sqlalchemy.exc import SQLAlchemyError

        try:
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            run, _, path = _artifact_of(source, client).removeprefix(_RUNS).partition("/")
            client.download_artifacts(run, path, str(into))
        except (MlflowException, SQLAlchemyError, OSError) as error:
            raise ModelError(
                "the model cannot be fetched from MLflow",
                where=source,
                got=" ".join(f"{type(error).__name__}: {error}".split())[:300],
                expected=f"a model of that name in {uri.rpartition('@')[2]}",
                remedy="check the name, the alias or version, and the store",
            ) from error
    found = sorted(into.rglob(RECORD_FILE))
    if len(found) != 1:
        raise ModelError(
            "an MLflow artifact is not a gmmas model",
            where=source,
            got=f"{len(found)} files {RECORD_FILE}",
            expected="one",
            remedy="name a model that a federated run registered",
        )
    return found[0].parent


def _artifact_of(source: str, client: "MlflowClient") -> str:
    """Return the runs:/ address of a model; mlflow.artifacts would look names up in the default registry, whatever store is named."""
    if source.startswith(_RUNS):
        return source
    name, _, alias = source.removeprefix(_MODELS).partition("@")
    if alias:
        return str(client.get_model_version_by_alias(name, alias).source)
    name, _, number = name.rpartition("/")
    return str(client.get_model_version(name, number).source)
