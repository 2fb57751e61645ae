import io

import pytest
from rich.console import Console

from gmmas_cli.calibration_report import FIT, TEST, calibration_table, summarise_calibration
from gmmas_schema.calibration import BINS, Abstention, Calibration, HeadCalibration, Reliability, ReliabilityPair
from gmmas_schema.vocabulary import Region, Task


def reliability(patients: float, *, confidence: float, right: float) -> Reliability:
    last = lambda value: (0.0,) * (BINS - 1) + (value,)  # noqa: E731
    return Reliability(patients=last(patients), confidence=last(patients * confidence), correct=last(patients * right))


def pair(patients: float, before: float, after: float) -> ReliabilityPair:
    return ReliabilityPair(
        before=reliability(patients, confidence=1.0, right=1 - before), after=reliability(patients, confidence=1.0, right=1 - after)
    )


CALIBRATION = Calibration(
    weights_sha256="0" * 64,
    heads={
        Region.WT: HeadCalibration(
            temperature=2.5,
            fitted=True,
            patients=12,
            nll_before=0.5,
            nll_after=0.3,
            reliability=pair(12, 0.1, 0.02),
            test=pair(8, 0.2, 0.03),
        ),
        Task.CODELETION: HeadCalibration(note="not fitted: 4 labelled patients, fewer than 10", abstention=Abstention(note="no threshold")),
    },
)


def shown(heads) -> str:
    console = Console(width=220, record=True, file=io.StringIO())
    console.print(calibration_table(heads, title="t"))
    return console.export_text()


def test_errors_stand_by_whose_patients_they_are() -> None:
    heads = summarise_calibration(CALIBRATION, {"unseen": {Region.WT: pair(5, 0.3, 0.1), Task.MGMT: pair(5, 0.4, 0.4)}})
    assert list(heads) == [Region.WT, Task.CODELETION, Task.MGMT]
    assert list(heads[Region.WT].error) == [FIT, TEST, "unseen"]
    assert heads[Region.WT].error[TEST].after == pytest.approx(0.03)
    assert (heads[Region.WT].error["unseen"].patients, heads[Region.WT].error["unseen"].before) == (5, pytest.approx(0.3))
    assert heads[Task.CODELETION].note.startswith("not fitted: 4")
    assert heads[Task.MGMT].temperature is None
    text = shown(heads)
    assert "0.200→0.030 (8)" in text
    assert "0.400 (5)" in text
    row = next(line for line in text.splitlines() if "1p/19q" in line)
    assert "not fitted" in row
    assert "1p/19q is never left open: no threshold" in text


def test_an_uncalibrated_model_has_errors_and_no_temperature() -> None:
    heads = summarise_calibration(None, {"this cohort": {Region.ET: pair(5, 0.3, 0.3)}})
    assert "left open" not in shown(heads)
    assert [(head, found.temperature) for head, found in heads.items()] == [(Region.ET, None)]
