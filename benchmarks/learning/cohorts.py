"""Scans and samples of one seed, made once and shared by its arms; and the baseline that fills absent sequences with zeros.

The usual way to feed a fixed network incomplete patients is to show the missing sequence as an empty image. Where our own training draws
a random subset of a sample's sequences in a share p of the draws, that baseline trains on zeroed copies in the same share, so both have
learned from every subset and differ only in what absence means to the network.

Shapes: M modality, X Y Z voxels of the network's grid.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

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
from gmmas_schema.vocabulary import MODALITIES, Modality, Split
from gmmas_workflows.batches import generators

COPIES: Final = 8
"""Entries per case in a zero-filled training set, so that shares are in eighths."""

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


def zero_fill(sample: Sample, shown: Collection[Modality] = MODALITIES) -> Sample:
    """Return a sample whose sequences all count as present; those that it lacks, and those not shown, are zero."""
    shown_M = np.array([m in shown for m in MODALITIES])
    image_MXYZ = np.where(shown_M[:, None, None, None], sample.image_MXYZ, np.float32(0))
    return replace(sample, image_MXYZ=image_MXYZ, present_M=np.ones_like(sample.present_M))


def zero_filled_copies(samples: Sequence[Sample], *, dropout: float, seed: Sequence[object]) -> tuple[Sample, ...]:
    """Return each sample COPIES times, a share `dropout` of them with a random non-empty subset of its sequences, the others zeroed.

    Args:
        samples: as they are, absent sequences marked absent.
        dropout: share in [0, 1], rounded to eighths.
        seed: of the subsets.
    """
    rng, _ = generators(*seed)
    dropped = round(dropout * COPIES)
    copies: list[Sample] = []
    for sample in samples:
        held = [m for m, present in zip(MODALITIES, sample.present_M, strict=True) if present]
        copies += [zero_fill(sample, held)] * (COPIES - dropped)
        for code in rng.integers(1, 2 ** len(held), size=dropped):
            copies.append(zero_fill(sample, [m for place, m in enumerate(held) if code >> place & 1]))
    return tuple(copies)
