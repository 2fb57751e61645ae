"""The folder of a cross-site validation, which the coordinator's process works in as it works in a run's.

validation.json            what is asked (gmmas_schema.validation)
run.json                   identifier; site-side memory belongs to it
models/<label>/            a copy of each model
answers/<label>.json       what the sites said of a model, once all have; an interrupted validation goes on after these
matrix.json, matrix.png    the outcome
events.db, submission.json as of a run
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

from pydantic import ValidationError

from gmmas_model.weights import Weights, load_weights
from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_schema.errors import ConfigError, ModelError
from gmmas_schema.validation import MatrixRow, ValidatedModel, ValidationConfig, ValidationMatrix
from gmmas_workflows.run_identity import begin_run, hold_folder, read_run
from server.checkpoint import RunFolder
from server.events import EVENTS_FILE

VALIDATION: Final = "validation.json"
MATRIX, PICTURE = "matrix.json", "matrix.png"


class ValidationFolder:
    """One validation on disk.

    Attributes:
        path: the folder.
        config: what is asked.
        run: its identifier.
    """

    def __init__(self, path: Path, *, config: ValidationConfig, run: str) -> None:
        self.path, self.config, self.run = path, config, run

    @classmethod
    def create(cls, path: Path, config: ValidationConfig) -> Self:
        """Make the folder of a new validation; the models' folders are there already.

        Raises:
            ConfigError: there is one.
        """
        if (path / VALIDATION).exists():
            raise ConfigError(
                "the folder holds a validation",
                where=path,
                got=VALIDATION,
                expected="no such file",
                remedy="go on with it by `gmmas validate --resume`, or name another folder",
            )
        begin_run(path, config, file=VALIDATION, run=f"validation-{config.digest()[:12]}")
        return cls.open(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of a validation.

        Raises:
            ConfigError: it is none.
        """
        config, run = read_run(path, ValidationConfig, file=VALIDATION)
        return cls(path, config=config, run=run)

    @property
    def events_path(self) -> Path:
        """The record of events."""
        return self.path / EVENTS_FILE

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep other processes from working in this folder.

        Raises:
            FederationError: another process holds it.
        """
        with hold_folder(self.path):
            yield

    def load_model(self, model: ValidatedModel) -> Weights:
        """Return a model's weights.

        Raises:
            ModelError: they cannot be read, or are others than those that the validation is about.
        """
        place = self.path / "models" / model.label
        weights = load_weights(place)
        if weights.sha256 != model.weights:
            raise ModelError(
                "a model of the validation is another one now",
                where=place,
                got=f"weights {weights.sha256[:12]}",
                expected=f"weights {model.weights[:12]}",
                remedy="start a new validation",
            )
        return weights

    def read_row(self, model: ValidatedModel) -> MatrixRow | None:
        """Return what the sites said of a model, or None where that is not there yet."""
        path = self._answers(model)
        try:
            return MatrixRow.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def write_row(self, row: MatrixRow) -> None:
        """Keep what the sites said of a model."""
        path = self._answers(row.model)
        make_private_folder(path.parent)
        write_atomic(path, row.model_dump_json(indent=1).encode() + b"\n")

    def read_matrix(self) -> ValidationMatrix | None:
        """Return the outcome, or None while there is none."""
        path = self.path / MATRIX
        return ValidationMatrix.from_yaml(path) if path.exists() else None

    def write_matrix(self, matrix: ValidationMatrix) -> None:
        """Write the outcome."""
        write_atomic(self.path / MATRIX, matrix.model_dump_json(indent=1).encode() + b"\n")

    def _answers(self, model: ValidatedModel) -> Path:
        return self.path / "answers" / f"{model.label}.json"


def open_work(path: Path) -> RunFolder | ValidationFolder:
    """Open the folder of a run or of a validation.

    Raises:
        ConfigError: it is neither.
    """
    return ValidationFolder.open(path) if (path / VALIDATION).exists() else RunFolder.open(path)
