"""Counts of a model card: over all hospitals and of each, with those withheld that are below 11 or would give such a one away.

What anybody can add up is told to gmmas_data.suppression as sums:

    cases of all sites       = sum of the sites' cases
    labelled of all, per task = sum of the sites' labelled
    cases of a site          = labelled + unlabelled, per task
    sequence x task          = sum of the labelled of the sites that hold the sequence
    test patients, per metric = sum of the sites' (the means over sites nearly tell it)

Where there are more than MOST_SITES sites none is listed by itself, and only totals are told.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gmmas_data.suppression import Sum, suppress
from gmmas_schema.audit import SMALLEST_COUNT
from gmmas_schema.vocabulary import MODALITIES, TASKS, Modality, Task

MOST_SITES: Final = 25


@dataclass(frozen=True)
class SiteCounts:
    """What one site reported.

    Attributes:
        cases: training cases.
        labelled: of these, per task.
        tested: test patients per metric (`dice_wt`, `auc_idh`, ...).
    """

    modalities: tuple[Modality, ...] = ()
    cases: int = 0
    labelled: Mapping[Task, int] = field(default_factory=dict)
    tested: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ToldCounts:
    """The counts that may be told; None is withheld, what is not there was never counted."""

    cases: int | None
    labelled: dict[Task, int | None]
    coverage: dict[Modality, dict[Task, int | None]]
    site_cases: dict[str, int | None]
    site_labelled: dict[str, dict[Task, int | None]]
    site_tested: dict[str, dict[str, int | None]]


def told_counts(sites: Mapping[str, SiteCounts]) -> ToldCounts:
    """Return the counts of sites that may be published."""
    listed = len(sites) <= MOST_SITES
    counts, sums, hidden = _cells(sites)
    if listed:
        told = suppress(counts, sums, hidden=frozenset(hidden))
    else:
        # Sums over so many sites give no single one away; small ones are withheld all the same.
        told = {name: count if count >= SMALLEST_COUNT else None for name, count in counts.items()}
    tasks = [task for task in TASKS if any(task in own.labelled for own in sites.values())]
    held = [m for m in MODALITIES if any(m in own.modalities for own in sites.values())]
    names = list(sites) if listed else []
    return ToldCounts(
        cases=told["cases"],
        labelled={task: told[task] for task in tasks},
        coverage={m: {task: told[f"{m}/{task}"] for task in tasks} for m in held},
        site_cases={site: told[f"cases/{site}"] for site in names},
        site_labelled={site: {task: told[f"{task}/{site}"] for task in tasks if task in sites[site].labelled} for site in names},
        site_tested={site: {metric: told[f"tested/{metric}/{site}"] for metric in sites[site].tested} for site in names},
    )


def _cells(sites: Mapping[str, SiteCounts]) -> tuple[dict[str, int], list[Sum], list[str]]:
    """Return every count by name, how they hang together, and those that are never told."""
    counts = {"cases": sum(own.cases for own in sites.values())} | {f"cases/{site}": own.cases for site, own in sites.items()}
    sums, hidden = [Sum("cases", tuple(f"cases/{site}" for site in sites))] if sites else [], []
    for task in TASKS:
        knowing = {site: own for site, own in sites.items() if task in own.labelled}
        if not knowing:
            continue
        counts[task] = sum(own.labelled[task] for own in knowing.values())
        sums.append(Sum(task, tuple(f"{task}/{site}" for site in knowing)))
        for site, own in knowing.items():
            counts[f"{task}/{site}"] = own.labelled[task]
            # That every case has a label says nothing of any one; that three have none does.
            if (unlabelled := own.cases - own.labelled[task]) > 0:
                without = f"without {task}/{site}"
                counts[without] = unlabelled
                sums.append(Sum(f"cases/{site}", (f"{task}/{site}", without)))
                hidden.append(without)
        for modality in MODALITIES:
            holders = [site for site, own in knowing.items() if modality in own.modalities]
            counts[f"{modality}/{task}"] = sum(knowing[site].labelled[task] for site in holders)
            sums += [Sum(f"{modality}/{task}", tuple(f"{task}/{site}" for site in holders))] if holders else []
    for metric in dict.fromkeys(metric for own in sites.values() for metric in own.tested):
        tested = {site: own.tested[metric] for site, own in sites.items() if metric in own.tested}
        counts |= {f"tested/{metric}/{site}": count for site, count in tested.items()} | {f"tested/{metric}": sum(tested.values())}
        sums.append(Sum(f"tested/{metric}", tuple(f"tested/{metric}/{site}" for site in tested)))
    return counts, sums, hidden
