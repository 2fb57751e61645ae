"""A report in other words: values stay, what is refused keeps its template and is marked, and nothing of the patient is sent."""

import hashlib
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gmmas_portal.language.endpoint import Verdict
from gmmas_portal.language.rewriting import rewrite_report
from gmmas_portal.reports.report import Audience, Report, Wording
from gmmas_portal.reports.writing import write_report
from gmmas_schema.case_record import AbstainCode, Abstention, FactStatus, RecordSegmentation
from tests.gmmas_portal.language.fake_model import FakeModel, as_given
from tests.gmmas_portal.sample_case import MEASURES, ON, OPEN, PSEUDONYM, make_record, measured, sample_report

REPORT = sample_report()
GOOD = "The measured volumes are {{volume.wt}}, {{volume.tc}} and {{volume.et}}."
BAD = "The tumour has grown: {{volume.wt}}, {{volume.tc}} and {{volume.et}}."


def with_volumes(text: str) -> str:
    return as_given(REPORT.sentences, measures__volumes={"text": text})


def test_accepted_wording_carries_the_values(fake_model: FakeModel) -> None:
    fake_model.answer(with_volumes(GOOD))
    report = rewrite_report(REPORT, fake_model.endpoint(), on_call=fake_model.calls.append)
    sentence = report.of_section(REPORT.sentences[0].section)[0]
    assert sentence.text == (
        "The measured volumes are a whole-tumour volume of 31.4 ml, a tumour-core volume of 12.0 ml"
        " and an enhancing-tumour volume of 8.3 ml."
    )
    assert (report.wording, report.worded_by) == (Wording.LANGUAGE_MODEL, "fake")
    assert (sentence.facts, sentence.evidence) == (REPORT.sentences[0].facts, REPORT.sentences[0].evidence)
    assert report.sentences[1:] == REPORT.sentences[1:]
    assert report.facts == REPORT.facts


def test_second_try_is_told_the_reasons(fake_model: FakeModel) -> None:
    fake_model.answer(with_volumes(BAD), with_volumes(GOOD))
    report = rewrite_report(REPORT, fake_model.endpoint(), on_call=fake_model.calls.append)
    assert report.wording is Wording.LANGUAGE_MODEL
    assert [call.verdict for call in fake_model.calls] == [Verdict.PARTLY, Verdict.ACCEPTED]
    last = fake_model.requests[1]["messages"][-1]["content"]
    assert "s1: do not use the word 'grown'" in last


def test_refused_sentence_keeps_its_template_while_others_are_taken(fake_model: FakeModel) -> None:
    fake_model.answer(
        as_given(
            REPORT.sentences,
            measures__volumes={"text": BAD},
            measures__parts={"text": "The parts are {{volume.oedema}} and {{volume.necrosis}}."},
        )
    )
    report = rewrite_report(REPORT, fake_model.endpoint(), on_call=fake_model.calls.append)
    assert report.sentences[0] == REPORT.sentences[0]
    assert report.sentences[1].text.startswith("The parts are ")
    assert fake_model.calls[-1].verdict is Verdict.PARTLY


def test_markup_makes_the_whole_answer_untrustworthy(fake_model: FakeModel) -> None:
    fake_model.answer(
        as_given(REPORT.sentences, measures__volumes={"text": GOOD}, measures__share={"text": "The record gives <b>{{share.wt}}</b>."})
    )
    report = rewrite_report(REPORT, fake_model.endpoint(), on_call=fake_model.calls.append)
    assert report.sentences == REPORT.sentences
    assert report.wording is Wording.TEMPLATE_AFTER_REFUSAL


def assert_refused(report: Report, of: str, text: str, fake_model: FakeModel) -> None:
    """A model answers with this text for one sentence, and the report keeps its own."""
    assert of in {sentence.id for sentence in report.sentences}
    fake_model.answer(as_given(report.sentences, **{of.replace(".", "__"): {"text": text}}))
    assert rewrite_report(report, fake_model.endpoint(), on_call=fake_model.calls.append).sentences == report.sentences


