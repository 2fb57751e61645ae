"""Uploading a study: the files, what was found in them, and the confirmation that makes a case of it."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from gmmas_portal.analysis.context import CaseContext, TissueResults
from gmmas_portal.web.accounts import PATIENT_CODE
from gmmas_portal.web.desk import desk_of, gate_of, render
from gmmas_portal.web.findings import SEQUENCE_NAMES
from gmmas_portal.web.gate import MOST_FIELDS, MOST_UPLOAD_FILES, ClinicianRoute, UploadRoute
from gmmas_portal.web.intake import Draft, confirm_once, discard, draft_folder, read_draft, receive
from gmmas_portal.web.jobs import JobKind
from gmmas_portal.web.stream import tell_job
from gmmas_schema.errors import DataError, GmmasError
from gmmas_schema.vocabulary import MODALITIES, Modality, Subtype

YES_OR_NO: Final = ("idh", "codeletion", "mgmt", "necrosis", "molecular", "cdkn2a", "h3")
"""Fields of TissueResults that the form asks for as one of two words."""

router = APIRouter(route_class=ClinicianRoute)
sending = APIRouter(route_class=UploadRoute)


@router.get("/upload")
def show_upload(request: Request) -> Response:
    """Show the form."""
    return render(request, "upload.html", error=None, config=desk_of(request).folder.config)


@sending.post("/upload")
async def upload(request: Request) -> Response:
    """Take files, and have them looked at."""
    desk = desk_of(request)
    form = await request.form(max_files=MOST_UPLOAD_FILES, max_fields=MOST_FIELDS)
    files = [item for item in form.getlist("files") if isinstance(item, UploadFile)]
    try:
        draft = await run_in_threadpool(lambda: receive(files, desk.folder.incoming, most_bytes=desk.folder.config.unpacked_mib << 20))
    except GmmasError as error:
        await gate_of(request).record(request, f"failed: {error.code} {error.what}")
        return render(request, "upload.html", status_code=409, error=error, config=desk.folder.config)
    await run_in_threadpool(lambda: desk.jobs.add(JobKind.LOOK, draft, asked_by=request.state.visitor.account.name))
    return RedirectResponse(f"/upload/{draft}", status_code=303)


@router.get("/upload/{draft}")
def show_draft(request: Request, draft: str) -> Response:
    """Show what was found in an upload, or that it is being looked at."""
    return _draft_page(request, draft, error=None, form={})


@router.post("/upload/{draft}")
async def confirm(request: Request, draft: str) -> Response:
    """Make a case of an upload, and have it analysed."""
    desk, sent = desk_of(request), await request.form(max_fields=MOST_FIELDS)
    form = {name: value for name, value in sent.items() if isinstance(value, str)}
    found = await run_in_threadpool(read_draft, desk.folder.incoming, draft)
    try:
        chosen = _chosen(form, found)
        context, scanned_on = context_of(form)
        patient = _patient_of(form, found)
    except GmmasError as error:
        return await run_in_threadpool(_draft_page, request, draft, error=error, form=form)
    if not await run_in_threadpool(confirm_once, desk.folder.incoming, draft):
        return RedirectResponse("/cases", status_code=303)
    by = request.state.visitor.account.name
    key = await run_in_threadpool(lambda: desk.cases.add(created_by=by, context=context, scanned_on=scanned_on))
    detail = {"draft": draft, "patient": patient, "chosen": {str(modality): number for modality, number in chosen.items()}}
    await run_in_threadpool(lambda: desk.jobs.add(JobKind.ANALYSE, key, asked_by=by, detail=detail))
    return RedirectResponse(f"/cases/{key}", status_code=303)


@router.post("/upload/{draft}/discard")
def throw_away(request: Request, draft: str) -> Response:
    """Delete an upload."""
    desk = desk_of(request)
    if draft in desk.jobs.drafts():
        raise DataError("this upload was confirmed", expected="one that waits to be confirmed", remedy="delete its case instead")
    discard(desk.folder.incoming, draft)
    return RedirectResponse("/cases", status_code=303)


def context_of(form: dict[str, str]) -> tuple[CaseContext, str]:
    """Return what a clinician entered about a case, and the date of the scan.

    Raises:
        DataError: an entry is none of those offered.
    """
    answers = {"yes": True, "no": False}
    tissue: dict[str, Any] = {name: answers.get(form.get(f"tissue_{name}", "")) for name in YES_OR_NO}
    tissue["grade"] = form.get("tissue_grade") or None
    diagnosis = form.get("tissue_diagnosis", "")
    tissue["diagnosis"] = Subtype(diagnosis) if diagnosis in set(Subtype) else None
    scanned_on = form.get("scanned_on", "").strip()
    try:
        if scanned_on:
            day = date.fromisoformat(scanned_on)
            if day > _latest_day(datetime.now(UTC)):
                raise ValueError("a day that has not come")
            scanned_on = day.isoformat()  # pages sort by it, and ISO 8601 has other forms
        age = form.get("age_years", "").strip() or None
        entered: dict[str, Any] = {name: answers.get(form.get(name, "")) for name in ("post_operative", "t2_flair_mismatch")}
        entered |= {"age_years": age, "tissue": TissueResults(**tissue)}
        return CaseContext.model_validate(entered), scanned_on
    except (ValidationError, ValueError) as error:
        raise DataError(
            "an entry cannot be used",
            got="a date, an age or a grade that is none",
            expected="a date like 2026-03-31 that has come, an age in years, a grade from 2 to 4, or nothing",
            remedy="correct it, or leave it empty",
        ) from error


def _latest_day(now: datetime) -> date:
    """Return the day that it is in the easternmost time zone: the machine's own is often not that of the hospital."""
    return (now.astimezone(UTC) + timedelta(hours=14)).date()


