from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_schema.vocabulary import MODALITIES, Modality, Task
from server.coverage import CASES, EVERY, coverage_of
from server.run_view import SiteRow


def row(name: str, held: str, cases: int, **labelled: int) -> SiteRow:
    return SiteRow(name, modalities=tuple(held.split()), cases=cases, labelled=labelled)


def test_counts_add_up_over_who_holds_a_sequence() -> None:
    found = coverage_of([row("north", "t1 t1ce t2 flair", 40, segmentation=30, idh=20), row("east", "t2 flair", 25, segmentation=25)])
    assert found.columns == (CASES, "segmentation", "idh")
    assert {name: cells[CASES].count for name, cells in found.rows.items()} == {"t1": 40, "t1ce": 40, "t2": 65, "flair": 65, EVERY: 65}
    assert found.rows["t2"]["segmentation"].count == 55
    assert (found.rows["t2"]["idh"].count, found.rows["t2"]["idh"].sites) == (20, 1)


def test_a_small_hospital_cannot_be_computed_from_the_differences() -> None:
    """t2 less t1 would be east's 9 segmentations, so t1 is withheld with them."""
    found = coverage_of([row("north", "t1 t2", 34, segmentation=34), row("east", "t2", 17, segmentation=9)])
    assert found.rows["t2"]["segmentation"].count == 43
    assert found.rows["t1"]["segmentation"].count is None
    assert found.rows["t1"]["segmentation"].sites == 1


def test_what_nobody_has_is_none_and_what_few_have_is_withheld() -> None:
    found = coverage_of([row("north", "t1 flair", 30, segmentation=30, codeletion=3)])
    assert (found.rows["t1ce"][CASES].sites, found.rows["t1ce"][CASES].count) == (0, 0)
    assert (found.rows["t1"]["codeletion"].sites, found.rows["t1"]["codeletion"].count) == (1, None)
    assert "idh" not in found.columns


def test_who_has_not_said_is_left_out() -> None:
    found = coverage_of([SiteRow("north"), row("east", "t1", 20)])
    assert found.rows[EVERY][CASES].sites == 1
    assert coverage_of([]).rows[EVERY][CASES].sites == 0


sites = st.lists(
    st.builds(
        lambda held, cases, labels: SiteRow("x", modalities=tuple(sorted(held)), cases=cases, labelled=labels),
        st.sets(st.sampled_from(MODALITIES), min_size=1).map(lambda held: {Modality(each).value for each in held}),
        st.integers(0, 40),
        st.dictionaries(st.sampled_from([Task.SEGMENTATION.value, Task.IDH.value]), st.integers(0, 40)),
    ),
    max_size=5,
)


@settings(max_examples=40)
@given(sites)
def test_no_small_count_is_ever_told_nor_the_difference_of_two_nested_rows(rows: list[SiteRow]) -> None:
    found = coverage_of(rows)
    for column in found.columns:
        told = {name: cells[column].count for name, cells in found.rows.items() if cells[column].sites}
        assert all(count is None or count >= 11 for count in told.values())
        whole = told.get(EVERY)
        if whole is not None:
            assert all(count is None or count == whole or whole - count >= 11 for count in told.values())
