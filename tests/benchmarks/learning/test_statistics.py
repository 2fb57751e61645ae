from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.learning.statistics import (
    BY_LUCK,
    FIGURES,
    FULL,
    NESTED_PAIRS,
    SUBSETS,
    T1CE_ONLY,
    CaseTable,
    agree_on_regions,
    compare,
    outlining_nothing,
    regions_shown,
    told_apart,
    value_of,
)
from gmmas_schema.errors import DataError
from gmmas_schema.vocabulary import MODALITIES, Modality, Task
from tests.benchmarks.learning.results import make_rows

K = 12


def make_table(skill: float = 0.7, *, seed: int = 1) -> CaseTable:
    return CaseTable.of(make_rows(skill, seed=seed, cases=K))


def shifted(table: CaseTable, by: float) -> CaseTable:
    return replace(table, dice_NKR=table.dice_NKR + by)


def test_places_of_the_subsets() -> None:
    assert SUBSETS[FULL] == MODALITIES
    assert SUBSETS[T1CE_ONLY] == (Modality.T1CE,)
    assert len(set(NESTED_PAIRS)) == 28
    assert all(set(SUBSETS[fewer]) < set(SUBSETS[more]) for fewer, more in NESTED_PAIRS)


def test_figures_are_the_means_their_names_say() -> None:
    table = make_table()
    assert value_of(FIGURES["dice"], table) == pytest.approx(table.dice_NKR.mean())
    assert value_of(FIGURES["dice_et"], table) == pytest.approx(table.dice_NKR[:, :, 2].mean())
    assert value_of(FIGURES["et_t1ce"], table) == pytest.approx(table.dice_NKR[T1CE_ONLY, :, 2].mean())
    assert value_of(FIGURES["dice_full"], table) == pytest.approx(table.dice_NKR[FULL].mean())


def test_a_region_is_where_an_outline_met_it_or_none_was_ever_right() -> None:
    """Patients: met; absent and outlined at times; never found; perfect once, for which it must have been there."""
    dice_NKR = np.array([[0.4, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.7]])[:, :, None]
    assert regions_shown(dice_NKR)[:, 0].tolist() == [True, False, True, True]


def test_visible_dice_is_of_those_who_have_it_and_false_outlines_of_those_who_do_not() -> None:
    table = make_table()
    assert table.has_KR.sum(0).tolist() == [K, K, K - 3]
    assert value_of(FIGURES["et_visible"], table) == pytest.approx(table.dice_NKR[:, 3:, 2].mean())
    assert value_of(FIGURES["et_visible_t1ce"], table) == pytest.approx(table.dice_NKR[T1CE_ONLY, 3:, 2].mean())
    assert value_of(FIGURES["et_false"], table) == pytest.approx(7 / 15), "where T1ce is not shown"
    assert value_of(FIGURES["et_false_t1ce"], table) == 0
    together = 9 * value_of(FIGURES["et_visible"], table) + 3 * (1 - value_of(FIGURES["et_false"], table))
    assert value_of(FIGURES["dice_et"], table) == pytest.approx(together / K)


def test_a_resample_without_such_patients_is_left_out_and_so_is_a_cohort() -> None:
    one = CaseTable.of(make_rows(0.7, seed=1, cases=K, without_et=1))
    assert compare(FIGURES["et_false"], {1: one}, {1: one}).low == 0, "a third of the resamples does not have the one who lacks it"
    everybody = CaseTable.of(make_rows(0.7, seed=1, cases=K, without_et=0))
    assert np.isnan(value_of(FIGURES["et_false"], everybody))
    assert compare(FIGURES["et_false"], {1: everybody}, {1: everybody}).value is None


def test_outlining_nothing_scores_what_is_absent() -> None:
    nothing = outlining_nothing(make_table())
    assert value_of(FIGURES["dice_et"], nothing) == pytest.approx(3 / K)
    assert value_of(FIGURES["dice"], nothing) == pytest.approx(1 / K)
    assert value_of(FIGURES["et_visible"], nothing) == value_of(FIGURES["et_false"], nothing) == 0


def test_arms_of_a_seed_agree_on_their_patients() -> None:
    """One that outlines enhancing tumour in everybody, and hits nobody's, cannot tell who has none."""
    table = make_table()
    misses = replace(table, dice_NKR=table.dice_NKR * [1, 1, 0])
    misses = replace(misses, has_KR=regions_shown(misses.dice_NKR))
    assert misses.has_KR[:, 2].all()
    agreed = agree_on_regions({"a": misses, "b": table}, seed=1)
    assert [each.has_KR[:, 2].sum() for each in agreed.values()] == [K - 3, K - 3]
    assert value_of(FIGURES["et_false"], agreed["a"]) == 1
    with pytest.raises(DataError, match="different patients"):
        agree_on_regions({"a": table, "b": replace(table, cases=tuple("abcdefghijkl"))}, seed=1)


def test_surface_distances_are_in_millimetres_and_not_defined_where_none_were_compared() -> None:
    table, nearer = make_table(), make_table()
    nearer = replace(nearer, hd95_NKR=0.9 * table.hd95_NKR)
    assert value_of(FIGURES["hd95_full"], table) == pytest.approx(table.hd95_NKR[FULL].mean())
    assert compare(FIGURES["hd95"], {1: nearer}, {1: table}, how="ratio").value == pytest.approx(0.9)
    rows = {name: tuple(row.model_copy(update={"hd95_mm": {}}) for row in of) for name, of in make_rows(0.7, seed=1, cases=K).items()}
    without = CaseTable.of(rows)
    assert np.isnan(value_of(FIGURES["hd95"], without))
    assert compare(FIGURES["hd95"], {1: table}, {1: without}).value is None
    assert compare(FIGURES["dice"], {1: table}, {1: without}).value == 0


