"""What travels between coordinator and site: names of records and keys, and the typed contents of their JSON fields.

A message has the records below. ARRAYS holds named tensors; TASK or REPORT holds one JSON document under DOCUMENT.
The reply to a training request carries the evaluation of the model it received, so a round is one message each way.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator

from gmmas_schema.base import FrozenModel
from gmmas_schema.calibration import CalibrationQuery, CalibrationStatistics
from gmmas_schema.errors import ReasonCode
from gmmas_schema.federation import TrainingPlan
from gmmas_schema.model import ModelDefinition
from gmmas_schema.policy import Safeguards
from gmmas_schema.secure import SecureTask
from gmmas_schema.vocabulary import REGIONS, Modality, Region, Split, Task
from gmmas_schema.wire import WireConfig

PROTOCOL_VERSION = 5

ARRAYS, TASK, REPORT, DOCUMENT = "arrays", "task", "report", "document"
"""Names of the records in a Flower RecordDict, and of the one key in TASK and REPORT."""

Target = Region | Task
"""What becomes ready for pseudo-labels by itself: a region or a molecular task; segmentation stands for none of its regions."""


def task_of(target: Target) -> Task:
    """Return the task whose labels teach a target."""
    return Task.SEGMENTATION if isinstance(target, Region) else target


Share = Annotated[float, Field(gt=0, le=1)]


class Action(StrEnum):
    """What a site is asked to do; DESCRIBE travels as Flower message type `query`, the others as `train` or `evaluate`."""

    DESCRIBE = "query"
    TRAIN = "train"
    EVALUATE = "evaluate"


class Notice(FrozenModel):
    """Why the coordinator refused a site's last reply; shown at the site, never acted upon.

    Attributes:
        round: of the reply.
        code: the reason.
        reason: one line of printable characters.
    """

    round: int = Field(ge=0)
    code: ReasonCode
    reason: str = Field(default="", max_length=300)

    @field_validator("reason")
    @classmethod
    def _is_printable(cls, reason: str) -> str:
        if not reason.isprintable():
            raise ValueError("a notice is one line of printable characters")
        return reason


class TaskRequest(FrozenModel):
    """A request to a site: parameters only, never code.

    Attributes:
        run: identifier of the federated run; site-side state belongs to it.
        round: 1-based round; for EVALUATE the round that made the model; 0 for DESCRIBE.
        rounds: rounds of the whole run (for the learning-rate schedule).
        seed: seed of the run; the site derives its own from (seed, run, site name, round).
        evaluate: split on which the received model is evaluated, or None.
        calibrate: sums for calibration that an evaluation is to bring along, or None.
        ready: weight in (0, 1] of pseudo-labels per target that has become ready (a region or a molecular task).
        subsets: with EVALUATE, figures for every subset of the site's sequences as well.
        against: run of an earlier EVALUATE on the same split that is to be compared with case by case, where the site still has it; with it
            the evaluation brings paired differences along.
        safeguards: what the coordinator says it does with updates; the site holds its policy against it (gmmas_schema.policy).
        wire: how the answer to TRAIN is to be packed (strategies.wire).
        notice: why the site's last reply was refused, if it was.
        counted: with TRAIN the last round of this run of which a reply of the site counted, 0 for none; what the site carried out of later
            ones is void (strategies.wire). None where that is not said.
        secure: with TRAIN where the run aggregates securely: the site keeps its update and advertises keys instead.
    """

    protocol: int = PROTOCOL_VERSION
    action: Action
    run: str
    round: int = Field(ge=0, le=2**31 - 1)
    rounds: int = Field(ge=0, le=2**31 - 1)
    seed: int = Field(ge=0)
    model: ModelDefinition
    plan: TrainingPlan | None = None
    evaluate: Split | None = None
    calibrate: CalibrationQuery | None = None
    ready: dict[Target, Share] = Field(default_factory=dict)
    subsets: bool = False
    against: str = Field(default="", max_length=200)
    safeguards: Safeguards = Safeguards()
    wire: WireConfig = WireConfig()
    notice: Notice | None = None
    counted: int | None = Field(default=None, ge=0)
    secure: SecureTask | None = None

    def subject(self) -> str:
        """Return the digest of what is asked of every site alike."""
        return self.model_copy(update={"notice": None, "counted": None, "secure": None}).digest()


class LabelCounts(FrozenModel):
    """What labels a site has, in counts of training cases.

    Attributes:
        cases: training cases.
        labelled: those with a label, per task.
        shown: of the labelled ones of each task those that have a sequence; all of them where a sequence is not named.
        outlined: of those with a segmentation those whose outlines tell a region, as some cohorts draw the whole tumour only; all of them
            where a region is not named.
    """

    cases: int = Field(default=0, ge=0)
    labelled: dict[Task, int] = {}
    shown: dict[Modality, dict[Task, int]] = {}
    outlined: dict[Region, int] = {}

    @staticmethod
    def of(
        cases: int,
        held: Mapping[Task, Sequence[Collection[Modality]]],
        told: Sequence[Collection[Region]],
        *,
        modalities: Iterable[Modality],
    ) -> "LabelCounts":
        """Count cases.

        Args:
            cases: all of them.
            held: per task the sequences of each labelled case.
            told: the regions that the outlines of each case tell; a case without outlines tells none.
            modalities: of the site.
        """
        return LabelCounts(
            cases=cases,
            labelled={task: len(own) for task, own in held.items()},
            shown={m: {task: sum(m in case for case in own) for task, own in held.items()} for m in modalities},
            outlined={region: sum(region in case for case in told) for region in REGIONS},
        )

    def telling(self, target: Target) -> int:
        """Return the cases with a label of a region or a task."""
        labelled = self.labelled.get(task_of(target), 0)
        return self.outlined.get(target, labelled) if isinstance(target, Region) else labelled

    def showing(self, modality: Modality, task: Task) -> int:
        """Return the cases with a label of a task that have a sequence."""
        return self.shown[modality].get(task, 0) if modality in self.shown else self.labelled.get(task, 0)


class SiteDescription(LabelCounts):
    """Reply to DESCRIBE: what the site holds.

    Attributes:
        modalities: sequences of which the site has at least one training case.
    """

    protocol: int = PROTOCOL_VERSION
    site: str = Field(max_length=64)
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
    """Accuracy of one model on one split of one cohort; aggregates only, nothing per patient.

    Attributes:
        visible_dice: Dice over the patients in whom the region is there to be seen: who have it and, of those in SHOWN_BY_T1CE, a T1ce. In
            `dice` one that is empty in truth and prediction counts 1, so that a network which never finds it does well where few have it.
        against: run of the evaluation that `paired` compares with; empty without.
        paired: this model minus the other on the same patients, by metric (`dice_wt`, `auc_idh`), with the interval of the difference.
    """

    split: Split
    cases: int = Field(ge=0)
    dice: dict[Region, Interval] = {}
    visible_dice: dict[Region, Interval] = {}
    auc: dict[Task, Interval] = {}
    loss: dict[Task, float] = {}
    against: str = Field(default="", max_length=200)
    paired: dict[str, Interval] = {}

    def intervals(self) -> dict[str, Interval]:
        """Return every figure that has an interval, by the name it has everywhere: `dice_wt`, `visible_dice_et`, `auc_idh`."""
        return {
            **{f"dice_{region}": interval for region, interval in self.dice.items()},
            **{f"visible_dice_{region}": interval for region, interval in self.visible_dice.items()},
            **{f"auc_{task}": interval for task, interval in self.auc.items()},
        }


class PseudoLabels(FrozenModel):
    """What a site's unlabelled cases gave to one target in one round; counts only.

    Attributes:
        offered: training cases without a label of the target.
        accepted: those of which at least a voxel (a region) or the case (a molecular task) was accepted.
        positive: accepted voxels inside the region, or accepted cases with the marker.
        negative: accepted voxels outside it within the brain, or accepted cases without it.
        share: accepted part of what was offered, in [0, 1].
        agreement: how well a single pass agrees with the pseudo-labels where they are accepted, in [0, 1].
    """

    offered: int = Field(ge=0)
    accepted: int = Field(ge=0)
    positive: int = Field(ge=0)
    negative: int = Field(ge=0)
    share: float = Field(ge=0, le=1)
    agreement: float = Field(ge=0, le=1)


class SiteReport(LabelCounts):
    """Reply to TRAIN or EVALUATE, beside the ARRAYS of a trained site; its counts are of the cases that took part.

    Attributes:
        pseudo_labels: the round's ledger of pseudo-labels per target; empty before anything is ready.
        losses: mean training loss per task over the round.
        steps: optimiser steps made.
        evaluation: accuracy of the model that came, as it came.
        personalised: accuracy of the site's own form of it, where the plan is personalised (gmmas_workflows.personalised).
        subsets: accuracy by the sequences shown (`t1+flair`), where the request asked for it: of the cases that have all of them.
        calibration: sums over patients, where the request asked for them.
        seconds: wall seconds by stage (`load`, `evaluate`, `pseudo_label`, `anchors`, `train`).
        cpu_seconds: processor seconds of the trainer's process over the request, all threads.
        peak_memory_mib: largest resident memory of the trainer so far.
        secure: advertisement of keys in place of tensors (strategies.secure.documents.Advertisement, JSON), where the request asked for it.
    """

    protocol: int = PROTOCOL_VERSION
    site: str
    run: str
    round: int = Field(ge=0)
    model_digest: str
    modalities: tuple[Modality, ...] = ()
    pseudo_labels: dict[Target, PseudoLabels] = {}
    losses: dict[Task, float] = {}
    steps: int = Field(default=0, ge=0)
    evaluation: Evaluation | None = None
    personalised: Evaluation | None = None
    subsets: dict[str, Evaluation] = Field(default_factory=dict, max_length=15)
    calibration: CalibrationStatistics | None = None
    seconds: dict[str, float] = {}
    cpu_seconds: float = Field(default=0, ge=0)
    peak_memory_mib: float = Field(default=0, ge=0)
    secure: str = Field(default="", max_length=2**13)
