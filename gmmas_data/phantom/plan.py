"""Which patients a site has: subtypes, identifiers and labels, decided before any case is made.

The plan depends on the specification alone. Counts are exact (largest remainder), so a small site never misses a subtype by bad luck.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gmmas_schema.phantom import PhantomSite, PhantomSpec
from gmmas_schema.vocabulary import Subtype, Task

LABELLED_TASKS = (Task.SEGMENTATION, Task.IDH, Task.CODELETION, Task.GRADE)
"""What phantoms have labels of."""


@dataclass(frozen=True)
class PlannedCase:
    """One patient to be made.

    Attributes:
        patient_id: unique over all sites of the specification.
        site: the hospital.
        subtype: true subtype.
        labelled: tasks for which this patient's label is published.
        seed: root of the patient's randomness: (seed, site name, index).
    """

    patient_id: str
    site: PhantomSite
    subtype: Subtype
    labelled: frozenset[Task]
    seed: np.random.SeedSequence


def plan_site(spec: PhantomSpec, site: PhantomSite) -> tuple[PlannedCase, ...]:
    """Return the patients of one site, in order of their identifiers."""
    key = _key(site.name)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence(spec.seed, spawn_key=(key, 0))))
    subtypes = rng.permutation([s.value for s, n in share_out(site.mix, site.cases).items() for _ in range(n)])
    # One order for every task: a patient labelled for one of two equal shares is labelled for both.
    rank = rng.permutation(site.cases)
    quota = {task: round(site.labelled.get(task, 1.0) * site.cases) for task in LABELLED_TASKS}
    # A grade tells of molecular status, so it is published with it only.
    quota[Task.GRADE] = min(quota[task] for task in (Task.IDH, Task.CODELETION, Task.GRADE))
    return tuple(
        PlannedCase(
            patient_id=f"PH-{site.name.upper()}-{index + 1:04d}",
            site=site,
            subtype=Subtype(subtypes[index]),
            labelled=frozenset(task for task in LABELLED_TASKS if rank[index] < quota[task]),
            seed=np.random.SeedSequence(spec.seed, spawn_key=(key, index + 1)),
        )
        for index in range(site.cases)
    )


def share_out(weights: Mapping[Subtype, float], total: int) -> dict[Subtype, int]:
    """Divide `total` in proportion to `weights`, by largest remainder; the counts sum to `total`."""
    exact = {key: total * weight / sum(weights.values()) for key, weight in weights.items()}
    counts = {key: int(value) for key, value in exact.items()}
    by_remainder = sorted(exact, key=lambda key: (counts[key] - exact[key], key))
    for key in by_remainder[: total - sum(counts.values())]:
        counts[key] += 1
    return counts


def _key(name: str) -> int:
    """Return a 64-bit number for a site's name; hash() would differ between processes."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
