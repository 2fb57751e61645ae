"""From findings to what the patient reads: review, signature, release, withdrawal, questions; and nothing else for the patient."""

import json
from typing import Any

import pytest

from gmmas_portal.reports.report import Audience, Report
from gmmas_portal.web import report_pages
from gmmas_portal.web.accounts import Role
from gmmas_portal.web.cases import ReportRow
from gmmas_schema.case_record import AbstainCode, RecordSegmentation
from tests.gmmas_portal.sample_case import make_record
from tests.gmmas_portal.web.conftest import NAMES, PATIENT, PNG, PortalUnderTest, add_case
from tests.server.dashboard.conftest import Browser


def digest_on(page: str) -> str:
    return page.partition('name="digest" value="')[2].partition('"')[0]


def sign(site: PortalUnderTest, doctor: Browser, key: str = "") -> ReportRow:
    path = f"/cases/{key or site.key}/report"
    answer = site.post(doctor, f"{path}/sign", digest=digest_on(doctor.get(path).text), reviewed="yes", comment="clear")
    assert answer.status_code == 303
    return site.desk.cases.reports(key or site.key)[0]


def release(site: PortalUnderTest, doctor: Browser, row: ReportRow) -> Any:
    return site.post(doctor, f"/cases/{row.case_key}/report/{row.id}/release")


def test_the_page_of_a_case_shows_what_is_found_and_what_is_left_open(site: PortalUnderTest) -> None:
    page = site.client(Role.CLINICIAN).get(f"/cases/{site.key}").text
    for words in (
        "31.4 ml",
        "glioblastoma",
        "left open",
        "Confidence 0.61 is below 0.80",
        "0.91",
        "0.88 – 0.93",
        "3 hospitals",
        "T1, T1ce, FLAIR",
        "T2",
    ):
        assert words in page
    row = page.partition('id="marker.mgmt"')[2].partition("</tr>")[0]
    assert "methylated" not in row, "a value that is left open is not told"
    assert AbstainCode.LOW_CONFIDENCE in page


def test_a_report_is_signed_as_it_was_read(site: PortalUnderTest) -> None:
    doctor = site.client(Role.CLINICIAN)
    path = f"/cases/{site.key}/report"
    page = doctor.get(path).text
    assert site.post(doctor, f"{path}/sign", digest=digest_on(page)).status_code == 409, "not reviewed"
    assert site.post(doctor, f"{path}/sign", digest="0" * 128, reviewed="yes").status_code == 409, "another text"
    row = sign(site, doctor)
    assert (row.signed_by, row.comment, row.state) == (NAMES[Role.CLINICIAN], "clear", "signed")
    texts = {Audience.CLINICIAN: row.clinician, Audience.PATIENT: row.patient}
    for audience, text in texts.items():
        report = Report.model_validate_json(text)
        assert report.audience is audience
        assert json.loads(doctor.get(f"{path}.json", params={"audience": audience}).text) == json.loads(text)
    assert site.post(doctor, f"{path}/sign", digest=digest_on(doctor.get(path).text), reviewed="yes").status_code == 409, "twice"
    line = next(line for line in site.desk.audit.lines() if line.action == "report signed")
    assert (line.who, line.subject, line.output) == (NAMES[Role.CLINICIAN], site.key, row.digest)
    assert (line.model, line.input) == ("a" * 64, site.desk.cases.version(site.key).record.digest())


def test_the_patient_sees_released_reports_and_nothing_else(site: PortalUnderTest) -> None:
    doctor, patient = site.client(Role.CLINICIAN), site.client(Role.PATIENT)
    row = sign(site, doctor)
    for path in (f"/mine/{row.id}", f"/mine/{row.id}/report.pdf", f"/mine/{row.id}/picture.png"):
        assert patient.get(path).status_code == 404, "signed, not released"
    assert row.id not in patient.get("/mine").text
    assert release(site, doctor, row).status_code == 303
    assert f"/mine/{row.id}" in patient.get("/mine").text
    page = patient.get(f"/mine/{row.id}").text
    assert "31.4 millilitres" in page
    for hidden in ("glioblastoma</strong>", "0.93", "surviv", site.key, "months"):
        assert hidden not in page
    assert patient.get(f"/mine/{row.id}/picture.png").content == PNG
    pdf = patient.get(f"/mine/{row.id}/report.pdf")
    assert (pdf.content[:5], pdf.headers["content-type"]) == (b"%PDF-", "application/pdf")
    for path in (f"/cases/{site.key}", f"/cases/{site.key}/report", f"/cases/{site.key}/v1/montage.png", f"/patients/{PATIENT}", "/model"):
        assert patient.get(path).status_code == 403


def test_another_patients_report_is_not_there(site: PortalUnderTest) -> None:
    doctor = site.client(Role.CLINICIAN)
    other_key = add_case(site.desk, patient="P-0002")
    mine, other = sign(site, doctor), sign(site, doctor, other_key)
    for row in (mine, other):
        release(site, doctor, row)
    patient = site.client(Role.PATIENT)
    for path in ("", "/report.pdf", "/picture.png"):
        assert patient.get(f"/mine/{mine.id}{path}").status_code == 200
        assert patient.get(f"/mine/{other.id}{path}").status_code == 404
    assert site.post(patient, f"/mine/{other.id}/question", question="where does it lie?").status_code == 404
    assert other.id not in patient.get("/mine").text
    assert doctor.get(f"/cases/{other_key}/report").status_code == 200
    assert release(site, doctor, mine).status_code == 409, "released twice"
    crossed = site.post(doctor, f"/cases/{site.key}/report/{other.id}/withdraw", reason="of another case")
    assert crossed.status_code == 404


