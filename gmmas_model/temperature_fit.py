"""From merged statistics to a calibration: temperatures, expected calibration errors, and where markers are left open.

The sites' sums are added. A head's temperature is where the added negative log-likelihood is smallest: the lowest point of the grid and
its neighbours, in ln T, through a parabola. That is the fit to all patients in one place, for addition is all that merging does.

A marker is one observation a patient. Few of them are often all on the right side, and the likelihood then rises without end as T goes
to 0. So (ln T)^2 is added to a marker's curve, which holds T within about a factor of 2 of 1 until the patients say otherwise
(benchmarks/calibration_patients.py). Thousands of voxels need none.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from gmmas_schema.calibration import (
    TEMPERATURES,
    Abstention,
    Calibration,
    CalibrationPlan,
    CalibrationQuery,
    CalibrationStatistics,
    HeadCalibration,
    HeadStatistics,
    Reliability,
    ReliabilityPair,
    bin_edges,
)
from gmmas_schema.vocabulary import REGIONS, Region, Split, Task

PRIOR: Final = 1.0
"""Weight of (ln T)^2 in nats: a normal prior on ln T with a standard deviation of 0.7."""

_DESCENDING_SHARE: Final = 1e-9


Ask = Callable[[Split, CalibrationQuery], Sequence[CalibrationStatistics]]
"""Answers a query about one model on a split: one set of sums a site, or one in all for cases in one place."""


def calibrate_weights(ask: Ask, *, weights_sha256: str, plan: CalibrationPlan) -> Calibration:
    """Return the calibration of a model.

    Args:
        ask: asked for the likelihood over the grid of temperatures, and then, if anybody had a labelled patient, for the reliability at
            the fitted temperatures; both on the calibration split.
        weights_sha256: of the model.
        plan: fewest patients and target.
    """
    found, patients = merge_statistics(ask(Split.CALIBRATION, CalibrationQuery(grid=TEMPERATURES)))
    heads = fit_heads(found, plan, grid=TEMPERATURES)
    if sum(patients.values()):
        query = CalibrationQuery(temperatures={head: fitted.temperature for head, fitted in heads.items()})
        heads = with_reliability(heads, merge_statistics(ask(Split.CALIBRATION, query))[0], plan)
    return Calibration(weights_sha256=weights_sha256, plan=plan, patients=patients, heads=heads)


def merge_statistics(sites: Iterable[CalibrationStatistics]) -> tuple[dict[Region | Task, HeadStatistics], dict[Split, int]]:
    """Return the sums per head over the sites, and the patients per split; neither depends on the order of the sites."""
    given = list(sites)
    patients: dict[Split, int] = {}
    for site in given:
        patients[site.split] = patients.get(site.split, 0) + site.patients
    heads = [head for head in (*REGIONS, *Task) if any(head in site.heads for site in given)]
    return {head: _add([site.heads[head] for site in given if head in site.heads]) for head in heads}, patients


def fit_temperature(nll: Sequence[float], grid: Sequence[float], *, prior: float = 0.0) -> float:
    """Return the temperature of the smallest negative log-likelihood; an end of the grid where it still falls there.

    Args:
        nll: at each temperature of the grid, in nats.
        grid: ascending and evenly spaced in ln T.
        prior: weight of (ln T)^2, in nats.
    """
    log_T = np.log(np.asarray(grid))
    curve = np.asarray(nll) + prior * log_T**2
    lowest = int(curve.argmin())
    if lowest in (0, len(curve) - 1):
        return float(grid[lowest])
    left, middle, right = curve[lowest - 1 : lowest + 2]
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > _DESCENDING_SHARE * abs(middle) else 0.0
    return float(np.exp(log_T[lowest] + shift * (log_T[1] - log_T[0])))


def fit_heads(
    statistics: Mapping[Region | Task, HeadStatistics], plan: CalibrationPlan, *, grid: Sequence[float]
) -> dict[Region | Task, HeadCalibration]:
    """Return the temperature of every head, or why it keeps temperature 1.

    Args:
        statistics: merged, with curves over the grid.
        plan: fewest patients.
        grid: temperatures of the curves.
    """
    return {head: _fit_head(head, found, plan, grid) for head, found in statistics.items()}


def with_reliability(
    fitted: Mapping[Region | Task, HeadCalibration], measured: Mapping[Region | Task, HeadStatistics], plan: CalibrationPlan
) -> dict[Region | Task, HeadCalibration]:
    """Return the heads with their reliability on the patients of the fit, and with the markers' thresholds, which come from it."""
    heads = {}
    for head in [head for head in (*REGIONS, *Task) if head in fitted or head in measured]:
        own, found = fitted.get(head, HeadCalibration(note="no labelled patient")), measured.get(head, HeadStatistics())
        pair = found.reliability or ReliabilityPair()
        abstention = None if isinstance(head, Region) else choose_threshold(pair.after, plan)
        heads[head] = own.model_copy(update={"reliability": pair, "abstention": abstention})
    return heads


