"""One model's accuracy over the sites, and which model is best.

    metric = sum_k n_k metric_k / sum_k n_k      n_k: patients the metric rests on at site k
    score  = mean of the available Dice WT, TC, ET; of the available AUCs where no site has segmentations

Weighting by patients makes the Dice equal to the mean over all patients of all sites; for an AUC it is the usual within-site average,
since cases of different sites are never compared.
"""

import math
from collections.abc import Iterable, Mapping
from typing import TypeVar

from gmmas_schema.messages import Evaluation
from gmmas_schema.vocabulary import Split
from server.records import ModelScore

NameT = TypeVar("NameT", bound=str)
ValueT = TypeVar("ValueT")


def score_model(sites: Mapping[str, Evaluation], *, model_round: int, split: Split) -> ModelScore:
    """Return the mean over the sites of every metric that at least one could compute; the result does not depend on their order."""
    ordered = {site: sites[site] for site in sorted(sites)}
    weighted: dict[str, list[tuple[float, int]]] = {}
    for evaluation in ordered.values():
        for name, interval in (*_prefixed("dice", evaluation.dice), *_prefixed("auc", evaluation.auc)):
            if interval.value is not None and interval.n > 0:
                weighted.setdefault(name, []).append((interval.value, interval.n))
        for name, loss in _prefixed("loss", evaluation.loss):
            if evaluation.cases > 0:
                weighted.setdefault(name, []).append((loss, evaluation.cases))
    metrics = {name: math.fsum(value * n for value, n in pairs) / sum(n for _, n in pairs) for name, pairs in sorted(weighted.items())}
    return ModelScore(model_round=model_round, split=split, metrics=metrics, score=_summarise(metrics), sites=ordered)


def choose_best(scores: Iterable[ModelScore], *, fallback: int) -> int:
    """Return the round of the model with the highest score; of equals the earliest, and `fallback` where none has a score."""
    known = [score for score in scores if score.score is not None]
    return max(known, key=lambda score: (score.score or 0.0, -score.model_round)).model_round if known else fallback


def _summarise(metrics: Mapping[str, float]) -> float | None:
    for kind in ("dice_", "auc_"):
        values = [value for name, value in metrics.items() if name.startswith(kind)]
        if values:
            return math.fsum(values) / len(values)
    return None


def _prefixed(prefix: str, values: Mapping[NameT, ValueT]) -> list[tuple[str, ValueT]]:
    return [(f"{prefix}_{name}", value) for name, value in values.items()]