PATIENT_ATTACKS = [
    ("measures.volumes", "On your pictures, a computer program outlined a cancer and measured: {{volume.wt}}."),
    ("measures.volumes", "On your pictures, a computer program outlined an area that will grow and measured: {{volume.wt}}."),
    ("measures.volumes", "Do not worry: on your pictures, a computer program outlined an area and measured: {{volume.wt}}."),
    ("measures.diameters", "It also measured how far the area reaches, which is very far: {{diameter.wt.longest}}."),
    ("location.place", "The area lies here, on the other side: {{location.side}}, {{location.lobe_1}} and {{midline.crossing}}."),
    ("tissue.diagnosis", "Your tissue was examined, and the result is not: {{tissue.diagnosis}}."),
    ("tissue.diagnosis", "Your tissue was examined, and the result is benign: {{tissue.diagnosis}}."),
    ("tissue.diagnosis", "The result is: {{tissue.diagnosis}}."),
    ("evidence.mohile_2022_glioblastoma", "For you, {{evidence.mohile_2022_glioblastoma}}."),
    ("evidence.mohile_2022_glioblastoma", "In general, you need {{evidence.mohile_2022_glioblastoma}}."),
    ("evidence.team", "Guidelines are general; what fits you is for your care team to decide and for you to follow."),
    ("evidence.team", "Guidelines decide what fits you and your care team."),
    ("open.reasons", "Your care team can explain what is left open and why you are ill."),
    ("model.origin", "This report was made with research software and does replace your doctor: {{model.name}}."),
    ("model.origin", "This report replaces your doctor: {{model.name}}."),
    ("sequences.accuracy", "The program was tested with exactly these kinds of pictures and is always right."),
    ("sequences.accuracy", "The program measured exactly, tested with these kinds of pictures."),
    ("sequences.accuracy", "The program is used with exactly these kinds of pictures."),
    ("sequences.missing", "Some kinds of pictures were found: {{sequences.missing}}."),
    ("sequences.missing", "Missing kinds of pictures were used: {{sequences.missing}}."),
    ("measures.volumes", "On your pictures there is an area: {{volume.wt}}."),
    ("measures.diameters", "We also measured how far the area reaches: {{diameter.wt.longest}}."),
    ("tissue.results", "Also found: {{tissue.idh}}, {{tissue.codeletion}} and {{tissue.mgmt}}."),
    ("tissue.diagnosis", "Your tissue was examined, and on it the result is: {{tissue.diagnosis}}."),
    ("model.origin", "This report was made with research software and does not here, but replace your doctor: {{model.name}}."),
    ("evidence.team", "Guidelines are general; what fits you is for you as your care team to decide."),
]


@pytest.mark.parametrize(("of", "text"), PATIENT_ATTACKS)
def test_attack_does_not_reach_the_patients_version(of: str, text: str, fake_model: FakeModel) -> None:
    assert_refused(sample_report(Audience.PATIENT), of, text, fake_model)


OTHER_ATTACKS = [
    (Audience.CLINICIAN, "open.reason.r3", "As to the record: {{reason.r3}}."),
    (Audience.CLINICIAN, "sequences.accuracy", "How well the model does is not here but known: {{accuracy.measured}}."),
    (Audience.CLINICIAN, "absent.volume.et", "It was not this but measured: {{volume.et}}; {{reason.r2}}."),
    (
        Audience.CLINICIAN,
        "tissue.contradiction_0",
        "No tumour type is named, for the results do not but fit together: {{tissue.idh}} and {{tissue.codeletion}}.",
    ),
    (Audience.PATIENT, "sequences.accuracy", "The program has not been here but tested with exactly these kinds of pictures."),
    (Audience.PATIENT, "outline.origin", "A member of your care team has the outline: {{outline.version}}."),
    (Audience.PATIENT, "outline.origin", "Your care team has a corrected member of the outline: {{outline.version}}."),
    (
        Audience.PATIENT,
        "tissue.contradiction",
        "The results from your tissue need this, and another look before the kind of tumour can be named.",
    ),
]