def _draft_page(request: Request, draft: str, *, error: GmmasError | None, form: dict[str, str]) -> Response:
    desk = desk_of(request)
    draft_folder(desk.folder.incoming, draft)
    found, job = read_draft(desk.folder.incoming, draft), desk.jobs.latest(draft)
    proposal = {} if found is None else {number: modality for modality, number in found.proposal().items()}
    if form and found is not None:
        proposal = {one.number: Modality(value) for one in found.images if (value := form.get(f"image_{one.number}", "")) in set(Modality)}
    return render(
        request,
        "draft.html",
        status_code=200 if error is None else 409,
        draft=draft,
        found=found,
        job=job,
        told=tell_job(job),
        proposal=proposal,
        sequences=SEQUENCE_NAMES,
        stripper=desk.folder.config.skull_stripper.name if desk.folder.config.skull_stripper else "",
        patients=sorted({case.patient for case in desk.cases.cases() if case.patient}),
        error=error,
        form=form,
        subtypes=tuple(Subtype),
        entered=_entered(form, found),
    )


def _entered(form: dict[str, str], found: Draft | None) -> dict[str, str | bool]:
    """Return what stands in the form's fields: what was sent, or nothing but the day that headers tell."""
    names = ("age_years", "post_operative", "t2_flair_mismatch", *(f"tissue_{name}" for name in (*YES_OR_NO, "grade", "diagnosis")))
    day = form.get("scanned_on") or ("" if found is None else found.scanned_on)
    told: dict[str, str | bool] = {name: form.get(name, "") for name in names}
    return told | {"scanned_on": day, "tissue": any(form.get(name) for name in names if name.startswith("tissue_"))}


def _chosen(form: dict[str, str], found: Draft | None) -> dict[Modality, int]:
    """Return which image is which sequence, as a person confirmed it."""
    usable = [] if found is None else [one.number for one in found.images if not one.problem]
    named = [(Modality(value), number) for number in usable if (value := form.get(f"image_{number}", "")) in set(Modality)]
    if not named or len({modality for modality, _ in named}) < len(named):
        raise DataError(
            "the sequences are not clear",
            got="no sequence" if not named else "two images for one sequence",
            expected="at least one sequence, each by one image",
            remedy="choose the sequence of each image, and `leave out` for the rest",
        )
    return {modality: number for modality in MODALITIES for other, number in named if other is modality}


def _patient_of(form: dict[str, str], found: Draft | None) -> str:
    """Return the pseudonym that was entered; empty for a DICOM study, which gets one from its own patient number."""
    if found is not None and found.kind == "dicom":
        return ""
    patient = form.get("patient", "").strip()
    if not re.fullmatch(PATIENT_CODE, patient):
        raise DataError(
            "this is no pseudonym",
            got="nothing" if not patient else "other characters or another length",
            expected="2 to 40 letters, digits, hyphens and underscores",
            remedy="take a code that your list of patients explains, never a name or a hospital number",
        )
    return patient
