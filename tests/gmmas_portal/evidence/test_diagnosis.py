"""Results on tissue name a tumour as WHO CNS5 does, contradictions name none, and predictions never take part."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmmas_portal.evidence.diagnosis import TissueFinding, judge_tissue
from gmmas_schema.case_record import AbstainCode, Fact, FactStatus

VALUES: dict[str, list[Any]] = {
    "tissue.idh": ["mutant", "wildtype"],
    "tissue.codeletion": ["codeleted", "intact"],
    "tissue.grade": [2, 3, 4],
    "tissue.mgmt": ["methylated", "unmethylated"],
    "tissue.diagnosis": ["glioblastoma", "astrocytoma", "oligodendroglioma"],
    "tissue.necrosis": [True, False],
    "tissue.molecular": [True, False],
    "tissue.cdkn2a": [True, False],
    "tissue.h3": [True, False],
}
entered = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()})


def judge(**told: Any) -> TissueFinding:
    return judge_all({f"tissue.{name}": value for name, value in told.items()})


def judge_all(told: dict[str, Any], source: Any = "clinician") -> TissueFinding:
    return judge_tissue({name: Fact(id=name, label=name, value=value, source=source) for name, value in told.items()})


@pytest.mark.parametrize(
    ("told", "diagnosis", "grade"),
    [
        ({"idh": "mutant", "codeletion": "codeleted", "grade": 3}, "oligodendroglioma", 3),
        ({"idh": "mutant", "codeletion": "codeleted"}, "oligodendroglioma", None),
        ({"idh": "mutant", "codeletion": "intact", "grade": 2}, "astrocytoma", 2),
        ({"idh": "mutant", "codeletion": "intact", "cdkn2a": True}, "astrocytoma", 4),
        ({"idh": "mutant", "codeletion": "intact", "necrosis": True}, "astrocytoma", 4),
        ({"diagnosis": "astrocytoma", "cdkn2a": True}, "astrocytoma", 4),
        ({"idh": "mutant", "codeletion": "codeleted", "cdkn2a": True}, "oligodendroglioma", None),
        ({"idh": "wildtype", "h3": False, "necrosis": True}, "glioblastoma", 4),
        ({"idh": "wildtype", "h3": False, "molecular": True}, "glioblastoma", 4),
        ({"diagnosis": "glioblastoma", "idh": "wildtype"}, "glioblastoma", 4),
        ({"diagnosis": "astrocytoma", "grade": 3}, "astrocytoma", 3),
        ({"idh": "wildtype", "necrosis": True}, None, None),
        ({"idh": "wildtype", "h3": False}, None, None),
        ({"idh": "mutant"}, None, None),
        ({"idh": "wildtype", "h3": True, "necrosis": True}, None, None),
        ({}, None, None),
    ],
)
def test_results_amount_to_what_the_classification_says(told: dict[str, Any], diagnosis: str | None, grade: int | None) -> None:
    finding = judge(**told)
    assert (finding.diagnosis, finding.grade, finding.contradictions) == (diagnosis, grade, ())
    assert set(finding.facts) == {f"tissue.{name}" for name in told}


@pytest.mark.parametrize(
    ("told", "pair"),
    [
        ({"idh": "wildtype", "codeletion": "codeleted"}, ("tissue.idh", "tissue.codeletion")),
        ({"diagnosis": "oligodendroglioma", "codeletion": "intact"}, ("tissue.diagnosis", "tissue.codeletion")),
        ({"diagnosis": "oligodendroglioma", "idh": "wildtype"}, ("tissue.diagnosis", "tissue.idh")),
        ({"diagnosis": "glioblastoma", "idh": "mutant"}, ("tissue.diagnosis", "tissue.idh")),
        ({"diagnosis": "glioblastoma", "grade": 2}, ("tissue.diagnosis", "tissue.grade")),
        ({"diagnosis": "astrocytoma", "idh": "wildtype"}, ("tissue.diagnosis", "tissue.idh")),
        ({"diagnosis": "astrocytoma", "codeletion": "codeleted"}, ("tissue.diagnosis", "tissue.codeletion")),
        ({"idh": "mutant", "codeletion": "codeleted", "grade": 4}, ("tissue.codeletion", "tissue.grade")),
        ({"idh": "mutant", "codeletion": "intact", "grade": 2, "cdkn2a": True}, ("tissue.cdkn2a", "tissue.grade")),
        ({"idh": "mutant", "codeletion": "intact", "grade": 3, "necrosis": True}, ("tissue.necrosis", "tissue.grade")),
        ({"diagnosis": "astrocytoma", "grade": 3, "cdkn2a": True}, ("tissue.cdkn2a", "tissue.grade")),
        ({"diagnosis": "astrocytoma", "grade": 2, "necrosis": True}, ("tissue.necrosis", "tissue.grade")),
        ({"idh": "wildtype", "h3": False, "necrosis": True, "grade": 3}, ("tissue.idh", "tissue.grade")),
        ({"diagnosis": "glioblastoma", "h3": True}, ("tissue.diagnosis", "tissue.h3")),
    ],
)
def test_contradiction_names_no_tumour(told: dict[str, Any], pair: tuple[str, str]) -> None:
    finding = judge(**told)
    assert finding.diagnosis is None
    assert finding.grade is None
    assert pair in finding.contradictions


@given(entered)
def test_diagnosis_never_stands_beside_a_contradiction_and_fits_its_markers(told: dict[str, Any]) -> None:
    finding = judge_all(told)
    if finding.contradictions:
        assert finding.diagnosis is None
    if finding.diagnosis == "oligodendroglioma":
        assert told.get("tissue.idh") != "wildtype"
        assert told.get("tissue.codeletion") != "intact"
    if finding.diagnosis == "glioblastoma":
        assert told.get("tissue.idh") != "mutant"
        assert finding.grade == 4
    if finding.diagnosis == "oligodendroglioma":
        assert finding.grade in (None, 2, 3)
    if finding.diagnosis == "astrocytoma" and True in (told.get("tissue.cdkn2a"), told.get("tissue.necrosis")):
        assert finding.grade == 4
    assert set(finding.facts) <= set(told)


@given(entered)
def test_for_a_minor_no_tumour_is_derived_from_markers(told: dict[str, Any]) -> None:
    facts = {name: Fact(id=name, label=name, value=value, source="clinician") for name, value in told.items()}
    finding = judge_tissue(facts, is_minor=True)
    assert finding.diagnosis in (None, told.get("tissue.diagnosis"))
    assert finding.contradictions == judge_tissue(facts).contradictions


@given(entered)
def test_predictions_and_open_results_never_take_part(told: dict[str, Any]) -> None:
    assert judge_all(told, source="network") == TissueFinding()
    abstained = {
        name: Fact(id=name, label=name, value=value, source="clinician", status=FactStatus.ABSTAINED, codes=(AbstainCode.DISCORDANT,))
        for name, value in told.items()
    }
    assert judge_tissue(abstained) == TissueFinding()