@pytest.mark.parametrize(("audience", "of", "text"), OTHER_ATTACKS)
def test_attack_on_a_sentence_that_few_reports_have_does_not_reach_it(
    audience: Audience, of: str, text: str, fake_model: FakeModel
) -> None:
    absent = MEASURES[2].model_copy(
        update={"value": None, "status": FactStatus.ABSENT, "codes": (AbstainCode.NEEDS_SEQUENCE,), "reason": "T1ce is missing"}
    )
    discordant = [
        measured("tissue.idh", "IDH on tissue", "wildtype", source="clinician"),
        measured("tissue.codeletion", "1p/19q on tissue", "codeleted", source="clinician"),
    ]
    record = make_record(
        (*MEASURES[:2], absent, *OPEN, *discordant),
        accuracy=None,
        abstentions=(Abstention(code=AbstainCode.QUALITY, reason="an image is blurred", facts=()),),
        segmentation=RecordSegmentation(version=2, author="corrector", sha256="c" * 64, based_on=1),
    )
    assert_refused(write_report(record, audience=audience, on=ON), of, text, fake_model)
    assert fake_model.calls[-1].faults


def test_answer_in_a_code_fence_is_read(fake_model: FakeModel) -> None:
    fake_model.answer(f"```json\n{with_volumes(GOOD)}\n```")
    assert rewrite_report(REPORT, fake_model.endpoint(), on_call=fake_model.calls.append).wording is Wording.LANGUAGE_MODEL


@pytest.mark.parametrize("audience", list(Audience))
def test_no_value_no_pseudonym_and_no_date_is_sent(audience: Audience, fake_model: FakeModel) -> None:
    report = sample_report(audience)
    fake_model.answer(as_given(report.sentences))
    rewrite_report(report, fake_model.endpoint(), on_call=fake_model.calls.append)
    sent = json.dumps(fake_model.requests[0]["messages"][1])
    assert PSEUDONYM not in sent
    assert report.made_at[:10] not in sent
    for fact in report.facts:
        value = fact.value_text()
        assert len(value) < 4 or value in ("left", "none") or value not in sent
    assert "14.6" not in sent


def test_calls_are_recorded_by_hash(fake_model: FakeModel) -> None:
    answer = with_volumes(GOOD)
    fake_model.answer(answer)
    endpoint = fake_model.endpoint()
    rewrite_report(REPORT, endpoint, on_call=fake_model.calls.append)
    [call] = fake_model.calls
    assert call.prompt_sha256 == hashlib.sha256(endpoint.body(fake_model.requests[0]["messages"])).hexdigest()
    assert call.answer_sha256 == hashlib.sha256(answer.encode()).hexdigest()
    assert (call.purpose, call.model, call.attempt, call.verdict, call.faults) == ("report", "fake", 1, Verdict.ACCEPTED, ())
    assert 0 < call.seconds < 10


def test_server_that_fails_leaves_the_template_marked(fake_model: FakeModel) -> None:
    fake_model.reply = lambda _: (500, {}, b"no")
    report = rewrite_report(REPORT, fake_model.endpoint(), on_call=fake_model.calls.append)
    assert (report.sentences, report.wording) == (REPORT.sentences, Wording.TEMPLATE_AFTER_REFUSAL)
    assert [call.verdict for call in fake_model.calls] == [Verdict.UNREACHABLE]


def test_every_sentence_as_given_is_accepted(fake_model: FakeModel) -> None:
    for audience in Audience:
        report = sample_report(audience, survival="shown")
        fake_model.answer(as_given(report.sentences))
        assert rewrite_report(report, fake_model.endpoint(), on_call=fake_model.calls.append).sentences == report.sentences
        assert [call.verdict for call in fake_model.calls] == [Verdict.ACCEPTED]


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=st.text(max_size=300))
def test_any_answer_at_all_leaves_a_whole_report(answer: str, fake_model: FakeModel) -> None:
    fake_model.answer(answer)
    assert rewrite_report(REPORT, fake_model.endpoint(), on_call=fake_model.calls.append).sentences == REPORT.sentences
