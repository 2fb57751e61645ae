"""Findings in groups and volumes over time, as pages show them."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_portal.analysis.context import CaseContext
from gmmas_portal.web.cases import CaseRow
from gmmas_portal.web.findings import accuracy_rows, group_findings, headline, sequence_names
from gmmas_portal.web.timeline import HEIGHT, LEFT, WIDTH, TimePoint, draw_timeline
from gmmas_portal.web.upload_pages import _latest_day, context_of
from gmmas_schema.case_record import AbstainCode, Fact, FactStatus
from gmmas_schema.errors import DataError
from gmmas_schema.vocabulary import Modality, Subtype
from tests.gmmas_portal.sample_case import MEASURES, make_record


def point(day: date | None, volume_ml: float, *, told: bool = True) -> TimePoint:
    status = {} if told else {"status": FactStatus.ABSTAINED, "codes": (AbstainCode.QUALITY,)}
    fact = Fact(id="volume.wt", label="volume", value=volume_ml, unit="ml", source="segmentation", **status)
    row = CaseRow("k", "n", "p", "" if day is None else day.isoformat(), 0.0, "anna", False, {}, CaseContext(), 1)
    return TimePoint(row, make_record((fact, *(other for other in MEASURES if other.id not in ("volume.wt", "volume.tc", "volume.et")))))


def test_every_fact_is_in_one_group_and_what_is_open_has_no_value() -> None:
    record = make_record()
    rows = [row for group in group_findings(record) for row in group.rows]
    assert sorted(row.id for row in rows) == sorted(fact.id for fact in record.facts)
    by_id = {row.id: row for row in rows}
    assert (by_id["marker.mgmt"].value, by_id["marker.mgmt"].confidence) == ("", "")
    assert by_id["marker.mgmt"].reason == "confidence 0.61 is below 0.80"
    assert (by_id["marker.idh"].value, by_id["marker.idh"].confidence) == ("wildtype", "93 %")
    assert by_id["subtype.glioblastoma"].is_detail
    assert [row.id for row in headline(record)] == ["volume.wt", "volume.et", "location.side", "subtype.told"]


def test_accuracy_is_that_of_the_pattern_or_nothing() -> None:
    rows = accuracy_rows(make_record().accuracy)
    assert [(row.name, row.measure, row.value, row.interval, row.patients) for row in rows] == [
        ("Whole tumour", "Dice", "0.91", "0.88 – 0.93", "40"),
        ("IDH", "AUC", "0.94", "", "40"),
    ]
    assert accuracy_rows(None) == ()
    assert (sequence_names(()), sequence_names((Modality.T1CE, Modality.FLAIR))) == ("none", "T1ce, FLAIR")


@given(volumes=st.lists(st.floats(0, 900), min_size=2, max_size=8), gaps=st.lists(st.integers(0, 900), min_size=8, max_size=8))
def test_curves_lie_inside_the_drawing_and_in_the_order_of_days(volumes: list[float], gaps: list[int]) -> None:
    days = [date(2020, 1, 1) + timedelta(days=sum(gaps[:place])) for place in range(len(volumes))]
    drawing = draw_timeline([point(day, volume) for day, volume in zip(days, volumes, strict=True)][::-1])
    assert drawing is not None
    (curve,) = drawing.curves
    xs, ys = [mark.x for mark in curve.marks], [mark.y for mark in curve.marks]
    assert xs == sorted(xs)
    assert all(LEFT <= x <= WIDTH for x in xs)
    assert all(0 <= y <= HEIGHT for y in ys)
    assert 2 <= len(drawing.levels) <= 6
    highest = min(zip(ys, [mark.value for mark in curve.marks], strict=True))[1]
    assert highest == f"{max(volumes):.1f} ml"


def test_what_is_open_or_undated_is_not_drawn() -> None:
    first, second = date(2026, 1, 1), date(2026, 2, 1)
    assert draw_timeline([point(first, 3.0), point(None, 9.0)]) is None
    drawing = draw_timeline([point(first, 3.0), point(second, 900.0, told=False), point(second, 4.0)])
    assert drawing is not None
    assert [mark.value for mark in drawing.curves[0].marks] == ["3.0 ml", "4.0 ml"]


def test_what_is_entered_is_taken_as_it_is() -> None:
    form = {
        "age_years": "54",
        "post_operative": "no",
        "tissue_idh": "yes",
        "tissue_mgmt": "",
        "tissue_grade": "3",
        "scanned_on": "2026-03-31",
    }
    context, day = context_of(
        form | {"tissue_diagnosis": "astrocytoma", "tissue_codeletion": "no", "tissue_cdkn2a": "yes", "t2_flair_mismatch": "yes"}
    )
    assert (context.age_years, context.post_operative, day) == (54, False, "2026-03-31")
    tissue = context.tissue
    assert (context.t2_flair_mismatch, tissue.cdkn2a, tissue.necrosis) == (True, True, None)
    assert (tissue.idh, tissue.codeletion, tissue.mgmt, tissue.grade, tissue.diagnosis) == (True, False, None, 3, Subtype.ASTROCYTOMA)
    assert context_of({}) == (CaseContext(), "")
    assert context_of({"scanned_on": "20260331"}) == (CaseContext(), "2026-03-31"), "pages sort by it"


@pytest.mark.parametrize(
    "wrong", [{"age_years": "old"}, {"age_years": "-1"}, {"scanned_on": "31.3.2026"}, {"scanned_on": "2999-01-01"}, {"tissue_grade": "1"}]
)
def test_what_cannot_be_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(DataError):
        context_of(wrong)


def test_a_scan_of_this_morning_is_no_day_that_has_not_come() -> None:
    """The machine runs on UTC, and in Tokyo it is tomorrow."""
    assert _latest_day(datetime(2026, 3, 31, 23, tzinfo=UTC)) == date(2026, 4, 1)
    assert _latest_day(datetime(2026, 3, 31, 9, tzinfo=UTC)) == date(2026, 3, 31)
