"""Reports: what a clinician reviews and signs, releases to the patient, or takes back; questions about what stands in them."""

from datetime import UTC, date, datetime
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from gmmas_portal.analysis.files import MONTAGE_FILE
from gmmas_portal.language.questions import LONGEST_QUESTION, Answer
from gmmas_portal.reports.pdf import HEADINGS, TITLES, WORDINGS
from gmmas_portal.reports.report import Audience, Report
from gmmas_portal.web.cases import ReportRow, VersionRow, not_there
from gmmas_portal.web.craft import answer, draw_pdf, read_report, write_reports
from gmmas_portal.web.desk import Desk, case_of, desk_of, render
from gmmas_portal.web.gate import ClinicianRoute
from gmmas_portal.web.jobs import JobKind
from gmmas_portal.web.settings import DICOM_ARCHIVE
from gmmas_runtime.web_requests import form_of
from gmmas_schema.errors import DataError, GmmasError

router = APIRouter(route_class=ClinicianRoute)

LONGEST_COMMENT: Final = 1000
SHORTEST_REASON: Final = 4


@router.get("/cases/{key}/report")
def show_report(request: Request, key: str, audience: Audience = Audience.CLINICIAN) -> Response:
    """Show the report of a case's newest version: as signed, or as it would be signed now."""
    return _report_page(request, key, audience)


@router.post("/cases/{key}/report/sign")
async def sign(request: Request, key: str) -> Response:
    """Sign both versions of the report, as they were shown."""
    form = await form_of(request)
    return await run_in_threadpool(_sign, request, key, form)


@router.post("/cases/{key}/report/{report}/release")
async def release(request: Request, key: str, report: str) -> Response:
    """Let the patient read a signed report."""
    desk, by = desk_of(request), request.state.visitor.account.name
    row = await run_in_threadpool(_row_of, request, key, report)
    await run_in_threadpool(lambda: desk.cases.release(row.id, by=by))
    await run_in_threadpool(lambda: desk.audit.note("report released", who=by, subject=key, outcome=row.id, output=row.digest))
    return RedirectResponse(f"/cases/{key}/report?audience=patient", status_code=303)


@router.post("/cases/{key}/report/{report}/withdraw")
async def withdraw(request: Request, key: str, report: str) -> Response:
    """Take a report back, with a reason."""
    desk, by, form = desk_of(request), request.state.visitor.account.name, await form_of(request)
    row = await run_in_threadpool(_row_of, request, key, report)
    reason = form.get("reason", "").strip()[:LONGEST_COMMENT]
    if len(reason) < SHORTEST_REASON:
        error = DataError("a reason is missing", expected="why the report is taken back, in a few words", remedy="enter it below")
        return await run_in_threadpool(lambda: _report_page(request, key, Audience.CLINICIAN, error=error))
    await run_in_threadpool(lambda: desk.cases.withdraw(row.id, by=by, reason=reason))
    await run_in_threadpool(_forget_export, desk, row)
    await run_in_threadpool(
        lambda: desk.audit.note("report withdrawn", who=by, subject=key, outcome=row.id, output=row.digest, reason=reason)
    )
    return RedirectResponse(f"/cases/{key}/report", status_code=303)


@router.post("/cases/{key}/report/reword")
def reword(request: Request, key: str) -> Response:
    """Have the language model word the newest report anew."""
    desk = desk_of(request)
    newest, job = desk.cases.version(case_of(request, key).key), desk.jobs.latest(key)
    if not desk.folder.config.language.enabled or (job is not None and not job.is_over) or _signed(request, newest) is not None:
        raise DataError(
            "this report is not worded anew now",
            got="no language model, a case at work, or a signed report",
            expected="a case at rest whose report is not signed",
            remedy="wait until the case is at rest, or take the signed report back first",
        )
    desk.jobs.add(JobKind.REWORD, key, asked_by=request.state.visitor.account.name, detail={"version": newest.version})
    return RedirectResponse(f"/cases/{key}", status_code=303)


@router.post("/cases/{key}/question")
async def ask(request: Request, key: str) -> Response:
    """Answer a clinician's question from the report."""
    form = await form_of(request)
    return await run_in_threadpool(_ask, request, key, form.get("question", ""))


@router.get("/cases/{key}/report.pdf")
def send_pdf(request: Request, key: str, audience: Audience = Audience.CLINICIAN) -> Response:
    """Send the report as PDF."""
    row, reports = _current(request, key)
    return pdf_answer(request, key, row, reports[audience])


@router.get("/cases/{key}/report.json")
def send_json(request: Request, key: str, audience: Audience = Audience.CLINICIAN) -> Response:
    """Send the report as JSON: each sentence with the facts and the evidence it rests on."""
    report = _current(request, key)[1][audience]
    return download(report.model_dump_json(indent=1).encode(), "application/json", f"report-{report.case}.json")


@router.get("/cases/{key}/record.json")
def send_record(request: Request, key: str) -> Response:
    """Send the record of the newest version."""
    record = desk_of(request).cases.version(case_of(request, key).key).record
    return download(record.model_dump_json(indent=1).encode(), "application/json", f"record-{record.case}.json")


