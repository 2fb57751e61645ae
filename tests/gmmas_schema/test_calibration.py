import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gmmas_schema.calibration import (
    BINS,
    TEMPERATURES,
    Abstention,
    Calibration,
    CalibrationQuery,
    HeadCalibration,
    Reliability,
    bin_edges,
)
from gmmas_schema.vocabulary import Region, Task

sums = st.lists(st.floats(0, 1e6), min_size=BINS, max_size=BINS).map(tuple)
reliabilities = st.builds(Reliability, patients=sums, confidence=sums, correct=sums)


def test_the_grid_goes_from_an_eighth_to_eight_through_one() -> None:
    assert len(TEMPERATURES) == 41
    assert (TEMPERATURES[0], TEMPERATURES[20], TEMPERATURES[-1]) == (0.125, 1.0, 8.0)
    assert bin_edges()[0] == 0.5
    assert bin_edges()[-1] == 1.0


def test_expected_calibration_error_of_two_bins() -> None:
    """6 patients at .6 of whom 3 are right, 4 at .9 of whom 4 are: (|3.6 - 3| + |3.6 - 4|) / 10."""
    bins = [[0.0] * BINS for _ in range(3)]
    for place, values in ((3, (6.0, 3.6, 3.0)), (12, (4.0, 3.6, 4.0))):
        for row, value in zip(bins, values, strict=True):
            row[place] = value
    assert Reliability(patients=bins[0], confidence=bins[1], correct=bins[2]).ece == pytest.approx(0.1)
    assert Reliability().ece is None


@given(st.lists(reliabilities, min_size=1, max_size=5), st.randoms())
def test_the_sum_does_not_depend_on_the_order(parts, random) -> None:
    shuffled = list(parts)
    random.shuffle(shuffled)
    assert Reliability.merge(parts) == Reliability.merge(shuffled)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0])
def test_sums_are_finite_and_not_negative(bad) -> None:
    with pytest.raises(ValidationError):
        Reliability(patients=(bad, *[0.0] * (BINS - 1)))


def test_a_query_survives_json_and_names_no_segmentation() -> None:
    query = CalibrationQuery(grid=TEMPERATURES, temperatures={Region.WT: 2.0, Task.MGMT: 0.5})
    again = CalibrationQuery.model_validate_json(query.model_dump_json())
    assert again == query
    assert [type(head) for head in again.temperatures] == [Region, Task]
    with pytest.raises(ValidationError):
        CalibrationQuery(temperatures={Task.SEGMENTATION: 1.0})


def test_a_calibration_survives_json_and_a_region_does_not_abstain() -> None:
    heads = {Region.ET: HeadCalibration(temperature=1.5, fitted=True, patients=12), Task.IDH: HeadCalibration(abstention=Abstention())}
    calibration = Calibration(weights_sha256="0" * 64, heads=heads)
    assert Calibration.model_validate_json(calibration.model_dump_json()) == calibration
    assert calibration.temperatures == {Region.ET: 1.5, Task.IDH: 1.0}
    with pytest.raises(ValidationError):
        Calibration(weights_sha256="0" * 64, heads={Region.ET: HeadCalibration(abstention=Abstention())})
