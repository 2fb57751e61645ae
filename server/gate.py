"""The gate of a promotion: a model takes an alias from another only if no site loses by it.

    at every site, for every metric:  candidate - champion >= -margin      (paired on the site's patients)
    over all sites, for every head:   calibration not worse than by its margin
    every metric and head that the champion has, the candidate has

The decision is made on the differences themselves; their intervals are reported beside them, since with a site's few test patients an
interval that excludes the margin would hold up every promotion. Where one reaches beyond the margin, the finding says so.
"""

import math
from collections.abc import Iterator, Mapping

from gmmas_schema.calibration import Head
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.promotion import GateFinding, GateRules, Verdict
from gmmas_schema.validation import HeadError, MatrixRow
from gmmas_schema.vocabulary import Region
from gmmas_workflows.run_metrics import evaluation_metrics

_SLACK = 1e-12


def judge(champion: MatrixRow, candidate: MatrixRow, rules: GateRules, *, reference: MatrixRow) -> list[GateFinding]:
    """Return what the gate finds, failures and all.

    Args:
        champion: the present holder of the alias at every site.
        candidate: the model that is to take it.
        rules: margins.
        reference: first row of the matrix, with which its `paired` differences compare.
    """
    return [
        *_judge_tasks(champion, candidate),
        *_judge_sites(champion, candidate, rules, reference),
        *_judge_heads(champion, candidate, rules),
    ]


def _judge_tasks(champion: MatrixRow, candidate: MatrixRow) -> Iterator[GateFinding]:
    """Yield whether the candidate has a head for all that the champion has one for."""
    lost = [t for t in champion.model.definition.network.tasks if t not in candidate.model.definition.network.tasks]
    note = f"no head for {', '.join(lost)}" if lost else ""
    yield GateFinding(subject="tasks", verdict=Verdict.FAILS if lost else Verdict.HOLDS, note=note)


def _judge_sites(champion: MatrixRow, candidate: MatrixRow, rules: GateRules, reference: MatrixRow) -> Iterator[GateFinding]:
    for site, before in champion.sites.items():
        after = candidate.sites.get(site)
        if after is None:
            code = candidate.refused.get(site)
            yield GateFinding(
                subject="figures",
                site=site,
                verdict=Verdict.FAILS,
                note=f"the candidate was not measured here{f' ({code})' if code else ''}",
            )
            continue
        values = evaluation_metrics(after)
        paired = after.paired if champion is reference else {}
        if candidate is reference:
            paired = {metric: _turned(own) for metric, own in before.paired.items()}
        for metric, value in evaluation_metrics(before).items():
            if not metric.startswith(("dice_", "auc_")):
                continue
            margin = rules.dice if metric.startswith("dice_") else rules.auc
            if metric not in values:
                yield GateFinding(subject=metric, site=site, verdict=Verdict.FAILS, champion=value, note="no longer measured here")
                continue
            difference = _difference(metric, before, after, paired)
            found = _compare(metric, site, value, values[metric], difference, paired=metric in paired, margin=margin)
            yield _unless_too_few(found, min(_interval(metric, own).n for own in (before, after)), rules)


def _compare(metric: str, site: str, before: float, after: float, difference: Interval, *, paired: bool, margin: float) -> GateFinding:
    """Return the finding of one metric at one site, where more is better."""
    value = after - before
    holds = value >= -margin - _SLACK
    unsure = holds and difference.low is not None and difference.low < -margin
    return GateFinding(
        subject=metric,
        site=site,
        verdict=Verdict.HOLDS if holds else Verdict.FAILS,
        champion=before,
        candidate=after,
        difference=value,
        low=difference.low,
        high=difference.high,
        paired=paired,
        margin=margin,
        note="the interval reaches beyond the margin" if unsure else "",
    )


def _unless_too_few(found: GateFinding, patients: int, rules: GateRules) -> GateFinding:
    """Return a finding, which decides nothing where it is an AUC of so few patients that chance alone moves it beyond any margin."""
    if not found.subject.startswith("auc_") or patients >= rules.auc_patients:
        return found
    return found.model_copy(update={"verdict": Verdict.NOT_JUDGED, "note": f"of {patients} patients, fewer than {rules.auc_patients}"})


def _difference(metric: str, before: Evaluation, after: Evaluation, paired: Mapping[str, Interval]) -> Interval:
    """Return the interval of a difference: the site's own on the same patients, or else that of unrelated means, which is wider."""
    if metric in paired:
        return paired[metric]
    first, second = _interval(metric, before), _interval(metric, after)
    bounds = (first.low, first.high, second.low, second.high)
    if first.value is None or second.value is None or any(bound is None for bound in bounds):
        return Interval()
    half = math.hypot(*((own.high or 0.0) - (own.low or 0.0) for own in (first, second))) / 2
    value = second.value - first.value
    return Interval(value=value, low=value - half, high=value + half, n=min(first.n, second.n))


def _turned(interval: Interval) -> Interval:
    """Return a difference seen from the other side."""
    low, high = (None if bound is None else -bound for bound in (interval.high, interval.low))
    return Interval(value=None if interval.value is None else -interval.value, low=low, high=high, n=interval.n)


def _interval(metric: str, evaluation: Evaluation) -> Interval:
    kind, _, name = metric.partition("_")
    figures = evaluation.dice if kind == "dice" else evaluation.auc
    return next((own for key, own in figures.items() if str(key) == name), Interval())


def _judge_heads(champion: MatrixRow, candidate: MatrixRow, rules: GateRules) -> Iterator[GateFinding]:
    """Yield the calibration of every head that the champion has figures for, where less is better."""
    for head, before in champion.calibration.items():
        after = candidate.calibration.get(head)
        if after is None:
            yield GateFinding(subject=f"calibration {head}", verdict=Verdict.FAILS, note="the candidate has no such figures")
        else:
            yield _judge_head(head, before, after, rules)


def _judge_head(head: Head, before: HeadError, after: HeadError, rules: GateRules) -> GateFinding:
    region = isinstance(head, Region)
    name, margin = ("ece", rules.ece) if region else ("nll", rules.nll)
    old, new = (own.ece if region else own.nll for own in (before, after))
    patients = min(own.reliability_patients if region else own.patients for own in (before, after))
    subject = f"calibration {head}"
    if old is None or new is None or patients < rules.patients - 1e-6:
        note = f"{name} of too few patients (fewer than {rules.patients})"
        return GateFinding(subject=subject, verdict=Verdict.NOT_JUDGED, champion=old, candidate=new, margin=margin, note=note)
    holds = new - old <= margin + _SLACK
    return GateFinding(
        subject=subject,
        verdict=Verdict.HOLDS if holds else Verdict.FAILS,
        champion=old,
        candidate=new,
        difference=new - old,
        margin=margin,
        note=name,
    )
