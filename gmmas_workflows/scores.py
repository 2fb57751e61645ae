"""One model's accuracy over the sites (or cohorts) of a split, and which model is best.

    metric = sum_k n_k metric_k / sum_k n_k      n_k: patients the metric rests on at site k (of a loss: cases of the split)
    score  = mean over the regions r that a site could measure of d_r; of the available AUCs where no site has segmentations
    d_r    = (dice_r + visible_dice_r) / 2, or dice_r where visible_dice_r is not told

The Dice of a region over all patients counts 1 where it is empty in truth and prediction. By it alone a network blind to enhancing tumour
has .5 where half of the patients have none, and is chosen before one that finds it and draws a few voxels where there is none; the visible
Dice alone (Evaluation), which nobody without the region enters, would leave those voxels free (docs/decisions/0016). Half of each makes
blindness cost, and false alarms too.

Weighting by patients makes the Dice equal to the mean over all patients of all sites, where each has one scan; for an AUC it is the usual
within-site average, since cases of different sites are never compared. Training without a federation is scored in the same way, by cohort.
"""

import math
from collections.abc import Iterable, Mapping

from pydantic import Field

from gmmas_schema.base import FrozenModel
from gmmas_schema.messages import Evaluation
from gmmas_schema.vocabulary import REGIONS, Split


class ModelScore(FrozenModel):
    """Accuracy of one model over the sites of a split.

    Attributes:
        model_round: the round that made the model; 0 is the seeded start.
        metrics: mean over the sites weighted by the patients each metric rests on: `dice_wt`, `dice_tc`, `dice_et`, `auc_idh`,
            `auc_codeletion`, `loss_<task>`, and `visible_dice_<region>` (Evaluation); a metric that no site could compute is left out.
        score: by which the best model is chosen, as score_of made it when the model was measured; None where there is neither Dice
            nor AUC.
        sites: each site's own evaluation.
    """

    model_round: int = Field(ge=0)
    split: Split
    metrics: dict[str, float] = Field(default_factory=dict)
    score: float | None = None
    sites: dict[str, Evaluation] = Field(default_factory=dict)


def score_model(sites: Mapping[str, Evaluation], *, model_round: int, split: Split) -> ModelScore:
    """Return the mean over the sites of every metric that at least one could compute; the result does not depend on their order."""
    ordered = {site: sites[site] for site in sorted(sites)}
    weighted: dict[str, list[tuple[float, int]]] = {}
    for evaluation in ordered.values():
        for name, interval in evaluation.intervals().items():
            if interval.value is not None and interval.n > 0:
                weighted.setdefault(name, []).append((interval.value, interval.n))
        for task, loss in evaluation.loss.items():
            if evaluation.cases > 0:
                weighted.setdefault(f"loss_{task}", []).append((loss, evaluation.cases))
    metrics = {name: math.fsum(value * n for value, n in pairs) / sum(n for _, n in pairs) for name, pairs in sorted(weighted.items())}
    return ModelScore(model_round=model_round, split=split, metrics=metrics, score=score_of(metrics), sites=ordered)


def score_subsets(sites: Mapping[str, Mapping[str, Evaluation]], *, model_round: int, split: Split) -> dict[str, ModelScore]:
    """Return the means over the sites for every subset of the sequences that one of them measured, the largest subset first.

    Args:
        sites: by site, and then by the name of the subset.
        model_round: that made the model.
        split: of the cases.
    """
    names = dict.fromkeys(name for own in sites.values() for name in own)
    ordered = sorted(names, key=lambda name: -name.count("+"))
    by_name = {name: {site: own[name] for site, own in sites.items() if name in own} for name in ordered}
    return {name: score_model(own, model_round=model_round, split=split) for name, own in by_name.items()}


def score_of(metrics: Mapping[str, float]) -> float | None:
    """Return the score that means over the sites make, as in the module docstring; None where there is neither a Dice nor an AUC.

    Args:
        metrics: by the names of ModelScore.metrics.
    """
    dice = [(metrics[f"dice_{r}"], metrics.get(f"visible_dice_{r}", metrics[f"dice_{r}"])) for r in REGIONS if f"dice_{r}" in metrics]
    values = [(over_all + visible) / 2 for over_all, visible in dice] or [v for name, v in metrics.items() if name.startswith("auc_")]
    return math.fsum(values) / len(values) if values else None


def choose_best(scores: Iterable[ModelScore], *, fallback: int) -> int:
    """Return the round of the model with the highest score; of equals the earliest, and `fallback` where none has a score."""
    known = [score for score in scores if score.score is not None]
    return max(known, key=lambda score: (score.score or 0.0, -score.model_round)).model_round if known else fallback


def has_stalled(scores: Iterable[ModelScore], *, patience: int, min_delta: float) -> bool:
    """Return whether the score has not risen by more than `min_delta` in the last `patience` scores, oldest first.

    Scores are compared with the last one that counted as a rise, so that many small rises add up. Models without a score do not count.
    """
    best, since = -math.inf, 0
    for score in scores:
        if score.score is None:
            continue
        best, since = (score.score, 0) if score.score > best + min_delta else (best, since + 1)
    return since >= patience
