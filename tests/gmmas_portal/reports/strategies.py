"""Records with any facts in any state, as no analysis would leave anything out or in."""

from typing import Any

from hypothesis import strategies as st

from gmmas_portal.evidence.diagnosis import MISMATCH
from gmmas_schema.case_record import AbstainCode, Abstention, CaseRecord, Fact, FactStatus
from gmmas_schema.vocabulary import MODALITIES
from tests.gmmas_portal.evidence.test_diagnosis import VALUES
from tests.gmmas_portal.sample_case import MEASURES, OPEN, PREDICTIONS, make_record

SECRET = "XyzzyValue"
"""Value of an abstained fact: stands in no report."""

_TEMPLATES = {fact.id: fact for fact in (*MEASURES, *PREDICTIONS, *OPEN)}
_WORDS = {
    "marker.idh": ["mutant", "wildtype"],
    "marker.codeletion": ["codeleted", "intact"],
    "marker.mgmt": ["methylated", "unmethylated"],
    "subtype.told": ["glioblastoma", "astrocytoma", "oligodendroglioma"],
    "location.side": ["left", "right", "bilateral", "midline"],
}
_CODES = st.sampled_from(sorted(AbstainCode))


@st.composite
def facts(draw: st.DrawFn) -> tuple[Fact, ...]:
    chosen = []
    for name, fact in _TEMPLATES.items():
        state = draw(st.sampled_from(["found", "abstained", "absent", "left out"]))
        value: Any = draw(st.sampled_from(_WORDS[name])) if name in _WORDS else fact.value
        shared = {"id": name, "label": fact.label, "unit": fact.unit, "source": fact.source}
        if state == "found":
            chosen.append(Fact(**shared, value=value, confidence=fact.confidence))
        elif state == "abstained":
            chosen.append(
                Fact(
                    **shared,
                    value=SECRET,
                    status=FactStatus.ABSTAINED,
                    codes=(draw(_CODES),),
                    reason=draw(st.sampled_from(["", "so it is"])),
                )
            )
        elif state == "absent":
            chosen.append(Fact(**shared, status=FactStatus.ABSENT, codes=(draw(_CODES),), reason="T1ce is missing"))
    for name in VALUES:
        if draw(st.booleans()):
            chosen.append(Fact(id=name, label=name, value=draw(st.sampled_from(VALUES[name])), source="clinician"))
    if draw(st.booleans()):
        chosen.append(Fact(id=MISMATCH, label="mismatch sign", value=draw(st.booleans()), source="clinician"))
    if draw(st.booleans()):
        chosen.append(Fact(id="quality.passed", label="images pass the checks", value=True, source="file"))
    return tuple(chosen)


@st.composite
def records(draw: st.DrawFn) -> CaseRecord:
    chosen = draw(facts())
    names = [fact.id for fact in chosen]
    codes = draw(st.lists(_CODES, max_size=3, unique=True))
    touched = st.lists(st.sampled_from(names), max_size=3, unique=True) if names else st.just([])
    abstentions = tuple(Abstention(code=code, reason=draw(st.sampled_from(["", "a reason"])), facts=tuple(draw(touched))) for code in codes)
    used = draw(st.lists(st.sampled_from(MODALITIES), min_size=1, unique=True))
    changes: dict[str, Any] = {
        "abstentions": abstentions,
        "modalities_used": used,
        "modalities_missing": [m for m in MODALITIES if m not in used],
    }
    if draw(st.booleans()):
        changes["accuracy"] = None
    return make_record(chosen, **changes)
