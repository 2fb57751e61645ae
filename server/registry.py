"""The registry of models in MLflow: versions, the aliases that name them, and the validations that measured them."""

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gmmas_model.weights import RECORD_FILE, WeightsRecord
from gmmas_schema.errors import ConfigError, ModelError
from gmmas_schema.manifest import CARD_FILE, CARD_TEXT, MANIFEST_FILE
from gmmas_schema.validation import ValidationMatrix
from gmmas_workflows.model_source import store_of
from gmmas_workflows.tracking import connect, store_uri
from server.checkpoint import RunFolder
from server.validation_folder import MATRIX
from server.validation_tracking import KIND

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

logger = logging.getLogger(__name__)
ResultT = TypeVar("ResultT")

_MODELS: Final = "models:/"
_MOST: Final = 1000


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model.

    Attributes:
        version: its number, as MLflow writes it.
        aliases: that name it now.
        run: identifier of the MLflow run that registered it; `folder` that run's folder, where the tag is there.
        weights: SHA-256 of model.safetensors.
        metrics: validation, as it was registered.
    """

    name: str
    version: str
    weights: str
    run: str
    round: int
    made_at: datetime
    aliases: tuple[str, ...] = ()
    folder: Path | None = None
    tags: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Return what `gmmas predict --model` takes."""
        return f"{_MODELS}{self.name}/{self.version}"

    @property
    def metrics(self) -> dict[str, float]:
        """Return its validation metrics, from its tags."""
        return {name: float(value) for name, value in self.tags.items() if name.startswith(("dice_", "auc_")) and _is_number(value)}


