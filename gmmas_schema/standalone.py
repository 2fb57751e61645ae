"""Configuration of a training without a federation (train.yaml): the cases of one site, or of several cohorts pooled in one place."""

import hashlib
import json
import os
from collections import Counter
from typing import Final, Literal

from pydantic import Field, PositiveInt, field_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.calibration import CalibrationPlan
from gmmas_schema.coordinator import SITE_NAME
from gmmas_schema.federation import TrackingConfig, TrainingPlan
from gmmas_schema.model import ModelDefinition
from gmmas_schema.site import DataConfig

POOLED: Final = "pooled"
"""What the cases of several cohorts together are called."""


class CohortConfig(DataConfig):
    """One cohort on disk, as `data` of a site.yaml, and what it is called in tables, curves and MLflow."""

    name: str = Field(pattern=SITE_NAME)


class EarlyStop(FrozenModel):
    """When to stop before the last round: the validation score has not risen for a while. The test cases have no say.

    Attributes:
        patience: validations without a rise after which training stops.
        min_delta: a rise is more than this above the best score so far (gmmas_workflows.scores: of Dice, or of AUC without segmentations).
    """

    patience: PositiveInt = 10
    min_delta: float = Field(default=0.001, ge=0, lt=1)


class TrainTracking(TrackingConfig):
    """Where MLflow writes. The name keeps a pooled model from taking over the aliases of a federated one in a shared store."""

    registered_model: str = "gmmas-local"


class TrainConfig(FrozenModel):
    """One training without a federation.

    Attributes:
        cohorts: whose cases are trained on together; each is split, validated and tested by itself.
        rounds: blocks of `training.local_steps` steps; the step size falls over all of them.
        validate_every: rounds from one validation to the next; the last model is always validated.
        early_stop: None trains all rounds.
        calibration: of the finished models; None leaves them uncalibrated.
        device: `auto` is CUDA where present, else CPU.
        threads: CPU threads; by default all that this process may use.
        tracking: None writes nothing to MLflow.
    """

    name: str = Field(default="train", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    cohorts: tuple[CohortConfig, ...] = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    rounds: PositiveInt = 60
    model: ModelDefinition = ModelDefinition()
    training: TrainingPlan = TrainingPlan()
    validate_every: PositiveInt = 1
    early_stop: EarlyStop | None = EarlyStop()
    calibration: CalibrationPlan | None = CalibrationPlan()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: PositiveInt = Field(default_factory=lambda: len(os.sched_getaffinity(0)))
    tracking: TrainTracking | None = TrainTracking()

    @field_validator("cohorts")
    @classmethod
    def _named_once(cls, value: tuple[CohortConfig, ...]) -> tuple[CohortConfig, ...]:
        twice = [name for name, count in Counter(cohort.name for cohort in value).items() if count > 1]
        if twice:
            raise ValueError(f"several cohorts are called {', '.join(twice)}")
        if len(value) > 1 and any(cohort.name == POOLED for cohort in value):
            raise ValueError(f"{POOLED!r} is what all cohorts together are called")
        return value

    @field_validator("training")
    @classmethod
    def _trains_alone(cls, value: TrainingPlan) -> TrainingPlan:
        for key, off in (("proximal_weight", 0.0), ("personalised", "none")):
            if getattr(value, key) != off:
                raise ValueError(f"{key} needs a federation: alone there is no other model to stay near to or to differ from")
        return value

    @property
    def site(self) -> str:
        """What the trainer is called in reports: the cohort's name, or POOLED."""
        return self.cohorts[0].name if len(self.cohorts) == 1 else POOLED

    @property
    def run(self) -> str:
        """Identifier of the run, which the random draws depend on.

        It follows from what decides the weights, and not from where the cohorts lie, what the run is computed on or when it stops.
        """
        decisive = self.model_dump(mode="json", include={"seed", "rounds", "model", "training"})
        decisive["cohorts"] = [cohort.model_dump(mode="json", exclude={"root", "labels"}) for cohort in self.cohorts]
        return f"{self.name}-{hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]}"
