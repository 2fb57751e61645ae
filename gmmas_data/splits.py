"""Splitting a cohort by patient.

Patients are ordered by SHA-256 of (seed, patient identifier); the first of that order are the test patients, the next the validation
patients, then the calibration patients, the rest are trained on. Shares are exact up to rounding, the assignment depends on nothing but
the set of patients and the seed, and all time points of a patient stay together. A patient who joins or leaves the cohort may push others
over a border, so a cohort is complete before a run starts.
"""

import hashlib
import itertools
import math
from collections.abc import Iterable

from gmmas_data.cases import Case
from gmmas_schema.site import SplitConfig
from gmmas_schema.vocabulary import Split


def split_patients(cases: Iterable[Case], config: SplitConfig) -> dict[Split, tuple[Case, ...]]:
    """Return the cases of every split, each in the order given.

    At least one patient is left to train on. All splits are there, some perhaps empty.
    """
    cases = tuple(cases)
    order = sorted({case.patient_id for case in cases}, key=lambda patient: (_rank(patient, config.seed), patient))
    spare = max(len(order) - 1, 0)
    shares = {Split.TEST: config.test, Split.VALIDATION: config.validation, Split.CALIBRATION: config.calibration}
    # Borders from cumulated shares, so that a later split never moves the members of an earlier one.
    borders = [min(_round(share * len(order)), spare) for share in itertools.accumulate(shares.values())]
    ends = dict(zip(shares, borders, strict=True))
    split_of = {patient: next((split for split, end in ends.items() if place < end), Split.TRAIN) for place, patient in enumerate(order)}
    return {split: tuple(case for case in cases if split_of[case.patient_id] is split) for split in Split}


def _rank(patient: str, seed: int) -> str:
    """Return the place of a patient in the order of one seed."""
    return hashlib.sha256(f"split:{seed}:{patient}".encode()).hexdigest()


def _round(value: float) -> int:
    """Round half up; the tiny excess undoes binary fractions such as 0.35 * 10."""
    return math.floor(value + 0.5 + 1e-9)
