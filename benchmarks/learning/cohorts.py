"""Scans and samples of one seed, made once and shared by its arms."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gmmas_data.cache import SampleCache
from gmmas_data.cases import Case
from gmmas_data.layouts import read_cohort
from gmmas_data.phantom.cohorts import make_cohorts
from gmmas_data.phantom.files import LABELS
from gmmas_data.samples import Sample
from gmmas_data.splits import split_patients
from gmmas_schema.model import GridConfig
from gmmas_schema.phantom import PhantomSite, PhantomSpec
from gmmas_schema.site import SplitConfig
from gmmas_schema.vocabulary import Split

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class SeedCohorts:
    """The hospitals of one seed on disk.

    Attributes:
        folder: holds `cohorts` and `cache`.
        phantoms: with the seed's own seed.
    """

    folder: Path
    phantoms: PhantomSpec

    def make(self, grids: Sequence[GridConfig], *, processes: int, on_scan: Progress, on_sample: Progress) -> None:
        """Make the scans, then the samples of every grid; what is there is left as it is.

        Raises:
            ConfigError: the folder holds phantoms of another specification.
        """
        make_cohorts(self.phantoms, self.folder / "cohorts", processes=processes, on_progress=on_scan)
        cases = [case for site in self.phantoms.sites for case in self._cases(site)]
        for grid in grids:
            self._cache(grid).prepare(cases, processes=processes, on_progress=on_sample)

    def site(self, name: str) -> PhantomSite:
        """Return a hospital's specification."""
        return next(site for site in self.phantoms.sites if site.name == name)

    def samples(self, name: str, grid: GridConfig) -> tuple[Sample, ...]:
        """Return all patients of a hospital."""
        cache = self._cache(grid)
        return tuple(cache.get(case) for case in self._cases(self.site(name)))

    def split_samples(self, name: str, grid: GridConfig, split: SplitConfig) -> dict[Split, tuple[Sample, ...]]:
        """Return a hospital's patients per split, as its node would split them."""
        cache = self._cache(grid)
        return {
            part: tuple(cache.get(case) for case in cases) for part, cases in split_patients(self._cases(self.site(name)), split).items()
        }

    def _cases(self, site: PhantomSite) -> list[Case]:
        root = self.folder / "cohorts" / site.name
        return list(read_cohort(root, labels=root / LABELS, modalities=site.modalities))

    def _cache(self, grid: GridConfig) -> SampleCache:
        return SampleCache(self.folder / "cache", grid)


def leave_undrawn(samples: Sequence[Sample], share: float) -> tuple[Sample, ...]:
    """Return the samples with the outlines of all but the first `share` of those that have any taken away, at least one being left."""
    drawn = [place for place, sample in enumerate(samples) if sample.regions_RXYZ is not None]
    kept = set(drawn[: math.ceil(share * len(drawn))])
    return tuple(sample if place in kept else replace(sample, regions_RXYZ=None) for place, sample in enumerate(samples))
