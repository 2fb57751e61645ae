"""Cohorts on disk made ready for training in one place: read, checked, preprocessed, split by patient.

A preprocessed case has passed the quality gate, so one pass over the files does for both, and a case in the cache is not read again.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, combinations, pairwise
from pathlib import Path

from gmmas_data.cache import SampleCache, content_key
from gmmas_data.cases import Case
from gmmas_data.layouts import read_cases
from gmmas_data.parallel import map_in_processes
from gmmas_data.samples import Sample
from gmmas_data.splits import split_patients
from gmmas_schema.errors import DataError
from gmmas_schema.standalone import CohortConfig
from gmmas_schema.vocabulary import Modality, Split

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Cohort:
    """One cohort, ready for training.

    Attributes:
        name: as in its configuration.
        modalities: sequences it offers.
        samples: preprocessed cases per split, every split there, some perhaps empty.
        left_out: identifiers of the cases that do not pass the quality gate.
    """

    name: str
    modalities: tuple[Modality, ...]
    samples: Mapping[Split, tuple[Sample, ...]]
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class StoredCohort:
    """One cohort whose cases lie preprocessed in a cache, to be loaded when they are needed.

    Attributes:
        name: as in its configuration.
        modalities: sequences it offers.
        entries: cases per split, each with its entry in the cache; every split is there, some perhaps empty.
        left_out: identifiers of the cases that do not pass the quality gate.
    """

    name: str
    modalities: tuple[Modality, ...]
    entries: Mapping[Split, tuple[tuple[Case, Path], ...]]
    left_out: tuple[str, ...] = ()

    @property
    def cases(self) -> dict[Split, tuple[Case, ...]]:
        """The cases per split."""
        return {split: tuple(case for case, _ in own) for split, own in self.entries.items()}

    def load(self, cache: SampleCache) -> dict[Split, tuple[Sample, ...]]:
        """Return the preprocessed cases per split.

        Raises:
            DataError: an entry has gone, and the case's files cannot be read.
        """
        return {split: tuple(cache.load(path, case) for case, path in own) for split, own in self.entries.items()}


def prepare_cohorts(
    configs: Sequence[CohortConfig], cache: SampleCache, *, processes: int = 1, on_progress: Progress | None = None
) -> tuple[Cohort, ...]:
    """Return the cohorts in their order, split as their hospitals would split them, with all cases in memory.

    Args and Raises: as store_cohorts.
    """
    stored = store_cohorts(configs, cache, processes=processes, on_progress=on_progress)
    return tuple(Cohort(each.name, each.modalities, each.load(cache), each.left_out) for each in stored)


def store_cohorts(
    configs: Sequence[CohortConfig], cache: SampleCache, *, processes: int = 1, on_progress: Progress | None = None
) -> tuple[StoredCohort, ...]:
    """Have the cases of the cohorts preprocessed, and return the cohorts in their order, split as their hospitals would split them.

    Args:
        configs: where the cohorts lie and how they are split.
        cache: keeps preprocessed cases on the grid of the model.
        processes: processes that preprocess at one time.
        on_progress: called with (done, total) cases of all cohorts.

    Raises:
        DataError: a folder or a table of labels is wrong; a case is bad and its cohort's skip_bad_cases is off, or none is left; a case
            is part of two cohorts.
    """
    cases = [read_cases(each) for each in configs]
    every = [case for found in cases for case in found]
    faults = map_in_processes(partial(_fault_of, cache), every, processes=processes, on_progress=on_progress)
    borders = pairwise(accumulate(map(len, cases), initial=0))
    cohorts = []
    for config, found, (first, end) in zip(configs, cases, borders, strict=True):
        bad = {case.case_id: fault for case, fault in zip(found, faults[first:end], strict=True) if fault is not None}
        accepted = tuple(case for case in found if case.case_id not in bad)
        _check_gate(config, accepted, bad)
        cohorts.append((config, accepted, tuple(bad)))
    _refuse_shared_cases([(config, accepted) for config, accepted, _ in cohorts], cache)
    return tuple(_store(config, accepted, bad, cache) for config, accepted, bad in cohorts)


def _fault_of(cache: SampleCache, case: Case) -> DataError | None:
    """Have a case ready in the cache, or return why it cannot be."""
    try:
        cache.get(case)
    except DataError as error:
        return error
    return None


def _store(config: CohortConfig, accepted: tuple[Case, ...], bad: tuple[str, ...], cache: SampleCache) -> StoredCohort:
    splits = split_patients(accepted, config.split)
    entries = {split: tuple((case, cache.path_of(case)) for case in splits[split]) for split in Split}
    return StoredCohort(config.name, config.modalities, entries, bad)


def _check_gate(config: CohortConfig, accepted: Sequence[Case], bad: Mapping[str, DataError]) -> None:
    """Refuse a cohort with bad cases, unless they may be left out and others are there."""
    if not bad or (accepted and config.skip_bad_cases):
        return
    case_id, first = next(iter(bad.items()))
    raise DataError(
        f"{len(bad)} of {len(accepted) + len(bad)} cases do not pass the quality gate",
        where=config.root,
        got=f"first: case {case_id}: {first}".replace("\n", "\n            "),
        expected="readable scans of one grid with known labels",
        remedy="mend them (`gmmas data check` names all), or leave them out: skip_bad_cases: true, or --skip-bad"
        if accepted
        else "mend them; no case is left to work with",
        code=first.code,
    )


def _refuse_shared_cases(cohorts: Sequence[tuple[CohortConfig, Sequence[Case]]], cache: SampleCache) -> None:
    """Refuse a case in two cohorts: each splits by itself, so it could be trained on in one and tested in the other."""
    for (first, ours), (second, theirs) in combinations(cohorts, 2):
        others = {case.case_id: case for case in theirs}
        for case in ours:
            twin = others.get(case.case_id)
            # Hospitals may number alike; the same content is the same scan.
            if twin is not None and content_key(case, cache.grid) == content_key(twin, cache.grid):
                raise DataError(
                    "a case is part of two cohorts",
                    where=f"{first.root} and {second.root}",
                    got=case.case_id,
                    expected="cohorts without common cases, since each is split by itself",
                    remedy="name each folder once, or remove the case from one of them",
                )
