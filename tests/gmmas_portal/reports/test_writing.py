"""Every sentence of every report rests on a fact or on evidence that is in it; what is open stays open; patients read no forecast."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gmmas_portal.evidence.library import read_library
from gmmas_portal.reports.report import PLACEHOLDER, Audience, Report, Section, Sentence, Wording
from gmmas_portal.reports.wording import fill
from gmmas_portal.reports.writing import write_report
from gmmas_schema.case_record import AbstainCode, Abstention, CaseRecord, Fact, FactStatus
from tests.gmmas_portal.reports.strategies import SECRET, records
from tests.gmmas_portal.sample_case import MEASURES, ON, OPEN, PREDICTIONS, TISSUE, make_record, measured, sample_report

audiences = st.sampled_from(list(Audience))
NEVER = ("progression of", "progressive disease", "you should", "must be treated", "is cured", "RANO")


def text_of(report: Report) -> str:
    return " ".join(sentence.text for sentence in report.sentences)


@settings(max_examples=120)
@given(records(), audiences, st.sampled_from([None, "hidden", "shown"]))
def test_every_sentence_rests_on_what_the_report_holds(record: CaseRecord, audience: Audience, survival: str | None) -> None:
    report = write_report(record, audience=audience, on=ON, survival=survival)  # type: ignore[arg-type]
    facts, cited = {fact.id: fact for fact in report.facts}, {citation.evidence for citation in report.citations}
    entries = read_library().by_id()
    for sentence in report.sentences:
        assert sentence.facts or sentence.evidence
        assert set(sentence.facts) <= set(facts)
        assert set(sentence.evidence) <= cited
        assert set(PLACEHOLDER.findall(sentence.template)) <= {*sentence.facts, *sentence.evidence}
        assert not re.search(r"\d", PLACEHOLDER.sub("", sentence.template)), "a figure outside a placeholder"
        assert sentence.text == fill(sentence.template, facts=facts, evidence=entries, audience=audience)
        assert sentence.text.endswith(".")
    assert SECRET not in text_of(report)
    assert not any(phrase in text_of(report) for phrase in NEVER)
    if report.survival == "hidden":
        assert not any(entries[name].survival for name in cited)
    assert Report.model_validate_json(report.model_dump_json()) == report


@settings(max_examples=60)
@given(records())
def test_clinician_reads_of_every_fact_that_may_be_told_and_of_every_open_one(record: CaseRecord) -> None:
    report = write_report(record, audience=Audience.CLINICIAN, on=ON)
    told = {name for sentence in report.sentences for name in sentence.facts}
    expected = {
        fact.id
        for fact in record.facts
        if not fact.id.endswith(".p") and fact.id not in ("subtype.told", "subtype.glioblastoma", "tissue.diagnosis")
    }
    assert expected <= told


@settings(max_examples=60)
@given(records())
def test_patient_reads_no_predicted_marker(record: CaseRecord) -> None:
    report = write_report(record, audience=Audience.PATIENT, on=ON)
    placed = {name for sentence in report.sentences for name in PLACEHOLDER.findall(sentence.template)}
    assert not {name for name in placed if name.startswith(("marker.", "subtype.", "spread.", "ood."))}
    assert report.survival == "hidden"


def test_values_stand_behind_their_labels() -> None:
    text = text_of(sample_report())
    assert "a whole-tumour volume of 31.4 ml, a tumour-core volume of 12.0 ml and an enhancing-tumour volume of 8.3 ml." in text
    assert "lies on the left, mainly in the left frontal lobe (atlas-estimated) and without clearly crossing the midline." in text
    assert "the network predicts IDH wildtype (calibrated probability 93 %)." in text
    assert "This question is left open: MGMT promoter status by imaging; confidence 0.61 is below 0.80." in text
    assert "The imaging pattern is consistent with glioblastoma (calibrated probability 90 %); tissue is required." in text
    assert "median overall survival was 14.6 months with radiotherapy and temozolomide and 12.1 months with radiotherapy alone" in text
    assert "Not available: T2." in text
    assert "a Dice overlap of the whole tumour of 0.91 (95 % interval 0.88 to 0.93, 40 patients)" in text


def test_patient_version_is_plain() -> None:
    report = sample_report(Audience.PATIENT)
    text = text_of(report)
    assert "measured 31.4 millilitres for the whole area that looks changed." in text
    assert "Your tissue was examined" in text
    assert "probability" not in text
    assert max(len(sentence.text.split()) for sentence in report.sentences) <= 32


def test_survival_is_shown_to_a_patient_only_on_request() -> None:
    hidden, shown = sample_report(Audience.PATIENT), sample_report(Audience.PATIENT, survival="shown")
    assert "survival" not in text_of(hidden)
    assert "overall survival was" in text_of(shown)
    assert any(sentence.id == "evidence.groups" for sentence in shown.sentences)


def test_without_tissue_the_report_says_that_tissue_is_required() -> None:
    report = write_report(make_record((*MEASURES, *PREDICTIONS)), audience=Audience.CLINICIAN, on=ON)
    assert not report.of_section(Section.TISSUE)
    assert {citation.evidence for citation in report.citations} == {"evidence.who_cns5_tissue"}
    assert "tissue is required" in text_of(report)


def test_predictions_that_contradict_each_other_name_no_pattern() -> None:
    discordant = measured("marker.codeletion", "1p/19q status", "codeleted", source="network", confidence=0.9)
    facts = [fact for fact in PREDICTIONS if fact.id != "marker.codeletion"]
    report = write_report(make_record((*MEASURES, *facts, discordant)), audience=Audience.CLINICIAN, on=ON)
    assert "The imaging pattern" not in text_of(report)
    assert "No pattern is named" in text_of(report)


def test_results_on_tissue_that_contradict_each_other_name_no_tumour_and_call_no_evidence() -> None:
    discordant = [fact for fact in TISSUE if fact.id != "tissue.codeletion"] + [
        measured("tissue.codeletion", "1p/19q", "codeleted", source="clinician")
    ]
    for audience in Audience:
        report = write_report(make_record((*MEASURES, *discordant)), audience=audience, on=ON)
        assert not report.of_section(Section.EVIDENCE)
        assert not report.citations
        assert any(sentence.id.startswith("tissue.contradiction") for sentence in report.sentences)
        assert "glioblastoma" not in text_of(report)


def test_tissue_decides_where_it_differs_from_the_prediction() -> None:
    mutant = [
        measured("tissue.idh", "IDH on tissue", "mutant", source="clinician"),
        measured("tissue.codeletion", "1p/19q on tissue", "intact", source="clinician"),
    ]
    report = write_report(make_record((*PREDICTIONS, *mutant)), audience=Audience.CLINICIAN, on=ON)
    assert "predicts IDH wildtype (calibrated probability 93 %), tissue shows an IDH mutation, and tissue decides." in text_of(report)


def test_minor_gets_no_evidence_about_adults() -> None:
    minor = (Abstention(code=AbstainCode.MINOR, reason="the patient is under 18", facts=()),)
    report = write_report(make_record((*MEASURES, *TISSUE), abstentions=minor), audience=Audience.CLINICIAN, on=ON)
    assert not report.citations
    assert "the patient is under 18" in text_of(report)


def changed(fact_id: str, value: object) -> list[Fact]:
    return [fact.model_copy(update={"value": value}) if fact.id == fact_id else fact for fact in MEASURES]


EMPTY = [
    fact.model_copy(update={"value": 0 if fact.id.startswith("foci.") else 0.0})
    for fact in MEASURES
    if fact.id.startswith(("volume.", "share.", "foci."))
]


def test_empty_outline_is_told_as_none_and_as_no_exclusion() -> None:
    record = make_record((*EMPTY, *OPEN))
    clinician, patient = (text_of(write_report(record, audience=audience, on=ON)) for audience in Audience)
    assert "No tumour is outlined, and this does not exclude a tumour: a whole-tumour volume of 0.0 ml" in clinician
    assert "measured on the outlined tumour" not in clinician
    assert "a computer program outlined no area, and this does not mean that nothing is there" in patient
    for claim in ("outlined an area", "the core", "kind of tumour", "what it is"):
        assert claim not in patient


def test_outline_too_small_to_count_is_not_called_none_where_it_is_measured() -> None:
    little = [fact for fact in EMPTY if fact.id != "volume.wt"]
    little += [measured("volume.wt", "volume of the whole tumour", 0.06, "ml"), measured("location.side", "side of the tumour", "left")]
    clinician, patient = (text_of(write_report(make_record(little), audience=audience, on=ON)) for audience in Audience)
    assert "No tumour large enough to count is outlined, and this does not exclude a tumour: a whole-tumour volume of 0.1 ml" in clinician
    assert "What is outlined lies on the left." in clinician
    assert "The outlined tumour" not in clinician
    assert "outlined no area large enough to count, and this does not mean that nothing is there" in patient


def test_program_is_not_said_to_have_outlined_what_a_person_did() -> None:
    corrected = make_record().segmentation.model_copy(update={"version": 2, "author": "a person", "based_on": 1})
    for facts, opening in ((MEASURES, "an area was outlined, and a computer program measured"), (EMPTY, "no area was outlined, and this")):
        patient = text_of(write_report(make_record(facts, segmentation=corrected), audience=Audience.PATIENT, on=ON))
        assert f"On your pictures, {opening}" in patient
        assert "program outlined" not in patient


@pytest.mark.parametrize("name", ["volume.et", "volume.oedema", "volume.necrosis", "diameter.wt.longest"])
def test_patient_reads_who_measured_where_the_whole_was_not(name: str) -> None:
    alone = [fact for fact in MEASURES if fact.id == name]
    text = write_report(make_record(alone), audience=Audience.PATIENT, on=ON).of_section(Section.SIZE)[0].text
    assert "a computer program" in text.lower()
    assert "Of this" not in text


def test_share_of_the_brain_is_not_told_of_the_sentence_before() -> None:
    patient = text_of(sample_report(Audience.PATIENT))
    assert "The whole area that looks changed makes up 2.2 percent of the brain." in patient


def test_entered_diagnosis_that_does_not_fit_is_told_as_entered() -> None:
    named = measured("tissue.diagnosis", "diagnosis on tissue", "glioblastoma", source="clinician")
    grade = measured("tissue.grade", "WHO grade on tissue", 2, source="clinician")
    text = text_of(write_report(make_record((named, grade)), audience=Audience.CLINICIAN, on=ON))
    assert "for the entered diagnosis and a result do not fit together: glioblastoma and WHO grade 2." in text


def test_patient_reads_of_oedema_around_a_core_only_where_there_is_a_core() -> None:
    patient = text_of(write_report(make_record(changed("volume.tc", 0.0)), audience=Audience.PATIENT, on=ON))
    assert "core it measured" not in patient
    assert "outlined an area" in patient


def test_of_several_parts_the_diameters_are_said_to_be_those_of_the_largest() -> None:
    several, single = make_record(changed("foci.wt", 3)), make_record((*changed("foci.et", 1), *PREDICTIONS))
    assert "Each diameter is that of the largest part." in text_of(write_report(several, audience=Audience.CLINICIAN, on=ON))
    assert "Each diameter is" not in text_of(write_report(single, audience=Audience.CLINICIAN, on=ON))
    patient = text_of(write_report(several, audience=Audience.PATIENT, on=ON))
    assert "The area is made of 3 separate places, and the length is that of the largest." in patient
    assert "separate places" not in text_of(write_report(single, audience=Audience.PATIENT, on=ON))


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [("tissue.diagnosis", "oligodendroglioma", "oligodendroglioma"), ("tissue.h3", True, "an H3 alteration")],
    ids=["another type", "an alteration of H3"],
)
def test_tissue_that_excludes_the_predicted_subtype_decides(name: str, value: object, shown: str) -> None:
    told = Fact(id=name, label="on tissue", value=value, source="clinician")
    text = text_of(write_report(make_record((*PREDICTIONS, told)), audience=Audience.CLINICIAN, on=ON))
    assert f"predicts glioblastoma (calibrated probability 90 %), tissue shows {shown}, and tissue decides." in text
    assert "The imaging pattern is consistent" not in text


def test_entered_diagnosis_is_not_said_to_follow_from_results() -> None:
    named = measured("tissue.diagnosis", "diagnosis on tissue", "glioblastoma", source="clinician")
    for facts in ((named,), (named, *TISSUE)):
        clinician, patient = (text_of(write_report(make_record(facts), audience=audience, on=ON)) for audience in Audience)
        assert "The following diagnosis was entered: glioblastoma." in clinician
        assert "Taken together" not in clinician
        assert "and the result is glioblastoma." in patient
    derived = text_of(sample_report(Audience.PATIENT))
    assert "and together the results correspond to glioblastoma." in derived


def test_patient_with_tissue_results_that_name_no_tumour_is_told_who_can_explain_them() -> None:
    report = write_report(make_record((*MEASURES, *PREDICTIONS, TISSUE[2])), audience=Audience.PATIENT, on=ON)
    assert [sentence.text for sentence in report.of_section(Section.TISSUE)] == [
        "Your care team can explain what was found in your tissue."
    ]


def test_without_tissue_nothing_stands_under_what_the_tissue_showed() -> None:
    report = write_report(make_record((*MEASURES, *PREDICTIONS)), audience=Audience.PATIENT, on=ON)
    assert not report.of_section(Section.TISSUE)
    assert report.citations


def test_one_open_question_is_one() -> None:
    record = make_record(
        [MEASURES[0].model_copy(update={"status": FactStatus.ABSTAINED, "codes": (AbstainCode.QUALITY,), "reason": "a reason"})]
    )
    text = text_of(write_report(record, audience=Audience.PATIENT, on=ON))
    assert "This question is left open: size of the whole area that looks changed." in text


def test_minor_is_named_no_tumour_of_adults() -> None:
    minor = (Abstention(code=AbstainCode.MINOR, reason="the patient is under 18", facts=()),)
    for audience in Audience:
        text = text_of(write_report(make_record((*MEASURES, *TISSUE), abstentions=minor), audience=audience, on=ON))
        assert "glioblastoma" not in text


def test_citations_are_numbered_as_they_are_first_cited() -> None:
    report = sample_report()
    first = list(dict.fromkeys(name for sentence in report.sentences for name in sentence.evidence))
    assert [citation.evidence for citation in report.citations] == first
    assert [citation.number for citation in report.citations] == list(range(1, len(first) + 1))


def test_report_tells_where_it_comes_from() -> None:
    record = make_record()
    report = sample_report()
    assert (report.model, report.segmentation, report.notice) == (record.model, record.segmentation, record.notice)
    assert (report.record_sha256, report.evidence_sha256) == (record.digest(), read_library().digest())
    assert report.wording is Wording.TEMPLATE
    assert report.modalities_missing == record.modalities_missing


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"facts": (), "evidence": ()}, "rests on a fact or on evidence"),
        ({"template": "It measures {{volume.tc}}."}, "not among its facts"),
        ({"text": "It measures {{volume.wt}}."}, "placeholder left"),
    ],
)
def test_sentence_without_ground_cannot_be_made(changes: dict[str, object], complaint: str) -> None:
    values = {
        "id": "a.b",
        "section": Section.SIZE,
        "template": "It measures {{volume.wt}}.",
        "text": "It measures x.",
        "facts": ("volume.wt",),
    }
    with pytest.raises(ValueError, match=complaint):
        Sentence.model_validate(values | changes)


def test_report_cannot_rest_on_what_it_does_not_hold() -> None:
    report = sample_report()
    without = tuple(fact for fact in report.facts if fact.id != "volume.wt")
    with pytest.raises(ValueError, match=r"measures\.volumes rests on what is not in the report: volume\.wt"):
        Report.model_validate(report.model_dump() | {"facts": without})


def test_absent_measures_are_told_as_such() -> None:
    absent = measured("volume.et", "volume of the enhancing tumour", 1.0).model_copy(
        update={"value": None, "status": FactStatus.ABSENT, "codes": (AbstainCode.NEEDS_SEQUENCE,), "reason": "T1ce is missing"}
    )
    report = write_report(make_record((absent,)), audience=Audience.CLINICIAN, on=ON)
    assert "The following was not measured: volume of the enhancing tumour; T1ce is missing." in text_of(report)
