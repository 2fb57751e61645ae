import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_data.suppression import interval
from gmmas_schema.vocabulary import MODALITIES, Modality, Task
from server.card_counts import MOST_SITES, SiteCounts, _cells, told_counts

FULL = {Task.SEGMENTATION: 40, Task.IDH: 40}


def test_large_counts_are_told_with_their_sums() -> None:
    north = SiteCounts(MODALITIES, 40, FULL, {"dice_wt": 12})
    south = SiteCounts((Modality.T2,), 30, {Task.SEGMENTATION: 30, Task.IDH: 15})
    told = told_counts({"site-1": north, "site-2": south})
    assert (told.cases, told.labelled) == (70, {Task.SEGMENTATION: 70, Task.IDH: 55})
    assert told.coverage[Modality.T1] == {Task.SEGMENTATION: 40, Task.IDH: 40}
    assert told.coverage[Modality.T2] == {Task.SEGMENTATION: 70, Task.IDH: 55}
    assert told.site_cases == {"site-1": 40, "site-2": 30}
    assert told.site_tested["site-1"] == {"dice_wt": 12}


def test_a_small_hospital_cannot_be_subtracted_from_the_sum() -> None:
    told = told_counts({f"site-{n}": SiteCounts(MODALITIES, cases, {Task.SEGMENTATION: cases}) for n, cases in enumerate((40, 30, 4))})
    assert told.site_cases["site-2"] is None
    assert [told.cases, *told.site_cases.values()].count(None) >= 2


def test_a_few_unlabelled_cases_of_many_are_protected() -> None:
    some, every = SiteCounts(MODALITIES, 40, {Task.SEGMENTATION: 37}), SiteCounts(MODALITIES, 50, {Task.SEGMENTATION: 50})
    told = told_counts({"site-1": some, "site-2": every})
    assert None in (told.site_cases["site-1"], told.site_labelled["site-1"][Task.SEGMENTATION])


@settings(max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 15)), min_size=1, max_size=4))
def test_nobody_can_compute_a_small_count(rows) -> None:
    sites = {
        f"site-{n}": SiteCounts(
            MODALITIES[: 1 + n % 4], cases, {Task.SEGMENTATION: min(cases, labelled), Task.IDH: cases}, {"dice_wt": tested}
        )
        for n, (cases, labelled, tested) in enumerate(rows)
    }
    told = told_counts(sites)
    counts, sums, _ = _cells(sites)
    shown = {"cases": told.cases} | {f"cases/{site}": count for site, count in told.site_cases.items()}
    shown |= {str(task): count for task, count in told.labelled.items()}
    shown |= {f"{m}/{task}": count for m, row in told.coverage.items() for task, count in row.items()}
    shown |= {f"{task}/{site}": count for site, row in told.site_labelled.items() for task, count in row.items()}
    shown |= {f"tested/{metric}/{site}": count for site, row in told.site_tested.items() for metric, count in row.items()}
    assert all(count is None or count >= 11 for count in shown.values())
    withheld = {name for name in counts if shown.get(name) is None}
    if len(withheld) == len(counts):
        return
    for name in (name for name in withheld if 0 < counts[name] < 11 and (name in shown or name.startswith("without"))):
        low, high = interval(name, counts, sums, withheld)
        assert low <= 1e-6
        assert high >= 10 - 1e-6


def test_of_very_many_sites_only_totals_are_told() -> None:
    generator = np.random.default_rng(0)
    sites = {f"site-{n}": SiteCounts(MODALITIES, int(generator.integers(5, 40)), {Task.IDH: 5}) for n in range(MOST_SITES + 1)}
    told = told_counts(sites)
    assert told.site_cases == {}
    assert told.labelled == {Task.IDH: 5 * (MOST_SITES + 1)}


def test_without_sites_there_is_nothing_to_tell() -> None:
    assert told_counts({}).labelled == {}
