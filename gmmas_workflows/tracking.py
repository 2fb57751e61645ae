"""A run in MLflow: configuration, metrics per round, models. Federated runs and training without a federation write the same names.

Steps: what belongs to round k (training losses, seconds) is step k; the validation of the model that round k made is step k too,
whenever it was measured. Step 0 is the seeded start.

Names: `validation/dice_wt`, `test/dice_wt` and so on are means over the sites or cohorts; `site/<site>/...` is one's own;
`train/loss_<task>` is the mean training loss; `calibration/<figure>_<head>` belongs to a published model. The registered model has the
aliases `best` and `last`, which name the versions of the latest run that came so far.

A store that cannot be reached never stops a run. What could not be written is said in a warning and tried again at the next call;
whenever a run is started or resumed, a finished one too, every finished round in its folder that the store lacks is written. So
nothing is lost but the seconds at which a curve appears.
"""

import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from gmmas_runtime.files import write_atomic
from gmmas_schema.calibration import CALIBRATION_FILE, Calibration
from gmmas_schema.federation import TrackingConfig
from gmmas_workflows.records import FinishedRound, FinishedRun
from gmmas_workflows.run_metrics import calibration_metrics, score_metrics
from gmmas_workflows.scores import ModelScore

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

logger = logging.getLogger(__name__)

LONGEST_PARAMETER: Final = 500
PARAMETERS_PER_REQUEST: Final = 100
METRICS_PER_REQUEST: Final = 500
_LAST_METRIC: Final = "seconds"
"""Written last of a round's metrics: a step that has it is complete."""

_IDENTITY: Final[dict[str, str | None]] = {"weights_sha256": None, "calibration": None}
"""Tags by which a version is known again: the same weights with another calibration are another version."""

Kind = Literal["best", "last"]
RoundT = TypeVar("RoundT", bound=FinishedRound)

EXPERIMENT_TAGS: Final = {"mlflow.experimentKind": "custom_model_development"}
"""Tells MLflow's pages that this is model training, not a chain of language models."""


