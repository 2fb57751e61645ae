"""What an attacker can compute from a published table: checked with integer programmes of our own, not with the module's own intervals."""

import itertools
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp

from gmmas_data.suppression import Sum, suppress
from gmmas_schema.audit import SMALLEST_COUNT

COUNTS = st.integers(0, 40) | st.integers(0, 12)


def two_way(rows: list[list[int]]) -> tuple[dict[str, int], list[Sum]]:
    """Return a table with its margins."""
    height, width = len(rows), len(rows[0])
    counts = {f"{r},{c}": rows[r][c] for r in range(height) for c in range(width)}
    counts |= {f"{r},": sum(rows[r]) for r in range(height)} | {f",{c}": sum(row[c] for row in rows) for c in range(width)}
    counts["all"] = sum(map(sum, rows))
    sums = [Sum(f"{r},", tuple(f"{r},{c}" for c in range(width))) for r in range(height)]
    sums += [Sum(f",{c}", tuple(f"{r},{c}" for r in range(height))) for c in range(width)]
    sums += [Sum("all", tuple(f"{r}," for r in range(height))), Sum("all", tuple(f",{c}" for c in range(width)))]
    return counts, sums


def possible(
    told: dict[str, int | None], sums: list[Sum], cell: str, *, least: Mapping[str, int] = MappingProxyType({})
) -> tuple[float, float]:
    """Return the least and the greatest whole number that a cell may be for a reader of the table."""
    names = sorted({name for one in sums for name in (one.total, *one.parts)})
    matrix = np.array([[(name == one.total) - float(name in one.parts) for name in names] for one in sums])
    low = np.array([least.get(name, 0) if told.get(name) is None else told[name] for name in names], dtype=float)
    high = np.array([10_000 if told.get(name) is None else told[name] for name in names], dtype=float)
    ends = []
    for sign in (1, -1):
        cost = np.array([sign * float(name == cell) for name in names])
        answer = milp(cost, constraints=LinearConstraint(matrix, 0, 0), bounds=Bounds(low, high), integrality=np.ones(len(names)))
        assert answer.success
        ends.append(sign * answer.fun)
    return ends[0], ends[1]


@settings(max_examples=40)
@given(rows=st.integers(1, 3).flatmap(lambda width: st.lists(st.lists(COUNTS, min_size=width, max_size=width), min_size=1, max_size=3)))
def test_no_small_count_can_be_computed(rows: list[list[int]]) -> None:
    counts, sums = two_way(rows)
    told = suppress(counts, sums)
    for name, count in counts.items():
        assert told[name] in (None, count)
        if count < SMALLEST_COUNT:
            assert told[name] is None
            low, high = possible(told, sums, name)
            assert low < 0.5
            assert high > SMALLEST_COUNT - 1.5


@settings(max_examples=30)
@given(with_it=COUNTS, without=COUNTS)
def test_what_is_never_told_is_protected_too(with_it: int, without: int) -> None:
    """`cases` and `cases with T1` give `cases without T1`, though nobody asked for it."""
    counts, sums = {"all": with_it + without, "with": with_it, "without": without}, [Sum("all", ("with", "without"))]
    told = suppress(counts, sums, hidden=frozenset({"without"}))
    assert "without" not in told
    if without < SMALLEST_COUNT or with_it < SMALLEST_COUNT:
        assert told["all"] is None or told["with"] is None
    else:
        assert told == {"all": with_it + without, "with": with_it}


@settings(max_examples=30)
@given(frequent=st.lists(st.integers(SMALLEST_COUNT, 30), min_size=1, max_size=3), rare=st.integers(1, SMALLEST_COUNT - 1))
def test_what_a_name_says_computes_no_small_count(frequent: list[int], rare: int) -> None:
    """12 cases, of which the sequences in a row of their own are 11 or more and some are `other`, would be 11 and 1."""
    counts = {f"row {place}": count for place, count in enumerate(frequent)} | {"other": rare}
    least = {name: 1 if name == "other" else SMALLEST_COUNT for name in counts}
    sums = [Sum("all", tuple(counts))]
    counts["all"] = sum(counts.values())
    told = suppress(counts, sums, least=least)
    low, high = possible(told, sums, "other", least=least)
    assert low < 1.5
    assert high > SMALLEST_COUNT - 1.5


def test_large_counts_are_all_told() -> None:
    counts, sums = two_way([[20, 30], [40, 11]])
    assert suppress(counts, sums) == counts


def test_one_small_count_takes_three_others_with_it() -> None:
    counts, sums = two_way([[3, 30, 50], [40, 25, 60]])
    told = suppress(counts, sums)
    assert told["0,0"] is None
    assert sum(value is None for value in told.values()) <= 4
    assert told["all"] == 208
    for cell in itertools.compress(told, [value is None for value in told.values()]):
        low, high = possible(told, sums, cell)
        assert high - low >= SMALLEST_COUNT - 1


def test_a_tiny_cohort_tells_nothing() -> None:
    counts, sums = two_way([[1, 2], [3, 4]])
    assert set(suppress(counts, sums).values()) == {None}
