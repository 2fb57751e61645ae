"""A site's part of calibration: sums over its patients, from the predictions of an evaluation.

Every patient weighs 1 in every sum, whatever the number of scans or voxels, so a large tumour does not outvote a small one. See
gmmas_model.calibration for what is summed and gmmas_model.temperature_fit for what is made of it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from gmmas_data.samples import Sample
from gmmas_model.calibration import (
    calibrate_prediction,
    likelihood_curve,
    marker_logits,
    region_curves,
    reliability_sums,
    voxels_at_stake,
)
from gmmas_model.prediction import Prediction
from gmmas_schema.calibration import CalibrationQuery, CalibrationStatistics, HeadStatistics, Reliability, ReliabilityPair
from gmmas_schema.vocabulary import MUTANT_ONLY, REGIONS, Region, Split, Task

Array = NDArray[np.float64]


@dataclass
class _HeadRows:
    """What the cases add to one head, with whose they are."""

    curves: list[tuple[str, Array]] = field(default_factory=list)
    reliability: list[tuple[str, Array]] = field(default_factory=list)


class StatisticsCollector:
    """Takes predictions one after the other and answers a query.

    Args:
        query: what is wanted.
        spacing_mm: of the network's grid.
    """

    def __init__(self, query: CalibrationQuery, *, spacing_mm: float) -> None:
        self._query, self._spacing_mm = query, spacing_mm
        self._patients: set[str] = set()
        self._rows: dict[Region | Task, _HeadRows] = {}

    def add(self, sample: Sample, prediction: Prediction) -> None:
        """Count one case.

        Args:
            sample: the labels, on the network's grid.
            prediction: uncalibrated, a batch of this one sample.
        """
        self._patients.add(sample.patient_id)
        if sample.regions_RXYZ is not None:
            self._add_regions(sample, sample.regions_RXYZ, prediction)
        self._add_markers(sample, prediction)

    def statistics(self, *, split: Split, fewest: int = 1) -> CalibrationStatistics:
        """Return the sums.

        Args:
            split: where the cases come from.
            fewest: patients below which a head is left out: the curve of one patient tells the label.
        """
        heads = {head: self._sum(self._rows[head]) for head in (*REGIONS, *Task) if head in self._rows and self._told(head, fewest)}
        return CalibrationStatistics(split=split, patients=len(self._patients), heads=heads)

    def _told(self, head: Region | Task, fewest: int) -> bool:
        """Return whether every kind of sum that a head has rests on enough patients."""
        rows = self._rows[head]
        return all(len({patient for patient, _ in kind}) >= fewest for kind in (rows.curves, rows.reliability) if kind)

    def _add_regions(self, sample: Sample, regions_RXYZ: NDArray[np.uint8], prediction: Prediction) -> None:
        before_RXYZ = prediction.region_probability()[0]
        device = before_RXYZ.device
        truth_RXYZ = torch.from_numpy(np.asarray(regions_RXYZ)).to(device).bool()
        told = [sample.weight_RXYZ is None or bool(sample.weight_RXYZ[place].any()) for place in range(len(REGIONS))]
        brain_XYZ = torch.from_numpy((sample.image_MXYZ[sample.present_M] != 0).any(0)).to(device)
        stake_XYZ = voxels_at_stake(before_RXYZ[0], brain_XYZ, spacing_mm=self._spacing_mm)
        if not bool(stake_XYZ.any()):
            return
        if self._query.grid:
            curves = region_curves(prediction.region_logits_BRXYZ[0], truth_RXYZ, stake_XYZ, self._query.grid)
            for region, curve_T, known in zip(REGIONS, curves, told, strict=True):
                if curve_T is not None and known:
                    self._of(region).curves.append((sample.patient_id, curve_T))
        if self._query.temperatures is not None:
            after_RXYZ = calibrate_prediction(prediction, self._query.temperatures).region_probability()[0]
            for place, region in ((place, region) for place, region in enumerate(REGIONS) if told[place]):
                truth_N = truth_RXYZ[place][stake_XYZ]
                pair = [reliability_sums(p_RXYZ[place][stake_XYZ], truth_N) for p_RXYZ in (before_RXYZ, after_RXYZ)]
                self._of(region).reliability.append((sample.patient_id, np.stack(pair)))

    def _add_markers(self, sample: Sample, prediction: Prediction) -> None:
        logits = marker_logits(prediction)
        known = {task: torch.tensor([sample.marker(task) == 1]) for task in logits if not math.isnan(sample.marker(task))}
        if self._query.grid:
            for task, truth_B in known.items():
                # The logit is that of a mutant tumour; where IDH is unknown, the label is no answer to it.
                if task not in MUTANT_ONLY or sample.idh == 1:
                    self._of(task).curves.append((sample.patient_id, likelihood_curve(logits[task].cpu(), truth_B, self._query.grid)))
        if self._query.temperatures is not None:
            before, after = (p.marker_probabilities() for p in (prediction, calibrate_prediction(prediction, self._query.temperatures)))
            for task, truth_B in known.items():
                pair = [reliability_sums(p[task].cpu(), truth_B) for p in (before, after)]
                self._of(task).reliability.append((sample.patient_id, np.stack(pair)))

    def _of(self, head: Region | Task) -> _HeadRows:
        return self._rows.setdefault(head, _HeadRows())

    def _sum(self, rows: _HeadRows) -> HeadStatistics:
        """Return the sums of one head."""
        patients, nll_T = _sum_by_patient(rows.curves, shape=(len(self._query.grid),))
        _, sums_PSK = _sum_by_patient(rows.reliability, shape=())
        pair = None
        if rows.reliability:
            before, after = (Reliability(patients=tuple(n), confidence=tuple(c), correct=tuple(r)) for n, c, r in sums_PSK.tolist())
            pair = ReliabilityPair(before=before, after=after)
        return HeadStatistics(patients=patients, nll=tuple(nll_T.tolist()), reliability=pair)


def reliability_of(statistics: CalibrationStatistics) -> dict[Region | Task, ReliabilityPair]:
    """Return the reliability of the heads that have one."""
    return {head: found.reliability for head, found in statistics.heads.items() if found.reliability is not None}


def _sum_by_patient(rows: Sequence[tuple[str, Array]], *, shape: tuple[int, ...]) -> tuple[int, Array]:
    """Return the number of patients, and the sum over them of the mean over each one's cases; zeros of `shape` for none."""
    cases = Counter(patient for patient, _ in rows)
    if not rows:
        return 0, np.zeros(shape)
    total: Array = np.sum([values / cases[patient] for patient, values in rows], axis=0)
    return len(cases), total
