"""The measured figures of a model card: accuracy on test patients, by hospital and by the sequences they hold, and calibration."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from gmmas_schema.audit import SMALLEST_COUNT
from gmmas_schema.calibration import Abstention, Calibration, HeadCalibration
from gmmas_schema.messages import Evaluation, Interval
from gmmas_schema.model_card import Accuracy, Figure, HeadCard, SplitAccuracy, SubsetAccuracy
from gmmas_schema.vocabulary import REGIONS, Modality, Region, Split, Task, split_modalities
from server.card_counts import ToldCounts

FEWEST_PATIENTS: Final = 2
"""Patients behind a figure that is told: that of one patient would be a patient's."""

_DECIMALS: Final = 4


def describe_accuracy(
    mean: Mapping[str, float],
    tested: Mapping[str, Evaluation],
    modalities: Mapping[str, tuple[Modality, ...]],
    told: ToldCounts,
    *,
    subsets: Mapping[str, Mapping[str, Evaluation]] = MappingProxyType({}),
) -> SplitAccuracy:
    """Return the test accuracy: mean, by site, worst, and by the sequences that sites hold.

    Args:
        mean: over sites, by metric.
        tested: each site's evaluation, by pseudonym.
        modalities: that each site holds.
        told: counts that may be told.
        subsets: each site's evaluation by the name of the subset it was shown; empty where only what sites hold was measured.
    """
    shown = _told_figures(tested)
    ordered = sorted(shown, key=order_of)
    worst: dict[str, float] = {}
    for name, value in ((name, own.value or 0.0) for found in shown.values() for name, own in found.items()):
        worst[name] = min(worst.get(name, 1.0), value)
    return SplitAccuracy(
        split=Split.TEST,
        mean=rounded(mean),
        sites={
            site: _figures({name: _figure(own, told.site_tested.get(site, {}).get(name)) for name, own in shown[site].items()})
            for site in ordered
            if site in told.site_cases
        },
        worst=rounded(worst),
        subsets=_by_subset(subsets) if subsets else _by_held(shown, modalities, told),
    )


def _told_figures(sites: Mapping[str, Evaluation]) -> dict[str, dict[str, Interval]]:
    """Return each site's figures by metric, without those of a single patient."""
    return {site: {name: own for name, own in intervals_of(found).items() if own.n >= FEWEST_PATIENTS} for site, found in sites.items()}


def _by_held(
    shown: Mapping[str, Mapping[str, Interval]], modalities: Mapping[str, tuple[Modality, ...]], told: ToldCounts
) -> tuple[SubsetAccuracy, ...]:
    """Return the accuracy by the sequences that sites hold."""
    groups: dict[tuple[Modality, ...], list[str]] = {}
    for site in sorted(shown, key=order_of):
        groups.setdefault(modalities.get(site, ()), []).append(site)
    return tuple(
        SubsetAccuracy(modalities=held, sites=len(sites), accuracy=_combined(sites, shown, told))
        for held, sites in sorted(groups.items(), key=lambda entry: (-len(entry[0]), entry[0]))
        if held
    )


def _by_subset(subsets: Mapping[str, Mapping[str, Evaluation]]) -> tuple[SubsetAccuracy, ...]:
    """Return the accuracy by the sequences that patients were shown; how many patients is not told again for each."""
    found = {split_modalities(name): _told_figures(sites) for name, sites in subsets.items()}
    return tuple(
        SubsetAccuracy(modalities=subset, sites=len(shown), accuracy=_combined(sorted(shown, key=order_of), shown, None))
        for subset, shown in sorted(found.items(), key=lambda entry: -len(entry[0]))
    )


