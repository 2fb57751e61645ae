"""Cohorts on disk made ready for training in one place: read, checked, preprocessed, split by patient.

A preprocessed case has passed the quality gate, so one pass over the files does for both, and a case in the cache is not read again.

No patient may be trained on in one place and tested in another. Patients of one cohort are split together, cohorts each by itself, so
refused are equal scans (SHA-256 of a file as it lies) of two patients or of two cohorts, and a patient in two cohorts where the identifier
is one that means the same patient everywhere (gmmas_data.cases.names_one_patient). A scan that was saved anew under another name is not
found by this; `gmmas site check` compares voxels within a cohort.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path

from gmmas_data.cache import SampleCache, digest_files
from gmmas_data.cases import Case, names_one_patient
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


@dataclass(frozen=True)
class _Ready:
    """A case that passed the quality gate, its entry in the cache, and the SHA-256 of its scans."""

    case: Case
    entry: Path
    scans: frozenset[str]


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
        DataError: a folder or a table of labels is wrong; a case is bad and its cohort's skip_bad_cases is off, or none is left; a scan
            or a patient is part of two cohorts, or a scan lies under two patients.
    """
    cases = [read_cases(each) for each in configs]
    every = [case for found in cases for case in found]
    outcomes = map_in_processes(partial(_prepare, cache), every, processes=processes, on_progress=on_progress)
    borders = pairwise(accumulate(map(len, cases), initial=0))
    cohorts = []
    for config, found, (first, end) in zip(configs, cases, borders, strict=True):
        own = outcomes[first:end]
        bad = {case.case_id: outcome for case, outcome in zip(found, own, strict=True) if isinstance(outcome, DataError)}
        accepted = tuple(outcome for outcome in own if isinstance(outcome, _Ready))
        _check_gate(config, accepted, bad)
        cohorts.append((config, accepted, tuple(bad)))
    _refuse_twins([(config, accepted) for config, accepted, _ in cohorts])
    return tuple(_store(config, accepted, bad) for config, accepted, bad in cohorts)


def _prepare(cache: SampleCache, case: Case) -> _Ready | DataError:
    """Have a case ready in the cache, or return why it cannot be."""
    try:
        digests = digest_files(case)
        entry = cache.path_of(case, digests=digests)
        cache.load(entry, case)
    except DataError as error:
        return error
    return _Ready(case, entry, frozenset(digests[str(modality)] for modality in case.images))


def _store(config: CohortConfig, accepted: tuple[_Ready, ...], bad: tuple[str, ...]) -> StoredCohort:
    entry_of = {one.case.case_id: one.entry for one in accepted}
    splits = split_patients([one.case for one in accepted], config.split)
    entries = {split: tuple((case, entry_of[case.case_id]) for case in splits[split]) for split in Split}
    return StoredCohort(config.name, config.modalities, entries, bad)


def _check_gate(config: CohortConfig, accepted: Sequence[_Ready], bad: Mapping[str, DataError]) -> None:
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


def _refuse_twins(cohorts: Sequence[tuple[CohortConfig, Sequence[_Ready]]]) -> None:
    """Refuse what could be trained on in one place and tested in another; several time points of one patient in one cohort are none."""
    scans: dict[str, tuple[int, Case]] = {}
    patients: dict[str, tuple[int, Case]] = {}
    for place, (config, ready) in enumerate(cohorts):
        for one in ready:
            case = one.case
            for digest in sorted(one.scans):
                first, twin = scans.setdefault(digest, (place, case))
                if first != place:
                    raise _shared("a scan is part of two cohorts", cohorts[first][0], config, twin, case)
                if twin.patient_id != case.patient_id:
                    raise _doubled(config, twin, case)
            first, twin = patients.setdefault(case.patient_id, (place, case))
            if first != place and names_one_patient(case.patient_id):
                raise _shared("a patient is part of two cohorts", cohorts[first][0], config, twin, case)


def _shared(what: str, first: CohortConfig, second: CohortConfig, twin: Case, case: Case) -> DataError:
    return DataError(
        what,
        where=f"{first.root} and {second.root}",
        got=twin.case_id if twin.case_id == case.case_id else f"{twin.case_id} and {case.case_id}",
        expected="cohorts without common patients, since each is split by itself",
        remedy="name each folder once, or leave the patient out of one of them (`exclude`, or move the files); rename what only has the"
        " name of a patient of a public collection",
    )


def _doubled(config: CohortConfig, twin: Case, case: Case) -> DataError:
    return DataError(
        "a scan lies under two patients",
        where=config.root,
        got=f"{twin.case_id} and {case.case_id}",
        expected="scans of each patient's own, since patients are split and one could be trained on and the other tested",
        remedy="find out whose the scan is, and leave the other case out (`exclude`, or move the files)",
    )
