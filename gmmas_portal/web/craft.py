"""Texts of a case, as pages and worker need them: the one file that calls gmmas_portal.reports and gmmas_portal.language."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from gmmas_portal.language.endpoint import ChatEndpoint, LanguageCall
from gmmas_portal.language.questions import Answer, answer_question
from gmmas_portal.language.rewriting import rewrite_report
from gmmas_portal.language.settings import LanguageSettings
from gmmas_portal.reports.pdf import Signature, render_pdf
from gmmas_portal.reports.report import Audience, Report
from gmmas_portal.reports.writing import write_report
from gmmas_portal.web.audit import AuditTrail
from gmmas_portal.web.cases import ReportRow
from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.case_record import CaseRecord

REWORDED_FILE: Final = "reworded.json"


class RewordedReports(FrozenModel):
    """Both versions of a report in the words of a language model, as far as the verifier passed them."""

    clinician: Report
    patient: Report


def write_reports(record: CaseRecord, *, folder: Path, on: date) -> dict[Audience, Report]:
    """Return both versions of the report on a record: as a language model worded them where that was asked for, else from templates.

    Args:
        record: of the version.
        folder: of the version.
        on: day of writing. Evidence expires, and a wording made of expired evidence is not used.
    """
    plain = {audience: write_report(record, audience=audience, on=on) for audience in Audience}
    path = folder / REWORDED_FILE
    if not path.is_file():
        return plain
    kept = RewordedReports.model_validate_json(path.read_bytes())
    reworded = {Audience.CLINICIAN: kept.clinician, Audience.PATIENT: kept.patient}
    return reworded if all(_same_grounds(plain[audience], reworded[audience]) for audience in Audience) else plain


def reword_reports(
    record: CaseRecord, *, folder: Path, on: date, settings: LanguageSettings, audit: AuditTrail, by: str, subject: str
) -> None:
    """Have a language model word both versions anew, and keep what the verifier passed.

    Raises:
        PolicyError, ConfigError: no model is configured, or not at a permitted address.
    """
    endpoint = ChatEndpoint(settings)
    made = {
        audience: rewrite_report(
            write_report(record, audience=audience, on=on), endpoint, on_call=lambda call: _note(audit, call, by=by, subject=subject)
        )
        for audience in Audience
    }
    kept = RewordedReports(clinician=made[Audience.CLINICIAN], patient=made[Audience.PATIENT])
    write_atomic(folder / REWORDED_FILE, kept.model_dump_json().encode())


def answer(question: str, report: Report, *, settings: LanguageSettings, audit: AuditTrail, by: str, subject: str) -> Answer:
    """Answer a question from a report that the asker may read; question and answer are noted by hash."""
    endpoint = ChatEndpoint(settings) if settings.enabled else None
    found = answer_question(question, report, endpoint=endpoint, on_call=lambda call: _note(audit, call, by=by, subject=subject))
    audit.note("question answered", who=by, subject=subject, outcome=found.kind, input=found.question_sha256, output=found.digest())
    return found


def read_report(row: ReportRow, audience: Audience) -> Report:
    """Return a version of a report as it was signed."""
    return Report.model_validate_json(row.clinician if audience is Audience.CLINICIAN else row.patient)


def draw_pdf(report: Report, *, montage: Path, row: ReportRow | None) -> bytes:
    """Return a report as PDF, with the picture of its outline; signed where somebody signed it."""
    picture = montage.read_bytes() if montage.is_file() else None
    signed = None if row is None else Signature(row.signed_by, f"{datetime.fromtimestamp(row.signed, UTC):%Y-%m-%d %H:%M} UTC")
    return render_pdf(report, montage_png=picture, signed=signed)


def _same_grounds(one: Report, other: Report) -> bool:
    grounds = [(sentence.id, set(sentence.facts), set(sentence.evidence)) for sentence in one.sentences]
    return grounds == [(s.id, set(s.facts), set(s.evidence)) for s in other.sentences] and one.record_sha256 == other.record_sha256


def _note(audit: AuditTrail, call: LanguageCall, *, by: str, subject: str) -> None:
    audit.note(
        f"language model, {call.purpose}, try {call.attempt}",
        who=by,
        subject=subject,
        outcome=" ".join([call.verdict, *call.faults]),
        input=call.prompt_sha256,
        output=call.answer_sha256,
        reason=f"{call.model}, {call.seconds:.1f} s",
    )