def texts_of(report: Report) -> dict[str, Any]:
    """Return what a page shows of a report."""
    sections = [(HEADINGS[report.audience][section], report.of_section(section)) for section in report.sections()]
    shown = {"report": report, "title": TITLES[report.audience], "sections": sections, "wording": WORDINGS[report.wording]}
    return shown | {"answer": None, "question": "", "longest": LONGEST_QUESTION}


def pdf_answer(request: Request, key: str, row: ReportRow | None, report: Report) -> Response:
    """Answer with a report as PDF."""
    montage = desk_of(request).folder.version(key, report.segmentation.version) / MONTAGE_FILE
    return download(draw_pdf(report, montage=montage, row=row), "application/pdf", f"report-{report.case}.pdf")


def download(content: bytes, media_type: str, name: str) -> Response:
    """Answer with a file to keep; pseudonyms have no quote in them."""
    return Response(content, media_type=media_type, headers={"content-disposition": f'attachment; filename="{name}"'})


def _sign(request: Request, key: str, form: dict[str, str]) -> Response:
    desk = desk_of(request)
    newest = desk.cases.version(case_of(request, key).key)
    reports, by = _fresh(request, newest), request.state.visitor.account.name
    clinician, patient = (reports[audience].model_dump_json() for audience in (Audience.CLINICIAN, Audience.PATIENT))
    comment = form.get("comment", "").strip()[:LONGEST_COMMENT]
    try:
        _check_signature(form, reports)
        row = desk.cases.sign(key, newest.version, by=by, comment=comment, clinician=clinician, patient=patient)
    except GmmasError as error:
        return _report_page(request, key, Audience.CLINICIAN, error=error)
    _forget_export(desk, row)
    model = newest.record.model.weights_sha256
    desk.audit.note("report signed", who=by, subject=key, outcome=row.id, model=model, input=newest.record.digest(), output=row.digest)
    return RedirectResponse(f"/cases/{key}/report", status_code=303)


def _check_signature(form: dict[str, str], reports: dict[Audience, Report]) -> None:
    if form.get("digest") != _digest(reports):
        what, got = "the report changed while you read it", "another version or another wording"
        raise DataError(what, got=got, expected="the one you read", remedy="read it again, then sign")
    if form.get("reviewed") != "yes":
        raise DataError(
            "the review is not confirmed", expected="a tick at `I have reviewed`", remedy="review images and texts, then tick it"
        )


def _ask(request: Request, key: str, question: str) -> Response:
    report = _current(request, key)[1][Audience.CLINICIAN]
    desk, by = desk_of(request), request.state.visitor.account.name
    found = answer(question, report, settings=desk.folder.config.language, audit=desk.audit, by=by, subject=key)
    if "hx-request" in request.headers:
        return render(request, "answer.html", answer=found, question=question)
    return _report_page(request, key, Audience.CLINICIAN, answer=found, question=question)


def _report_page(
    request: Request,
    key: str,
    audience: Audience,
    *,
    error: GmmasError | None = None,
    answer: Answer | None = None,
    question: str = "",
) -> Response:
    case, desk = case_of(request, key), desk_of(request)
    row, reports = _current(request, key)
    return render(
        request,
        "report.html",
        status_code=200 if error is None else 409,
        **texts_of(reports[audience])
        | {
            "case": case,
            "row": row,
            "digest": _digest(reports),
            "error": error,
            "history": desk.cases.reports(key),
            "language": desk.folder.config.language.enabled,
            "answer": answer,
            "question": question,
        },
    )


def _current(request: Request, key: str) -> tuple[ReportRow | None, dict[Audience, Report]]:
    """Return both texts of the newest version: the last ones signed that were not withdrawn, else such as are written now."""
    newest = desk_of(request).cases.version(case_of(request, key).key)
    signed = _signed(request, newest)
    return (None, _fresh(request, newest)) if signed is None else (signed, {each: read_report(signed, each) for each in Audience})


def _signed(request: Request, newest: VersionRow) -> ReportRow | None:
    rows = desk_of(request).cases.reports(newest.case_key)
    return next((row for row in rows if row.version == newest.version and row.withdrawn is None), None)


def _fresh(request: Request, newest: VersionRow) -> dict[Audience, Report]:
    folder = desk_of(request).folder.version(newest.case_key, newest.version)
    return write_reports(newest.record, folder=folder, on=_today())


def _digest(reports: dict[Audience, Report]) -> str:
    """Return by what a form names the two texts that were shown with it."""
    return reports[Audience.CLINICIAN].digest() + reports[Audience.PATIENT].digest()


def _forget_export(desk: Desk, row: ReportRow) -> None:
    """Delete the DICOM files of a report's version: they say who verified it, and that is no longer so."""
    (desk.folder.version(row.case_key, row.version) / DICOM_ARCHIVE).unlink(missing_ok=True)


def _row_of(request: Request, key: str, name: str) -> ReportRow:
    """Return a report of this very case."""
    row = desk_of(request).cases.report(name)
    if row.case_key != key:
        raise not_there("report")
    return row


def _today() -> date:
    return datetime.now(UTC).date()
