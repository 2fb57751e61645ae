"""Configuration of one federated run (federation.yaml), read at the coordinator."""

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import TASKS, Task


class TrainingPlan(FrozenModel):
    """What a site does in one round of local training; travels to the sites as JSON.

    Attributes:
        local_steps: optimiser steps per round.
        batch_size: cases per step.
        learning_rate: peak step size of AdamW.
        final_learning_rate_share: cosine decay over all rounds ends at this share of the peak.
        warmup_steps: linear warm-up over the first steps of the run.
        modality_dropout: share of samples that see a random non-empty subset of their modalities.
        augmentation: random flips and intensity changes.
        precision: `auto` is bf16 where the device multiplies bf16 natively, else fp32.
        gradient_clip_norm: largest L2 norm of a step's gradient.
        uncertainty_weighting: `learned` (Kendall et al., CVPR 2018, masked per task) or `fixed` (all weights 1).
        task_weights: fixed factor on each task's loss.
    """

    local_steps: PositiveInt = 30
    batch_size: PositiveInt = 2
    learning_rate: PositiveFloat = 2e-3
    final_learning_rate_share: float = Field(default=0.1, ge=0, le=1)
    warmup_steps: int = Field(default=30, ge=0)
    weight_decay: float = Field(default=1e-5, ge=0)
    modality_dropout: float = Field(default=0.5, ge=0, le=1)
    augmentation: bool = True
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    gradient_clip_norm: PositiveFloat = 5.0
    uncertainty_weighting: Literal["learned", "fixed"] = "learned"
    task_weights: dict[Task, PositiveFloat] = Field(default_factory=lambda: dict.fromkeys(TASKS, 1.0))


class HoldersStrategy(FrozenModel):
    """Every group is averaged over the sites that hold it, weighted by the square root of the site's effective case count."""

    kind: Literal["holders"] = "holders"


class FedAvgStrategy(FrozenModel):
    """Every group over every site, weighted by the number of cases (McMahan et al., AISTATS 2017); the baseline."""

    kind: Literal["fedavg"] = "fedavg"


Strategy = Annotated[HoldersStrategy | FedAvgStrategy, Field(discriminator="kind")]


class QuorumConfig(FrozenModel):
    """When a round may start and when it counts.

    Attributes:
        sites: sites that must be online before the run starts.
        replies: good replies a round needs; fewer fail the round.
        join_deadline_s: longest wait for `sites`.
        round_deadline_s: longest wait for replies; the round goes on with what came if `replies` are there.
        round_attempts: how often a failed round is tried before the run stops (it can be resumed).
    """

    sites: PositiveInt = 2
    replies: PositiveInt = 2
    join_deadline_s: PositiveFloat = 300.0
    round_deadline_s: PositiveFloat = 3600.0
    round_attempts: PositiveInt = 2

    @model_validator(mode="after")
    def _replies_within_sites(self) -> "QuorumConfig":
        if self.replies > self.sites:
            raise ValueError(f"replies ({self.replies}) must not exceed sites ({self.sites})")
        return self


class TrackingConfig(FrozenModel):
    """Where MLflow writes. An empty uri means a SQLite store inside the coordinator's folder."""

    uri: str = ""
    experiment: str = "gmmas"
    registered_model: str = "gmmas"


class FederationConfig(FrozenModel):
    """One federated run."""

    name: str = Field(default="gmmas", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    seed: int = Field(default=0, ge=0)
    rounds: PositiveInt = 20
    model: ModelDefinition = ModelDefinition()
    training: TrainingPlan = TrainingPlan()
    strategy: Strategy = HoldersStrategy()
    quorum: QuorumConfig = QuorumConfig()
    tracking: TrackingConfig = TrackingConfig()