def test_auc_and_calibration_of_a_perfect_and_of_a_blind_model() -> None:
    table = make_table()
    truth_K = table.truth_K[Task.IDH]
    perfect = replace(table, probability={task: np.tile(truth_K.astype(float), (15, 1)) for task in table.probability})
    blind = replace(table, probability={task: np.full((15, K), 0.5) for task in table.probability})
    sure = replace(table, probability={task: np.full((15, K), 1.0) for task in table.probability})
    assert [value_of(FIGURES["auc_idh"], t) for t in (perfect, blind)] == [1.0, 0.5]
    assert value_of(FIGURES["ece"], perfect) == 0
    assert value_of(FIGURES["ece"], blind) == pytest.approx(abs(0.5 - truth_K.mean()))
    assert value_of(FIGURES["ece"], sure) == pytest.approx(1 - truth_K.mean())


def test_fewer_better_counts_clear_reversals_of_nested_subsets_only() -> None:
    table = make_table()
    flat = replace(table, dice_NKR=np.full((15, K, 3), 0.5))
    assert value_of(FIGURES["fewer_better"], flat) == 0
    blurred = flat.dice_NKR.copy()
    blurred[T1CE_ONLY, 0] += 0.009
    assert value_of(FIGURES["fewer_better"], replace(flat, dice_NKR=blurred)) == 0
    blurred[T1CE_ONLY, 0] += 0.01
    assert value_of(FIGURES["fewer_better"], replace(flat, dice_NKR=blurred)) == pytest.approx(3 / 28 / K)


def test_a_shift_shared_by_all_patients_has_no_spread() -> None:
    reference = {seed: make_table(seed=seed) for seed in (1, 2, 3)}
    arm = {seed: shifted(table, 0.04) for seed, table in reference.items()}
    change = compare(FIGURES["dice"], arm, reference)
    assert (change.value, change.low, change.high) == pytest.approx((0.04, 0.04, 0.04))
    assert change.n == 3 * K
    ratio = compare(FIGURES["dice"], reference, reference, how="ratio")
    assert (ratio.value, ratio.low, ratio.high) == (1, 1, 1)


def test_seeds_that_disagree_widen_the_interval_beyond_what_patients_do() -> None:
    reference = {seed: make_table(seed=seed) for seed in (1, 2, 3)}
    agree = {seed: shifted(reference[seed], 0.04) for seed in reference}
    disagree = {seed: shifted(reference[seed], by) for seed, by in zip(reference, (-0.08, 0.04, 0.16), strict=True)}
    first, second = (compare(FIGURES["dice"], arm, reference) for arm in (agree, disagree))
    assert first.value == pytest.approx(second.value)
    assert (second.low, second.high) == pytest.approx((-0.08, 0.16))


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_few_seeds_are_told_apart_by_luck_as_often_as_it_is_said(seeds) -> None:
    """The only difference between the arms is how training fell out with each seed."""
    rng = np.random.default_rng(5)
    reference = {seed: make_table(seed=seed) for seed in range(seeds)}
    trials, found = 150, 0
    for _ in range(trials):
        arm = {seed: shifted(table, rng.normal(0, 0.05)) for seed, table in reference.items()}
        change = compare(FIGURES["dice"], arm, reference)
        found += change.low > 0 or change.high < 0
        assert seeds > 1 or not told_apart(change, seeds=seeds)
    assert found / trials == pytest.approx(BY_LUCK[seeds], abs=0.1)
    assert BY_LUCK[seeds] == 2.0 ** (1 - seeds)


def test_only_seeds_of_both_count() -> None:
    reference = {1: make_table(seed=1), 2: make_table(seed=2)}
    change = compare(FIGURES["dice"], {2: shifted(reference[2], 0.1), 3: make_table(seed=3)}, reference)
    assert change.value == pytest.approx(0.1)
    assert change.n == K
    assert compare(FIGURES["dice"], {3: make_table(seed=3)}, reference).value is None


def test_a_figure_without_a_value_has_no_interval() -> None:
    table = make_table()
    one_class = replace(table, truth_K={task: np.ones(K, bool) for task in table.truth_K})
    assert compare(FIGURES["auc_idh"], {1: one_class}, {1: one_class}).value is None
    nothing = replace(table, dice_NKR=np.zeros((15, K, 3)))
    assert compare(FIGURES["dice"], {1: table}, {1: nothing}, how="ratio").value is None


def test_other_patients_are_refused() -> None:
    with pytest.raises(DataError, match="different patients"):
        compare(FIGURES["dice"], {1: make_table()}, {1: replace(make_table(), cases=tuple("abcdefghijkl"))})
    rows = make_rows(0.7, seed=1)
    with pytest.raises(DataError, match="not whole"):
        CaseTable.of({name: found for name, found in rows.items() if name != "t1ce"})
    with pytest.raises(DataError, match="not whole"):
        CaseTable.of(rows | {"t1ce": rows["t1ce"][::-1]})


@settings(max_examples=20)
@given(st.sampled_from(sorted(FIGURES)), st.lists(st.floats(0.1, 0.9), min_size=2, max_size=2))
def test_exchanging_the_arms_turns_the_difference_round(name, skills) -> None:
    first, second = ({seed: make_table(skill, seed=seed) for seed in (4, 5)} for skill in skills)
    there, back = compare(FIGURES[name], first, second), compare(FIGURES[name], second, first)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low), abs=1e-9)
    # A resample's ECE is larger than the cohort's own (repeated patients, emptier bins), so its interval need not hold the value.
    assert name == "ece" or there.low - 1e-9 <= there.value <= there.high + 1e-9