def with_test(calibration: Calibration, measured: Mapping[Region | Task, HeadStatistics]) -> Calibration:
    """Return the calibration with each head's reliability on test patients."""
    heads = {
        head: own.model_copy(update={"test": measured[head].reliability}) if head in measured else own
        for head, own in calibration.heads.items()
    }
    return calibration.model_copy(update={"heads": heads})


def choose_threshold(reliability: Reliability, plan: CalibrationPlan) -> Abstention:
    """Return the lowest confidence at and above which enough answers were right, counting bins of confidence.

    The answers at and above it must come from enough patients that one wrong answer among them keeps the target: 10 for 0.9.
    """
    needed = math.ceil(round(1 / (1 - plan.target_accuracy), 6))
    total, target = reliability.total, f"{plan.target_accuracy:.0%}"
    if round(total, 6) < max(needed, plan.minimum_patients):
        return Abstention(rule="never", patients=total, note=f"no threshold: {total:.0f} labelled patients are too few to find one")
    for place, edge in enumerate(bin_edges()[:-1]):
        kept, right = math.fsum(reliability.patients[place:]), math.fsum(reliability.correct[place:])
        if round(kept, 6) < needed:
            break
        if right >= plan.target_accuracy * kept - 1e-9:
            accuracy = min(right / kept, 1.0)
            note = f"at a confidence of {edge:.2f} and above {accuracy:.0%} of {kept:.0f} patients were right"
            return Abstention(rule="below", threshold=edge, accuracy=accuracy, patients=kept, note=note)
    return Abstention(rule="always", patients=total, note=f"no confidence reached {target} right answers among {total:.0f} patients")


def reasons_to_abstain(calibration: Calibration | None, probability: Mapping[Task, float]) -> dict[Task, str]:
    """Return why the answer to a marker is left open, for each marker where it is.

    Args:
        calibration: of the model; None leaves nothing open, for nothing is known.
        probability: calibrated, per marker.
    """
    reasons = {}
    for task, p in probability.items():
        abstention = calibration.heads[task].abstention if calibration is not None and task in calibration.heads else None
        if abstention is None or abstention.rule == "never":
            continue
        confidence = max(p, 1 - p)
        if abstention.rule == "always":
            reasons[task] = abstention.note
        elif abstention.threshold is not None and confidence < abstention.threshold:
            reasons[task] = f"confidence {confidence:.2f} is below {abstention.threshold:.2f}; {abstention.note}"
    return reasons


def _add(parts: Sequence[HeadStatistics]) -> HeadStatistics:
    """Return the sum over sites that were asked the same."""
    pairs = [part.reliability for part in parts if part.reliability is not None]
    return HeadStatistics(
        patients=sum(part.patients for part in parts),
        nll=tuple(math.fsum(values) for values in zip(*(part.nll for part in parts), strict=True)),
        reliability=ReliabilityPair.merge(pairs) if pairs else None,
    )


def _fit_head(head: Region | Task, found: HeadStatistics, plan: CalibrationPlan, grid: Sequence[float]) -> HeadCalibration:
    if found.patients < plan.minimum_patients:
        note = f"not fitted: {found.patients} labelled patients, fewer than {plan.minimum_patients}"
        return HeadCalibration(patients=found.patients, note=note)
    temperature = fit_temperature(found.nll, grid, prior=0.0 if isinstance(head, Region) else PRIOR)
    note = "at the end of the range of temperatures" if temperature in (grid[0], grid[-1]) else ""
    before, after = (_value_at(found.nll, grid, at) / found.patients for at in (1.0, temperature))
    return HeadCalibration(temperature=temperature, fitted=True, note=note, patients=found.patients, nll_before=before, nll_after=after)


def _value_at(nll: Sequence[float], grid: Sequence[float], temperature: float) -> float:
    """Return the curve's value between the points of the grid, by the parabola through the three nearest."""
    log_T = np.log(np.asarray(grid)) - math.log(temperature)
    nearest = np.argsort(np.abs(log_T), kind="stable")[:3]
    return max(float(np.polyfit(log_T[nearest], np.asarray(nll)[nearest], 2)[2]), 0.0)