class RunTracker(Generic[RoundT]):
    """Writes one run to MLflow.

    Args:
        config: store, experiment and registered model. Without a store's URI: `mlflow.db` and `mlflow-artifacts/` in the folder.
        folder: the run's folder. It also keeps `mlflow_run`, the identifier that a resumed run goes on with.
        round_type: the kind of record in round.json.
        round_metrics: the metrics that belong to a round beside its validation and its seconds.
        configuration: name of the artifact that holds the resolved configuration.
        kind: value of the tag `gmmas.training`, by which federated and other runs are told apart.
    """

    def __init__(
        self,
        config: TrackingConfig,
        folder: Path,
        *,
        round_type: type[RoundT],
        round_metrics: Callable[[RoundT], Mapping[str, float]],
        configuration: str,
        kind: Literal["federated", "local"],
    ) -> None:
        self.uri = store_uri(config, folder)
        self._config, self._folder = config, folder
        self._round_type, self._round_metrics = round_type, round_metrics
        self._configuration = configuration
        self._tags: dict[str, str] = {"gmmas.training": kind}
        self._client: MlflowClient | None = None
        self._run = ""
        self._logged: set[int] = set()
        self._waiting: list[tuple[str, Callable[[], None]]] = []

    def start(self, resolved: Mapping[str, Any]) -> None:
        """Open the MLflow run, or the one that was begun before; record the configuration and the rounds the store lacks."""
        self._do("the configuration", lambda: self._open(resolved))

    def log_round(self, record: RoundT) -> None:
        """Record one finished round; one that is there already is left."""
        self._do(f"round {record.round}", lambda: self._write_round(record))

    def register(self, kind: Kind, weights_folder: Path, *, round: int, metrics: Mapping[str, float]) -> str:  # noqa: A002
        """Register the weights as a model version under the alias `kind`; equal weights of one run are one version.

        Returns:
            `models:/<name>/<version>`, or an empty string where the store could not be reached.
        """
        made: list[str] = []
        self._do(f"the {kind} model", lambda: made.append(self._write_version(kind, weights_folder, round, metrics)))
        return made[0] if made else ""

    def log_result(self, result: FinishedRun) -> None:
        """Record the last model's validation, the best model's test, and both models if the store lacks them."""
        self._do("the result", lambda: self._write_result(result))

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """Close the MLflow run."""
        self._do("the end of the run", lambda: self._connected().set_terminated(self._run, status))
        if self._waiting:
            logger.warning("MLflow lacks %s; resuming the run writes them", ", ".join(what for what, _ in self._waiting))

    def _do(self, what: str, write: Callable[[], None]) -> None:
        """Write what is waiting and then this, in order; on any failure keep the rest for the next call.

        What waits under the same name is dropped: a newer best model has taken its place.
        """
        self._waiting = [*((name, earlier) for name, earlier in self._waiting if name != what), (what, write)]
        while self._waiting:
            try:
                # MLflow and SQLAlchemy warn of their own insides; nobody who trains can act on that.
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    self._waiting[0][1]()
            except Exception as error:
                # Whatever a store raises, training goes on. The address is shown without credentials.
                reason, address = f"{type(error).__name__}: {error!s:.200}", self.uri.rpartition("@")[2]
                waiting = ", ".join(name for name, _ in self._waiting)
                logger.warning("MLflow at %s did not take %s (%s); it is tried again at the next round", address, waiting, reason)
                return
            self._waiting.pop(0)

    def _connected(self) -> "MlflowClient":
        """Return the client; the first call imports MLflow, which takes seconds."""
        if self._client is None:
            self._client = connect(self.uri)
        return self._client

    def _open(self, resolved: Mapping[str, Any]) -> None:
        if not self._reopen():
            self._create(resolved)
        for record in self._finished_rounds():
            self._write_round(record)

    def _reopen(self) -> bool:
        """Go on with the MLflow run that the folder names, if the store still has it."""
        from mlflow.exceptions import MlflowException

        file, client = self._folder / "mlflow_run", self._connected()
        if not file.exists():
            return False
        run = file.read_text(encoding="utf-8").strip()
        try:
            client.update_run(run, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            logger.warning("the MLflow store no longer has this run; it is written there anew")
            return False
        self._run = run
        self._logged = {metric.step for metric in client.get_metric_history(run, _LAST_METRIC)}
        return True

    def _create(self, resolved: Mapping[str, Any]) -> None:
        """Begin an MLflow run; its identifier is kept once its configuration is there."""
        from mlflow.entities import Param

        client = self._connected()
        name = str(resolved.get("run", self._folder.resolve().name))
        run = client.create_run(
            ensure_experiment(client, self._config, uri=self.uri), run_name=name, tags=self._tags | origin_tags(self._folder)
        ).info.run_id
        parameters = [Param(key, text[:LONGEST_PARAMETER]) for key, text in flatten(resolved)]
        for first in range(0, len(parameters), PARAMETERS_PER_REQUEST):
            client.log_batch(run, params=parameters[first : first + PARAMETERS_PER_REQUEST])
        client.log_dict(run, dict(resolved), self._configuration)
        write_atomic(self._folder / "mlflow_run", run.encode())
        self._run, self._logged = run, set()

    def _finished_rounds(self) -> list[RoundT]:
        files = sorted(self._folder.glob("rounds/*/round.json"))
        return [self._round_type.model_validate_json(file.read_bytes()) for file in files]

    def _write_metrics(self, metrics: Mapping[str, float], *, step: int, time_s: float) -> None:
        """Write metrics; the same ones at the same time are one point in MLflow, so writing twice does no harm."""
        from mlflow.entities import Metric

        entities = [Metric(name, float(value), int(time_s * 1000), step) for name, value in metrics.items()]
        for first in range(0, len(entities), METRICS_PER_REQUEST):
            self._connected().log_batch(self._run, metrics=entities[first : first + METRICS_PER_REQUEST])

    def _write_round(self, record: RoundT) -> None:
        if record.round in self._logged:
            return
        ended_s = record.started_at + record.seconds
        if record.validation is not None:
            self._write_metrics(score_metrics(record.validation), step=record.validation.model_round, time_s=ended_s)
        self._write_metrics(self._round_metrics(record), step=record.round, time_s=ended_s)
        self._write_metrics({_LAST_METRIC: record.seconds}, step=record.round, time_s=ended_s)
        self._logged.add(record.round)

    def _write_result(self, result: FinishedRun) -> None:
        client, records = self._connected(), self._finished_rounds()
        ended_s = records[-1].started_at + records[-1].seconds if records else 0.0
        for score in (result.last, result.test):
            if score is not None:
                self._write_metrics(score_metrics(score), step=score.model_round, time_s=ended_s)
        for name, score in result.subsets.items():
            means = score_metrics(score.model_copy(update={"sites": {}}), prefix=f"{score.split}/subset/{name.replace('+', '-')}")
            self._write_metrics(means, step=score.model_round, time_s=ended_s)
        client.set_tag(self._run, "best_round", result.best_round)
        client.set_tag(self._run, "model_digest", result.model_digest)
        client.log_dict(self._run, result.model_dump(mode="json"), "result.json")
        models: tuple[tuple[Kind, int, ModelScore | None], ...] = (
            ("best", result.best_round, result.validation),
            ("last", result.rounds, result.last),
        )
        for kind, made_in, score in models:
            folder = self._folder / "models" / kind
            if folder.is_dir():
                self._write_version(kind, folder, made_in, score.metrics if score else {})

    def _write_version(self, kind: Kind, weights_folder: Path, made_in: int, metrics: Mapping[str, float]) -> str:
        from mlflow.exceptions import MlflowException

        from gmmas_model import mlflow_flavor
        from gmmas_model.weights import load_weights

        client, name = self._connected(), self._config.registered_model
        weights = load_weights(weights_folder)
        try:
            client.create_registered_model(name, description="Glioma model: regions, IDH, 1p/19q. Research use only.")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        versions = client.search_model_versions(f"name='{name}' and run_id='{self._run}'")
        identity = {"weights_sha256": weights.sha256}
        if weights.calibration is not None:
            identity["calibration"] = weights.calibration.digest()
        same = next((version for version in versions if {key: version.tags.get(key) for key in _IDENTITY} == _IDENTITY | identity), None)
        if same is None:
            place = f"models/round-{made_in:04d}{'-' + identity['calibration'][:8] if 'calibration' in identity else ''}"
            with tempfile.TemporaryDirectory() as made:
                mlflow_flavor.save_model(weights_folder, path=Path(made) / "model")
                client.log_artifacts(self._run, str(Path(made) / "model"), place)
            if weights.calibration is not None:
                self._write_calibration(weights.calibration, made_in)
            tags = {"round": made_in, "model_digest": weights.definition.digest(), **identity, **metrics}
            texts = {key: str(value) for key, value in tags.items()}
            description = self._describe(weights_folder) or None
            same = client.create_model_version(name, f"runs:/{self._run}/{place}", run_id=self._run, tags=texts, description=description)
        client.set_registered_model_alias(name, kind, str(same.version))
        return f"models:/{name}/{same.version}"

    def _describe(self, weights_folder: Path) -> str:  # noqa: ARG002 - for those that have cards
        """Return the description of a model's version, Markdown of at most 5000 characters; none by default."""
        return ""

    def _write_calibration(self, calibration: Calibration, made_in: int) -> None:
        """Record the calibration of the model that a round made: its figures at that step, the record and the reliability diagram."""
        from gmmas_workflows.reliability_figure import reliability_diagram

        records = self._finished_rounds()
        ended_s = records[-1].started_at + records[-1].seconds if records else 0.0
        self._write_metrics(calibration_metrics(calibration), step=made_in, time_s=ended_s)
        with tempfile.TemporaryDirectory() as made:
            (Path(made) / CALIBRATION_FILE).write_text(calibration.model_dump_json(indent=2), encoding="utf-8")
            reliability_diagram(calibration, Path(made) / "reliability.png")
            self._connected().log_artifacts(self._run, made, f"calibration/round-{made_in:04d}")


def connect(uri: str) -> "MlflowClient":
    """Return a client of a store; the first call imports MLflow, which takes seconds."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    # A dead server should cost a round seconds, not the many minutes of MLflow's defaults.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    for noisy in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # MLflow and SQLAlchemy warn of their own insides; nobody who trains can act on that.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def ensure_experiment(client: "MlflowClient", config: TrackingConfig, *, uri: str) -> str:
    """Return the identifier of the experiment, made at first use; a SQLite store keeps its artifacts beside itself."""
    found = client.get_experiment_by_name(config.experiment)
    if found is not None:
        return str(found.experiment_id)
    place = None
    if uri.startswith("sqlite:///"):
        place = Path(uri.removeprefix("sqlite:///")).resolve().with_name("mlflow-artifacts").as_uri()
    return str(client.create_experiment(config.experiment, artifact_location=place, tags=EXPERIMENT_TAGS))


def origin_tags(folder: Path) -> dict[str, str]:
    """Return the tags by which runs are told apart: software, its commit where it is a checkout, and the run's folder."""
    from mlflow.utils.git_utils import get_git_commit

    tags = {"gmmas.software": version("gmmas-fed"), "gmmas.folder": str(folder.resolve())}
    commit = get_git_commit(str(Path(__file__).parent))
    return tags | ({"mlflow.source.git.commit": commit} if commit else {})


def store_uri(config: TrackingConfig, folder: Path) -> str:
    """Return the address of a run's MLflow store; by default a SQLite file in the run's folder."""
    return config.uri or f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def flatten(values: Mapping[str, Any], *, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted key, text) of every leaf of nested mappings; a list is one leaf."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, prefix=f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
