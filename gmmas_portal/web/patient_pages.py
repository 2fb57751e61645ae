"""What a patient sees: the reports that were released to them, their picture, and answers from their text. Nothing else."""

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from gmmas_portal.analysis.files import MONTAGE_FILE
from gmmas_portal.reports.report import Audience
from gmmas_portal.web.cases import CaseRow, ReportRow, not_there
from gmmas_portal.web.craft import answer, read_report
from gmmas_portal.web.desk import desk_of, render
from gmmas_portal.web.gate import PatientRoute
from gmmas_portal.web.report_pages import pdf_answer, texts_of
from gmmas_runtime.web_requests import form_of

router = APIRouter(route_class=PatientRoute)


@router.get("/mine")
def show_own_reports(request: Request) -> Response:
    """Show the reports that were released."""
    return render(request, "mine.html", found=desk_of(request).cases.released_to(request.state.visitor.account.patient))


@router.get("/mine/{report}")
def show_own_report(request: Request, report: str) -> Response:
    """Show one of them."""
    row, case = _own(request, report)
    return render(request, "mine_report.html", row=row, case=case, **texts_of(read_report(row, Audience.PATIENT)))


@router.get("/mine/{report}/report.pdf")
def send_own_pdf(request: Request, report: str) -> Response:
    """Send one of them as PDF."""
    row, _ = _own(request, report)
    return pdf_answer(request, row.case_key, row, read_report(row, Audience.PATIENT))


@router.get("/mine/{report}/picture.png")
def send_own_picture(request: Request, report: str) -> Response:
    """Send the picture of one of them."""
    row, _ = _own(request, report)
    path = desk_of(request).folder.version(row.case_key, row.version) / MONTAGE_FILE
    if not path.is_file():
        raise not_there("picture")
    return Response(path.read_bytes(), media_type="image/png")


@router.post("/mine/{report}/question")
async def ask(request: Request, report: str) -> Response:
    """Answer a question from the text of one of them."""
    form = await form_of(request)
    return await run_in_threadpool(_ask, request, report, form.get("question", ""))


def _ask(request: Request, report: str, question: str) -> Response:
    row, case = _own(request, report)
    desk, by, text = desk_of(request), request.state.visitor.account.name, read_report(row, Audience.PATIENT)
    found = answer(question, text, settings=desk.folder.config.language, audit=desk.audit, by=by, subject=row.id)
    if "hx-request" in request.headers:
        return render(request, "answer.html", answer=found, question=question)
    return render(request, "mine_report.html", row=row, case=case, **texts_of(text) | {"answer": found, "question": question})


def _own(request: Request, name: str) -> tuple[ReportRow, CaseRow]:
    """Return a report that was released to the patient who asks; any other is not there for them."""
    desk = desk_of(request)
    row = desk.cases.report(name)
    case, patient = desk.cases.case(row.case_key), request.state.visitor.account.patient
    if not patient or case.patient != patient or not row.is_released:
        raise not_there("report")
    return row, case
