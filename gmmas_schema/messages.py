"""What travels between coordinator and site: names of records and keys, and the typed contents of their JSON fields.

A message has the records below. ARRAYS holds named tensors; TASK or REPORT holds one JSON document under DOCUMENT.
The reply to a training request carries the evaluation of the model it received, so a round is one message each way.
"""

from enum import StrEnum

from pydantic import Field

from gmmas_schema.base import FrozenModel
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import Modality, Region, Split, Task

PROTOCOL_VERSION = 1

ARRAYS, TASK, REPORT, DOCUMENT = "arrays", "task", "report", "document"
"""Names of the records in a Flower RecordDict, and of the one key in TASK and REPORT."""


class Action(StrEnum):
    """What a site is asked to do; DESCRIBE travels as Flower message type `query`, the others as `train` or `evaluate`."""

    DESCRIBE = "query"
    TRAIN = "train"
    EVALUATE = "evaluate"


class TaskRequest(FrozenModel):
    """A request to a site: parameters only, never code.

    Attributes:
        run: identifier of the federated run; site-side state belongs to it.
        round: 1-based round; for EVALUATE the round that made the model; 0 for DESCRIBE.
        rounds: rounds of the whole run (for the learning-rate schedule).
        seed: seed of the run; the site derives its own from (seed, run, site name, round).
        evaluate: split on which the received model is evaluated, or None.
    """

    protocol: int = PROTOCOL_VERSION
    action: Action
    run: str
    round: int = Field(ge=0)
    rounds: int = Field(ge=0)
    seed: int = Field(ge=0)
    model: ModelDefinition
    plan: TrainingPlan | None = None
    evaluate: Split | None = None


class SiteDescription(FrozenModel):
    """Reply to DESCRIBE: what the site holds, in counts of training cases.

    Attributes:
        modalities: sequences of which the site has at least one training case.
        cases: training cases.
        labelled: training cases with a label, per task.
    """

    protocol: int = PROTOCOL_VERSION
    site: str
    model_digest: str
    software: str
    modalities: tuple[Modality, ...]
    cases: int = Field(ge=0)
    labelled: dict[Task, int]


class Interval(FrozenModel):
    """A value with its 95 % bootstrap interval over `n` patients; all None where it is not defined."""

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = Field(default=0, ge=0)


class Evaluation(FrozenModel):
    """Accuracy of one model on one split of one cohort; aggregates only, nothing per patient."""

    split: Split
    cases: int = Field(ge=0)
    dice: dict[Region, Interval] = {}
    auc: dict[Task, Interval] = {}
    loss: dict[Task, float] = {}


class SiteReport(FrozenModel):
    """Reply to TRAIN or EVALUATE, beside the ARRAYS of a trained site.

    Attributes:
        cases: training cases that took part.
        labelled: labelled training cases per task.
        losses: mean training loss per task over the round.
        steps: optimiser steps made.
        seconds: wall seconds by stage (`load`, `train`, `evaluate`).
        peak_memory_mib: largest resident memory of the trainer so far.
    """

    protocol: int = PROTOCOL_VERSION
    site: str
    run: str
    round: int = Field(ge=0)
    model_digest: str
    modalities: tuple[Modality, ...] = ()
    cases: int = Field(default=0, ge=0)
    labelled: dict[Task, int] = {}
    losses: dict[Task, float] = {}
    steps: int = Field(default=0, ge=0)
    evaluation: Evaluation | None = None
    seconds: dict[str, float] = {}
    peak_memory_mib: float = Field(default=0, ge=0)
