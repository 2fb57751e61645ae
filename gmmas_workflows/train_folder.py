"""The folder of a training without a federation: its configuration, and the rounds of gmmas_workflows.run_folder.

train.json               resolved configuration
run.json                 identifier of the run
rounds/, models/         one folder a round, and the outcome (gmmas_workflows.run_folder)
learning-curves.png      validation and training losses over the rounds
result.json              the end (TrainResult)
mlflow.db                tracking, unless it goes elsewhere
cache/                   preprocessed cases, unless they are kept elsewhere
"""

from pathlib import Path
from typing import Final, Self

from pydantic import Field

from gmmas_schema.base import differing_keys
from gmmas_schema.errors import ConfigError
from gmmas_schema.messages import SiteReport
from gmmas_schema.standalone import TrainConfig
from gmmas_workflows.records import FinishedRound, FinishedRun
from gmmas_workflows.run_folder import RunStore
from gmmas_workflows.run_identity import IDENTITY, begin_run, read_run
from gmmas_workflows.run_metrics import mean_losses, trained_metrics
from gmmas_workflows.tracking import RunTracker
from strategies.holders import weigh_holders

CONFIGURATION: Final = "train.json"
MOST_DIFFERENCES_SHOWN: Final = 8


class TrainRound(FinishedRound):
    """One finished round (round.json); `validation` is of the model it made, None where it was not the turn of one.

    Attributes:
        training: the trainer's own report: losses, steps, seconds by stage, counts of cases and labels.
        samples_per_s: cases through the optimiser per second.
        device: what it was computed on.
    """

    training: SiteReport
    samples_per_s: float = Field(ge=0)
    device: str


class TrainResult(FinishedRun):
    """The end of a training (result.json).

    Attributes:
        planned_rounds: rounds of the configuration.
        stopped_early: the validation score had stopped rising before the last of them.
        seconds: wall seconds of the rounds.
        steps: optimiser steps.
        device: what the last round was computed on.
        software: version of gmmas-fed.
    """

    planned_rounds: int = Field(ge=1)
    stopped_early: bool
    seconds: float = Field(ge=0)
    steps: int = Field(ge=0)
    device: str
    software: str


class TrainFolder(RunStore[TrainRound, TrainResult]):
    """One training on disk.

    Attributes:
        path: the folder.
        config: its configuration.
        run: its identifier.
    """

    def __init__(self, path: Path, *, config: TrainConfig, run: str) -> None:
        super().__init__(
            path,
            definition=config.model,
            run=run,
            round_type=TrainRound,
            result_type=TrainResult,
            # As a coordinator would count what this trainer sent.
            groups_of=lambda record: weigh_holders(record.training, plan=config.training),
        )
        self.config = config

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the folder of a training.

        Raises:
            ConfigError: there is none, or its configuration cannot be read.
        """
        config, run = read_run(path, TrainConfig, file=CONFIGURATION)
        return cls(path, config=config, run=run)

    @classmethod
    def prepare(cls, path: Path, config: TrainConfig, *, resume: bool) -> Self:
        """Make the folder of a new training, or open that of one begun before.

        A finished training is opened with and without `resume`: nothing of it is made again.

        Raises:
            ConfigError: the folder holds an unfinished training and `resume` is off, one of another configuration, files of something
                else, or nothing to resume.
        """
        if not (path / CONFIGURATION).exists():
            _check_free(path, resume=resume)
            begin_run(path, config, file=CONFIGURATION, run=config.run)
            return cls(path, config=config, run=config.run)
        folder = cls.open(path)
        folder._check_same(config)
        if folder.read_result() is None and not resume:
            raise ConfigError(
                "the folder holds a training that has not finished",
                where=path,
                got=f"{max(folder.finished_rounds(), default=0)} of {folder.config.rounds} rounds",
                expected="a new folder, or --resume",
                remedy="go on with it by --resume, or name another folder",
            )
        return folder

    @property
    def curves_path(self) -> Path:
        """The picture of the learning curves."""
        return self.path / "learning-curves.png"

    def _check_same(self, config: TrainConfig) -> None:
        differences = differing_keys(self.config.model_dump(mode="json"), config.model_dump(mode="json"))
        if differences:
            shown = differences[:MOST_DIFFERENCES_SHOWN]
            raise ConfigError(
                "the folder holds a training of another configuration",
                where=self.path / CONFIGURATION,
                got="; ".join(shown) + (f"; and {len(differences) - len(shown)} more" if len(differences) > len(shown) else ""),
                expected="no difference",
                remedy="undo these changes to go on with it (--resume without other options does), or name another folder",
            )


class TrainTracker(RunTracker[TrainRound]):
    """Writes a training to MLflow, under the names of a federated run.

    Args:
        folder: the training; its configuration must name a store.
    """

    def __init__(self, folder: TrainFolder) -> None:
        tracking = folder.config.tracking
        assert tracking is not None, "asked for only where the configuration tracks"
        super().__init__(
            tracking, folder.path, round_type=TrainRound, round_metrics=round_metrics, configuration=CONFIGURATION, kind="local"
        )


def round_metrics(record: TrainRound) -> dict[str, float]:
    """Return what belongs to the round itself: speed, memory, training losses."""
    training = record.training
    metrics = {"samples_per_s": record.samples_per_s, "peak_memory_mib": record.peak_memory_mib}
    metrics |= mean_losses([(training.losses, training.labelled)])
    return metrics | {f"site/{training.site}/{name}": value for name, value in trained_metrics(training).items()}


def _check_free(path: Path, *, resume: bool) -> None:
    """Refuse a folder in which there is nothing to resume, or something else than a training."""
    if resume:
        raise ConfigError(
            "there is no training to resume",
            where=path,
            got="no train.json",
            expected="the folder of a training",
            remedy="check --out, or leave out --resume",
        )
    # A kill in the middle of begin_run leaves run.json alone.
    if path.exists() and (not path.is_dir() or any(entry.name != IDENTITY for entry in path.iterdir())):
        raise ConfigError(
            "the folder of the training is not empty",
            where=path,
            got="files of something else",
            expected="no folder, or an empty one",
            remedy="name another folder",
        )
