import pytest

from gmmas_portal.analysis import fact_ids as ids
from gmmas_portal.analysis.context import CaseContext, TissueResults
from gmmas_portal.analysis.molecular import entered_facts, predicted_facts, told_classes
from gmmas_schema.findings import UncertaintyFindings
from gmmas_schema.vocabulary import Region, Subtype, Task
from tests.gmmas_portal.analysis.predictions import ALL_FITTED, calibration, findings


@pytest.mark.parametrize(
    ("idh", "codeletion", "told", "words"),
    [
        (0.1, 0.05, Subtype.GLIOBLASTOMA, ("wildtype", "intact")),
        (0.9, 0.2, Subtype.ASTROCYTOMA, ("mutant", "intact")),
        (0.95, 0.8, Subtype.OLIGODENDROGLIOMA, ("mutant", "codeleted")),
    ],
)
def test_classes_and_subtype_are_those_of_the_probabilities(idh: float, codeletion: float, told: Subtype, words: tuple[str, str]) -> None:
    facts = {fact.id: fact for fact in predicted_facts(findings(idh=idh, codeletion=codeletion), ALL_FITTED)}
    assert (facts["marker.idh"].value, facts["marker.codeletion"].value) == words
    assert facts[ids.SUBTYPE].value == told
    assert facts["marker.idh"].confidence == pytest.approx(max(idh, 1 - idh))
    assert facts["marker.idh.p"].value == pytest.approx(idh)
    assert sum(facts[name].value for name in ids.SUBTYPE_PROBABILITIES.values()) == pytest.approx(1)


def test_a_head_that_was_not_calibrated_has_no_confidence() -> None:
    facts = {fact.id: fact for fact in predicted_facts(findings(), calibration(Task.IDH))}
    assert facts["marker.idh"].confidence is not None
    assert facts["marker.codeletion"].confidence is None
    assert facts[ids.SUBTYPE].confidence is None


def test_optional_heads_and_spreads_are_there_only_where_the_model_has_them() -> None:
    without = {fact.id for fact in predicted_facts(findings(), None)}
    assert not without & {"marker.grade", "marker.mgmt", "spread.idh", "spread.wt"}
    spread = UncertaintyFindings(region_std={Region.WT: 0.02}, probability_std={Task.IDH: 0.1, Task.CODELETION: 0.05, Task.MGMT: 0.2})
    found = findings(mgmt=0.7).model_copy(update={"uncertainty": spread})
    facts = {fact.id: fact for fact in predicted_facts(found, ALL_FITTED)}
    assert facts["marker.mgmt"].value == "methylated"
    assert (facts["spread.wt"].value, facts["spread.mgmt"].value) == (0.02, 0.2)
    assert "spread.et" not in facts


def test_told_classes_are_read_back() -> None:
    facts = {fact.id: fact for fact in predicted_facts(findings(idh=0.9, codeletion=0.2, grade=0.6), ALL_FITTED)}
    assert told_classes(facts) == {Task.IDH: True, Task.CODELETION: False, Task.GRADE: True}


def test_what_was_entered_is_a_fact_of_the_clinician_and_nothing_else_is() -> None:
    assert entered_facts(CaseContext()) == ()
    tissue = TissueResults(idh=False, grade=4, diagnosis=Subtype.GLIOBLASTOMA, necrosis=True, h3=False)
    context = CaseContext(age_years=54, post_operative=False, tissue=tissue, t2_flair_mismatch=False)
    facts = {fact.id: fact for fact in entered_facts(context)}
    assert {fact.source for fact in facts.values()} == {"clinician"}
    assert {name: fact.value for name, fact in facts.items()} == {
        ids.AGE: 54,
        ids.POST_OPERATIVE: False,
        "tissue.idh": "wildtype",
        "tissue.grade": 4,
        ids.TISSUE_DIAGNOSIS: "glioblastoma",
        "tissue.necrosis": True,
        "tissue.h3": False,
        "reading.t2_flair_mismatch": False,
    }