def test_a_withdrawn_report_is_gone_for_the_patient(site: PortalUnderTest) -> None:
    doctor, patient = site.client(Role.CLINICIAN), site.client(Role.PATIENT)
    row = sign(site, doctor)
    release(site, doctor, row)
    assert site.post(doctor, f"/cases/{site.key}/report/{row.id}/withdraw", reason="").status_code == 409, "a reason is required"
    assert patient.get(f"/mine/{row.id}").status_code == 200
    assert site.post(doctor, f"/cases/{site.key}/report/{row.id}/withdraw", reason="wrong side").status_code == 303
    assert patient.get(f"/mine/{row.id}").status_code == 404
    assert release(site, doctor, row).status_code == 409
    line = next(line for line in site.desk.audit.lines() if line.action == "report withdrawn")
    assert (line.reason, line.subject) == ("wrong side", site.key)
    assert sign(site, doctor).id != row.id, "it can be signed anew"


def test_a_correction_asks_for_a_new_signature_and_the_old_report_stays(site: PortalUnderTest) -> None:
    doctor, patient = site.client(Role.CLINICIAN), site.client(Role.PATIENT)
    first = sign(site, doctor)
    corrected = RecordSegmentation(version=2, author=NAMES[Role.CLINICIAN], sha256="9" * 64, based_on=1)
    site.desk.cases.add_version(site.key, make_record(segmentation=corrected), author=NAMES[Role.CLINICIAN], reason="oedema")
    assert release(site, doctor, first).status_code == 409, "of an older version"
    assert "To be reviewed" in doctor.get(f"/cases/{site.key}/report").text
    second = sign(site, doctor)
    assert (second.version, site.desk.cases.report(first.id).clinician) == (2, first.clinician)
    release(site, doctor, second)
    assert "corrected the outline" in patient.get(f"/mine/{second.id}").text


@pytest.mark.parametrize("htmx", [False, True])
def test_questions_are_answered_from_the_report_or_referred(site: PortalUnderTest, htmx: bool) -> None:
    doctor, patient = site.client(Role.CLINICIAN), site.client(Role.PATIENT)
    row = sign(site, doctor)
    release(site, doctor, row)
    headers = {"hx-request": "true"} if htmx else {}

    def ask(client: Browser, path: str, question: str) -> str:
        answer = client.post(path, data={"csrf": site.csrf(client), "question": question}, headers=headers)
        assert ("<html" in answer.text) is not htmx
        text: str = answer.text.partition('class="answer"')[2].partition("</div>")[0]
        return text

    assert "left frontal lobe" in ask(patient, f"/mine/{row.id}/question", "where does it lie?")
    assert "left frontal lobe" in ask(doctor, f"/cases/{site.key}/question", "which lobe is it in?")
    for question in ("how long do I have?", "should I stop my medicine?"):
        told = ask(patient, f"/mine/{row.id}/question", question)
        assert "care team" in told
        assert "months" not in told
    lines = [line for line in site.desk.audit.lines() if line.action == "question answered"]
    assert [line.outcome for line in lines] == ["referred", "referred", "found", "found"]
    assert "medicine" not in "".join(line.model_dump_json() for line in lines), "questions are kept by hash"


def test_every_sentence_has_its_grounds_in_the_json(site: PortalUnderTest) -> None:
    doctor = site.client(Role.CLINICIAN)
    for audience in Audience:
        report = doctor.get(f"/cases/{site.key}/report.json", params={"audience": audience}).json()
        assert report["sentences"]
        assert all(sentence["facts"] or sentence["evidence"] for sentence in report["sentences"])


def test_a_case_is_deleted_with_all_that_belongs_to_it(site: PortalUnderTest) -> None:
    doctor, patient = site.client(Role.CLINICIAN), site.client(Role.PATIENT)
    row = sign(site, doctor)
    release(site, doctor, row)
    path = f"/cases/{site.key}/delete"
    assert site.post(doctor, path, reason="").status_code == 409
    assert site.post(doctor, path, reason="asked for by the patient").status_code == 409, "released"
    site.post(doctor, f"/cases/{site.key}/report/{row.id}/withdraw", reason="asked for by the patient")
    kept = add_case(site.desk)
    assert site.post(doctor, path, reason="asked for by the patient").status_code == 303
    assert not (site.folder.cases / site.key).exists()
    assert (site.folder.cases / kept / "images").is_dir()
    for client, gone in ((doctor, f"/cases/{site.key}"), (doctor, f"/cases/{site.key}/report"), (patient, f"/mine/{row.id}")):
        assert client.get(gone).status_code == 404
    line = next(line for line in site.desk.audit.lines() if line.action == "case deleted")
    assert (line.who, line.subject, line.reason) == (NAMES[Role.CLINICIAN], site.key, "asked for by the patient")
    assert site.desk.audit.verify().broken_at is None


def test_a_page_names_the_very_texts_it_shows(site: PortalUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A language model's words may be ready between one look at the texts and another."""
    made: list[dict[Audience, Report]] = []
    real = report_pages.write_reports

    def other_words(*given: Any, **named: Any) -> dict[Audience, Report]:
        reports = real(*given, **named)
        for audience, report in reports.items():
            first, *rest = report.sentences
            reports[audience] = report.model_copy(update={"sentences": (first.model_copy(update={"text": f"Wording {len(made)}."}), *rest)})
        made.append(reports)
        return reports

    monkeypatch.setattr(report_pages, "write_reports", other_words)
    page = site.client(Role.CLINICIAN).get(f"/cases/{site.key}/report").text
    shown = next(reports for place, reports in enumerate(made) if f"Wording {place}." in page)
    assert digest_on(page) == shown[Audience.CLINICIAN].digest() + shown[Audience.PATIENT].digest()
