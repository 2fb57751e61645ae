"""Names and values of a run's metrics, the same for federated runs and for training without a federation.

<split>/<metric>               mean over sites or cohorts: dice_wt, auc_idh, loss_segmentation, score
site/<site>/<split>/<metric>   one site's own
personalised/<metric>          the same of the sites' own forms of the model, in the personalised mode
train/loss_<task>              mean training loss
site/<site>/train_loss_<task>  one site's own, beside its cases, seconds and memory
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from gmmas_schema.calibration import Calibration, ReliabilityPair
from gmmas_schema.messages import Evaluation, PseudoLabels, Target
from gmmas_schema.vocabulary import Task
from gmmas_workflows.scores import ModelScore


def evaluation_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Return one site's figures by the names that ModelScore.metrics uses; those without a value are left out."""
    found = {name: interval.value for name, interval in evaluation.intervals().items()}
    found |= {f"loss_{task}": value for task, value in evaluation.loss.items()}
    return {name: value for name, value in found.items() if value is not None}


def calibration_metrics(calibration: Calibration) -> dict[str, float]:
    """Return the figures of a calibration as `calibration/<figure>_<head>`; those without patients are left out."""
    found: dict[str, float | None] = {}
    for head, own in calibration.heads.items():
        test = own.test or ReliabilityPair()
        found |= {f"temperature_{head}": own.temperature, f"patients_{head}": own.patients}
        found |= {f"nll_before_{head}": own.nll_before, f"nll_after_{head}": own.nll_after}
        found |= {f"ece_before_{head}": own.reliability.before.ece, f"ece_after_{head}": own.reliability.after.ece}
        found |= {f"test_ece_before_{head}": test.before.ece, f"test_ece_after_{head}": test.after.ece}
    return {f"calibration/{name}": value for name, value in found.items() if value is not None}


def score_metrics(score: ModelScore, *, prefix: str = "") -> dict[str, float]:
    """Return one model's metrics on one split: means as `<split>/<metric>`, each site's own as `site/<site>/<split>/<metric>`.

    Args:
        score: of the model.
        prefix: stands in the place of the split.
    """
    place = prefix or str(score.split)
    metrics = {f"{place}/{name}": value for name, value in score.metrics.items()}
    if score.score is not None:
        metrics[f"{place}/score"] = score.score
    for site, evaluation in score.sites.items():
        metrics |= {f"site/{site}/{place}/{name}": value for name, value in evaluation_metrics(evaluation).items()}
    return metrics


class Trained(Protocol):
    """What somebody who trained a round reports, at the site and in the coordinator's record alike."""

    @property
    def cases(self) -> int:
        """Training cases that took part."""

    @property
    def losses(self) -> Mapping[Task, float]:
        """Mean training loss per task."""

    @property
    def pseudo_labels(self) -> Mapping[Target, PseudoLabels]:
        """What unlabelled cases gave, per target."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Wall seconds by stage."""

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds."""

    @property
    def peak_memory_mib(self) -> float:
        """Largest resident memory so far."""


def trained_metrics(trained: Trained) -> dict[str, float]:
    """Return one site's part in a round: cases, memory, seconds by stage, training losses, pseudo-labels."""
    metrics: dict[str, float] = {
        "cases": trained.cases,
        "cpu_seconds": trained.cpu_seconds,
        "peak_memory_mib": trained.peak_memory_mib,
    }
    metrics |= {f"seconds_{stage}": value for stage, value in trained.seconds.items()}
    metrics |= {f"train_loss_{task}": value for task, value in trained.losses.items()}
    for target, ledger in trained.pseudo_labels.items():
        metrics |= {f"pseudo_{target}_{name}": value for name, value in ledger.model_dump().items()}
    return metrics


def mean_losses(trained: Iterable[tuple[Mapping[Task, float], Mapping[Task, int]]]) -> dict[str, float]:
    """Return `train/loss_<task>`, the mean of the losses weighted by labelled cases, from (losses, labelled) of each who trained."""
    sums: dict[Task, tuple[float, int]] = {}
    for losses, labelled in trained:
        for task, loss in losses.items():
            total, count = sums.get(task, (0.0, 0))
            sums[task] = total + loss * labelled.get(task, 0), count + labelled.get(task, 0)
    return {f"train/loss_{task}": total / count for task, (total, count) in sums.items() if count}