def _combined(sites: Sequence[str], shown: Mapping[str, Mapping[str, Interval]], told: ToldCounts | None) -> Accuracy:
    """Return the mean over sites weighted by patients; its variance is that of independent means."""
    names = dict.fromkeys(name for site in sites for name in shown[site])
    figures = {}
    for name in names:
        found = {site: shown[site][name] for site in sites if name in shown[site]}
        counts = [None if told is None else told.site_tested.get(site, {}).get(name) for site in found]
        patients = sum(n for n in counts if n is not None) if counts and None not in counts else None
        figures[name] = _figure(mean_of(list(found.values())), patients)
    return _figures(figures)


def mean_of(intervals: Sequence[Interval]) -> Interval:
    """Return the mean of several sites' figures weighted by patients, with the normal interval of independent means."""
    if len(intervals) == 1:
        return intervals[0]
    n = sum(own.n for own in intervals)
    value = math.fsum(own.n * (own.value or 0.0) for own in intervals) / n
    if any(own.low is None or own.high is None for own in intervals):
        return Interval(value=value, n=n)
    half = math.sqrt(math.fsum((own.n / n * ((own.high or 0) - (own.low or 0)) / 2) ** 2 for own in intervals))
    return Interval(value=value, low=max(0.0, value - half), high=min(1.0, value + half), n=n)


def _figure(interval: Interval, patients: int | None) -> Figure:
    low, high = (None if bound is None else round(bound, _DECIMALS) for bound in (interval.low, interval.high))
    return Figure(value=round(interval.value or 0.0, _DECIMALS), low=low, high=high, patients=patients)


def _figures(figures: Mapping[str, Figure]) -> Accuracy:
    return Accuracy(
        dice={region: figures[f"dice_{region}"] for region in REGIONS if f"dice_{region}" in figures},
        auc={task: figures[f"auc_{task}"] for task in Task if f"auc_{task}" in figures},
    )


def describe_calibration(calibration: Calibration | None) -> dict[Region | Task, HeadCard]:
    """Return the calibration of each head; nothing for a model that was never calibrated."""
    return {} if calibration is None else {head: _head(own) for head, own in calibration.heads.items()}


def _head(own: HeadCalibration) -> HeadCard:
    test = own.test
    return HeadCard(
        temperature=round(own.temperature, _DECIMALS),
        fitted=own.fitted,
        patients=tell_count(own.patients),
        # The calibration's own notes have counts in them.
        note="" if own.fitted else "too few labelled patients to fit a temperature",
        ece_before=_round(own.reliability.before.ece),
        ece_after=_round(own.reliability.after.ece),
        nll_before=_round(own.nll_before),
        nll_after=_round(own.nll_after),
        test_ece_before=None if test is None else _round(test.before.ece),
        test_ece_after=None if test is None else _round(test.after.ece),
        abstains="" if own.abstention is None else _when_open(own.abstention),
        threshold=None if own.abstention is None else own.abstention.threshold,
    )


def _when_open(abstention: Abstention) -> str:
    if abstention.rule == "below" and abstention.threshold is not None:
        return f"left open below a confidence of {abstention.threshold:.2f}"
    return (
        "always left open: no confidence was right often enough"
        if abstention.rule == "always"
        else "never left open: too few patients to find a threshold"
    )


def tell_count(count: int) -> int | None:
    """Return a count that stands alone, or None where it is too small to be told."""
    return count if count >= SMALLEST_COUNT else None


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, _DECIMALS)


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Return values as a card has them."""
    return {name: round(value, _DECIMALS) for name, value in values.items()}


def order_of(pseudonym: str) -> tuple[int, str]:
    """Return what pseudonyms are sorted by: site-2 comes before site-10."""
    number = pseudonym.rpartition("-")[2]
    return (int(number) if number.isdigit() else 0, pseudonym)


def intervals_of(evaluation: Evaluation) -> dict[str, Interval]:
    """Return the intervals of an evaluation by the names of ModelScore.metrics, those with a value alone."""
    every = {f"dice_{region}": own for region, own in evaluation.dice.items()} | {
        f"auc_{task}": own for task, own in evaluation.auc.items()
    }
    return {name: own for name, own in every.items() if own.value is not None}
