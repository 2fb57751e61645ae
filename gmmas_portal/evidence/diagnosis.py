"""What results on tissue amount to by WHO CNS5, and where they contradict each other.

    IDH mutant, 1p/19q codeleted                  oligodendroglioma, grade 2 or 3
    IDH mutant, 1p/19q intact                     astrocytoma, grade 2, 3 or 4 (4 with CDKN2A/B deletion or necrosis)
    IDH and H3 wildtype, and necrosis, vessels
    that proliferate, TERT, EGFR or +7/-10        glioblastoma, grade 4

Louis et al., "The 2021 WHO Classification of Tumors of the Central Nervous System: a summary", Neuro-Oncology 2021. Results that
contradict each other name no tumour. These are the types of adults: for a minor none is derived, for the same markers are other diseases
in children. What a network predicts from images never takes part.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gmmas_schema.case_record import Fact, FactStatus
from gmmas_schema.vocabulary import Subtype

IDH, CODELETION, GRADE, MGMT, NAMED = "tissue.idh", "tissue.codeletion", "tissue.grade", "tissue.mgmt", "tissue.diagnosis"
NECROSIS, MOLECULAR, CDKN2A, H3, MISMATCH = "tissue.necrosis", "tissue.molecular", "tissue.cdkn2a", "tissue.h3", "reading.t2_flair_mismatch"

FURTHER_LABELS: Final = {
    NECROSIS: "necrosis or microvascular proliferation on tissue",
    MOLECULAR: "TERT promoter mutation, EGFR amplification or +7/-10 on tissue",
    CDKN2A: "homozygous CDKN2A/B deletion on tissue",
    H3: "H3 alteration on tissue",
    MISMATCH: "T2-FLAIR mismatch sign, read by a radiologist",
}
"""Labels of results beyond the four markers and the diagnosis."""


@dataclass(frozen=True)
class TissueFinding:
    """What the results amount to.

    Attributes:
        diagnosis: None where results are missing or contradict each other.
        grade: as entered; 4 for every glioblastoma, and for an astrocytoma with CDKN2A/B deletion or necrosis; None where it is not known.
        facts: results that this rests on.
        contradictions: each a pair of facts that do not go together.
    """

    diagnosis: Subtype | None = None
    grade: int | None = None
    facts: tuple[str, ...] = ()
    contradictions: tuple[tuple[str, str], ...] = ()


def judge_tissue(facts: Mapping[str, Fact], *, is_minor: bool = False) -> TissueFinding:
    """Return what the entered results amount to.

    Args:
        facts: of a record, by id; a fact that is left open counts as not there.
        is_minor: the patient is under 18: a diagnosis is only what was entered as one.
    """
    told = {name: fact.value for name, fact in facts.items() if fact.status is FactStatus.FOUND and fact.source == "clinician"}
    grade = int(value) if isinstance(value := told.get(GRADE), int | float) and not isinstance(value, bool) else None
    named, derived = told.get(NAMED), None if is_minor else _derive(told)
    contradictions = _contradictions(told, grade)
    diagnosis = Subtype(str(named)) if named in set(Subtype) else derived
    rests_on = tuple(name for name in (NAMED, IDH, CODELETION, GRADE, NECROSIS, MOLECULAR, CDKN2A, H3, MGMT) if name in told)
    if contradictions or diagnosis is None or told.get(H3) is True:
        return TissueFinding(facts=rests_on, contradictions=contradictions)
    return TissueFinding(diagnosis, grade or _implied_grade(diagnosis, told), rests_on)


def _implied_grade(diagnosis: Subtype, told: Mapping[str, object]) -> int | None:
    """Return the grade that follows where none was entered; an oligodendroglioma has no grade 4, whatever else is found in it."""
    is_astrocytoma = diagnosis is Subtype.ASTROCYTOMA
    return 4 if diagnosis is Subtype.GLIOBLASTOMA or (is_astrocytoma and True in (told.get(CDKN2A), told.get(NECROSIS))) else None


def _derive(told: Mapping[str, object]) -> Subtype | None:
    """Return the tumour that the markers alone amount to."""
    if told.get(IDH) == "mutant":
        return {"codeleted": Subtype.OLIGODENDROGLIOMA, "intact": Subtype.ASTROCYTOMA}.get(str(told.get(CODELETION)))
    if told.get(IDH) == "wildtype" and told.get(H3) is False and True in (told.get(NECROSIS), told.get(MOLECULAR)):
        return Subtype.GLIOBLASTOMA
    return None


def _contradictions(told: Mapping[str, object], grade: int | None) -> tuple[tuple[str, str], ...]:
    """Return the pairs of results that do not go together."""
    mutant, wildtype = told.get(IDH) == "mutant", told.get(IDH) == "wildtype"
    codeleted, intact = told.get(CODELETION) == "codeleted", told.get(CODELETION) == "intact"
    named, low = told.get(NAMED), grade in (2, 3)
    astrocytoma = named == Subtype.ASTROCYTOMA or (mutant and intact)
    rules = (
        (wildtype and codeleted, (IDH, CODELETION)),
        (named == Subtype.OLIGODENDROGLIOMA and intact, (NAMED, CODELETION)),
        (named == Subtype.OLIGODENDROGLIOMA and wildtype, (NAMED, IDH)),
        (named == Subtype.GLIOBLASTOMA and mutant, (NAMED, IDH)),
        (named == Subtype.GLIOBLASTOMA and codeleted, (NAMED, CODELETION)),
        (named == Subtype.GLIOBLASTOMA and low, (NAMED, GRADE)),
        (named == Subtype.ASTROCYTOMA and wildtype, (NAMED, IDH)),
        (named == Subtype.ASTROCYTOMA and codeleted, (NAMED, CODELETION)),
        (named in set(Subtype) and told.get(H3) is True, (NAMED, H3)),
        (named == Subtype.OLIGODENDROGLIOMA and grade == 4, (NAMED, GRADE)),
        (mutant and codeleted and grade == 4, (CODELETION, GRADE)),
        (astrocytoma and low and told.get(CDKN2A) is True, (CDKN2A, GRADE)),
        (astrocytoma and low and told.get(NECROSIS) is True, (NECROSIS, GRADE)),
        (wildtype and low and True in (told.get(NECROSIS), told.get(MOLECULAR)), (IDH, GRADE)),
    )
    return tuple(pair for applies, pair in rules if applies)
