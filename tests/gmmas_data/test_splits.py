from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gmmas_data.cases import Case
from gmmas_data.splits import split_patients
from gmmas_schema.site import SplitConfig
from gmmas_schema.vocabulary import Layout, Split


def case(patient: str, visit: int = 0) -> Case:
    return Case(f"{patient}-{visit}", patient, {}, Path("seg"), Layout.BRATS2021)


cohorts = st.lists(st.tuples(st.text(min_size=1, max_size=6), st.integers(0, 3)), max_size=60, unique=True)
shares = st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).filter(lambda pair: sum(pair) < 1)


@given(cohorts, shares, st.integers(0, 2**40))
def test_every_case_is_in_one_split_and_no_patient_in_two(cohort: list[tuple[str, int]], share: tuple[float, float], seed: int) -> None:
    cases = [case(*entry) for entry in cohort]
    config = SplitConfig(validation=share[0], test=share[1], seed=seed)
    splits = split_patients(cases, config)
    assert Counter(c.case_id for part in splits.values() for c in part) == Counter(c.case_id for c in cases)
    patients = {split: {c.patient_id for c in part} for split, part in splits.items()}
    everyone = set().union(*patients.values())
    assert sum(map(len, patients.values())) == len(everyone)
    trained, tested = len(patients[Split.TRAIN]), len(patients[Split.TEST])
    assert trained > 0 or not everyone
    if trained > 1:
        assert abs(tested - config.test * len(everyone)) <= 0.5 + 1e-6
        assert abs(len(everyone) - trained - (config.test + config.validation) * len(everyone)) <= 0.5 + 1e-6


@given(cohorts, st.randoms())
def test_neither_order_nor_a_second_visit_moves_anyone(cohort: list[tuple[str, int]], random: object) -> None:
    cases = [case(*entry) for entry in cohort]
    moved = [*cases, *(case(c.patient_id, 9) for c in cases)]
    random.shuffle(moved)
    before, after = split_patients(cases, SplitConfig()), split_patients(moved, SplitConfig())
    assert {s: {c.patient_id for c in part} for s, part in before.items()} == {s: {c.patient_id for c in part} for s, part in after.items()}


@pytest.mark.parametrize(
    ("patients", "counts"), [(100, (65, 15, 20)), (20, (13, 3, 4)), (10, (6, 2, 2)), (3, (2, 0, 1)), (1, (1, 0, 0)), (0, (0, 0, 0))]
)
def test_shares_are_exact(patients: int, counts: tuple[int, int, int]) -> None:
    splits = split_patients([case(f"p{n}") for n in range(patients)], SplitConfig())
    assert tuple(len(splits[split]) for split in (Split.TRAIN, Split.VALIDATION, Split.TEST)) == counts


@given(cohorts, shares, st.floats(0, 0.99))
def test_a_calibration_split_is_taken_from_training_alone(
    cohort: list[tuple[str, int]], share: tuple[float, float], calibration: float
) -> None:
    cases, rest = [case(*entry) for entry in cohort], 1 - sum(share)
    config = SplitConfig(validation=share[0], test=share[1])
    without = split_patients(cases, config)
    with_it = split_patients(cases, config.model_copy(update={"calibration": calibration * rest}))
    assert without[Split.CALIBRATION] == ()
    for split in (Split.VALIDATION, Split.TEST):
        assert with_it[split] == without[split]
    assert with_it[Split.TRAIN] or not cases
    assert {c.case_id for c in with_it[Split.TRAIN] + with_it[Split.CALIBRATION]} == {c.case_id for c in without[Split.TRAIN]}


def test_a_calibration_split_has_its_share() -> None:
    splits = split_patients([case(f"p{n}") for n in range(40)], SplitConfig(calibration=0.1))
    counts = tuple(len(splits[split]) for split in (Split.TRAIN, Split.VALIDATION, Split.TEST, Split.CALIBRATION))
    assert counts == (22, 6, 8, 4)


def test_shares_that_leave_nobody_to_train_on_are_refused() -> None:
    with pytest.raises(ValidationError, match="leave no patient"):
        SplitConfig(validation=0.3, test=0.3, calibration=0.4)


def test_assignment_never_moves_between_versions() -> None:
    """A golden value: a changed hash would train on yesterday's test patients."""
    splits = split_patients([case(f"p{n:02d}") for n in range(10)], SplitConfig(seed=7))
    assert [c.patient_id for c in splits[Split.TEST]] == ["p03", "p06"]
    assert split_patients([case(f"p{n:02d}") for n in range(10)], SplitConfig(seed=8))[Split.TEST] != splits[Split.TEST]