class Registry:
    """One MLflow store.

    Args:
        uri: of the store.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: MlflowClient = connect(uri)

    @classmethod
    def open(cls, model: str = "", *, tracking_uri: str = "") -> "Registry":
        """Open the store that is named, or that of the run whose folder `model` is.

        Raises:
            ConfigError: none is named, or it does not exist.
        """
        run_dir = None if model.startswith(_MODELS) or tracking_uri else run_of(Path(model))
        if run_dir is not None:
            tracking_uri = store_uri(RunFolder.open(run_dir).config.tracking, run_dir)
        return cls(store_of(model or "the registry", tracking_uri))

    def versions(self, name: str = "") -> list[ModelVersion]:
        """Return the versions of a registered model, or of all, the newest first."""
        query = f"name='{name}'" if name else ""
        with _quiet():
            aliases = {model.name: dict(model.aliases) for model in self._client.search_registered_models(max_results=_MOST)}
            found = self._client.search_model_versions(query, max_results=_MOST)
            return sorted((self._version(each, aliases.get(each.name, {})) for each in found), key=lambda v: (v.name, -int(v.version)))

    def resolve(self, model: str) -> ModelVersion:
        """Return the version that a name, an alias, or a folder means.

        Args:
            model: `models:/gmmas/3`, `models:/gmmas@best`, the same without `models:/`, or the folder of a run or of weights that this
                store has registered.

        Raises:
            ModelError: the store has no such version.
        """
        path = Path(model)
        every = self.versions()
        if not model.startswith(_MODELS) and path.is_dir():
            digest = _weights_in(path)
            match = next((each for each in every if each.weights == digest), None)
            here = run_of(path)
            match = match and replace(match, folder=match.folder or here)
        else:
            name, _, alias = model.removeprefix(_MODELS).partition("@")
            name, number = (name, "") if alias else tuple(name.rpartition("/")[::2])
            match = next((v for v in every if v.name == name and (alias in v.aliases if alias else v.version == number)), None)
        if match is None:
            known = ", ".join(f"{v.address}{''.join(f' @{a}' for a in v.aliases)}" for v in every[:8])
            raise ModelError(
                "the registry has no such model",
                where=self.uri.rpartition("@")[2],
                got=model,
                expected=known or "a registered model; this store has none",
                remedy="see `gmmas model list`; --tracking-uri names the store",
            )
        return match

    def holder(self, name: str, alias: str) -> ModelVersion | None:
        """Return the version that has an alias, or None."""
        return next((each for each in self.versions(name) if alias in each.aliases), None)

    def matrices(self, weights: Sequence[str]) -> Iterator[ValidationMatrix]:
        """Yield the validations in which all of these weights were measured, the newest first."""
        wanted = " and ".join([f"tags.`gmmas.training` = '{KIND}'", *(f"tags.`weights/{digest[:12]}` LIKE '%'" for digest in weights)])
        with _quiet():
            experiments = [each.experiment_id for each in self._client.search_experiments()]
            runs = self._client.search_runs(experiments, wanted, order_by=["attributes.start_time DESC"], max_results=50)
        for run in runs:
            content = self.artifact(run.info.run_id, MATRIX)
            matrix = None if content is None else ValidationMatrix.parse(content, where=f"MLflow run {run.info.run_id}")
            if matrix is not None and all(matrix.row_of(digest) for digest in weights):
                yield matrix

    def artifact(self, run: str, name: str) -> Any:
        """Return the content of a JSON artifact of a run, or None where it is not there."""
        from mlflow.exceptions import MlflowException

        with _quiet(), tempfile.TemporaryDirectory() as scratch:
            try:
                return json.loads(Path(self._client.download_artifacts(run, name, scratch)).read_bytes())
            except (MlflowException, OSError, ValueError):
                return None

    def give_alias(self, version: ModelVersion, alias: str, *, tags: Mapping[str, str]) -> None:
        """Let an alias name a version, with tags on the version."""
        with _quiet():
            for key, value in tags.items():
                self._client.set_model_version_tag(version.name, version.version, key, value[:5000])
            self._client.set_registered_model_alias(version.name, alias, version.version)

    def attach_card(self, version: ModelVersion, folder: Path, *, description: str) -> None:
        """Put the manifest and the card of a model's folder beside the version's artifact, and describe the version.

        Args:
            version: of the same weights.
            folder: of the model.
            description: Markdown, at most 5000 characters.
        """
        with _quiet():
            source = str(self._client.get_model_version(version.name, version.version).source)
            run, _, place = source.removeprefix("runs:/").partition("/")
            for name in (MANIFEST_FILE, CARD_FILE, CARD_TEXT):
                self._client.log_artifact(run, str(folder / name), self._place_of_weights(run, place))
            self._client.update_model_version(version.name, version.version, description)

    def _place_of_weights(self, run: str, place: str) -> str:
        """Return the artifact folder below `place` that holds the weights."""
        entries = self._client.list_artifacts(run, place)
        if any(Path(entry.path).name == RECORD_FILE for entry in entries):
            return place
        below = (self._place_of_weights(run, entry.path) for entry in entries if entry.is_dir)
        return next((found for found in below if found), "")

    def log(self, run: str, content: Mapping[str, Any], name: str) -> None:
        """Write a JSON artifact beside a run."""
        with _quiet():
            self._client.log_dict(run, dict(content), name)

    def experiment_of(self, run: str) -> str:
        """Return the experiment of a run."""
        with _quiet():
            return str(self._client.get_run(run).info.experiment_id)

    def _version(self, found: Any, aliases: Mapping[str, str]) -> ModelVersion:
        tags = {str(key): str(value) for key, value in found.tags.items()}
        number = tags.get("round", "")
        return ModelVersion(
            name=found.name,
            version=str(found.version),
            weights=tags.get("weights_sha256", ""),
            run=found.run_id or "",
            round=int(number) if number.isdigit() else 0,
            made_at=datetime.fromtimestamp(found.creation_timestamp / 1000, tz=UTC),
            aliases=tuple(sorted(alias for alias, version in aliases.items() if str(version) == str(found.version))),
            folder=self._folder_of(found.run_id),
            tags=tags,
        )

    def _folder_of(self, run: str | None) -> Path | None:
        """Return the folder of the run that registered a version, if it is still on this machine."""
        from mlflow.exceptions import MlflowException

        try:
            tags = {} if not run else self._client.get_run(run).data.tags
        except MlflowException:
            return None
        folder = Path(tags.get("gmmas.folder", ""))
        return folder if folder.is_absolute() and run_of(folder) is not None else None


def run_of(folder: Path) -> Path | None:
    """Return the folder of the federated run that a folder is, or that it lies in as models/<kind>; None for any other."""
    return next((path for path in (folder, folder.resolve().parent.parent) if (path / "federation.json").is_file()), None)


def _weights_in(folder: Path) -> str:
    """Return the digest of the weights in a folder of weights or of a run (its best model)."""
    place = folder if (folder / RECORD_FILE).is_file() else folder / "models" / "best"
    try:
        return WeightsRecord.model_validate_json((place / RECORD_FILE).read_bytes()).sha256
    except (OSError, ValueError) as error:
        raise ConfigError(
            "this folder holds no model",
            where=folder,
            got=type(error).__name__,
            expected="a folder of weights, or that of a finished run",
            remedy="name another folder, or models:/<name>/<version>",
        ) from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence MLflow and SQLAlchemy, which warn of their own insides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
