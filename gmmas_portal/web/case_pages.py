"""Cases: the list, one case with viewer and findings, corrections of the outline, the course of a patient, evidence, the model's card."""

import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from gmmas_portal.analysis.files import MONTAGE_FILE, SEGMENTATION_FILE, UNCERTAINTY_FILE
from gmmas_portal.evidence.library import Topic, read_library
from gmmas_portal.web.cases import CaseRow, VersionRow, not_there
from gmmas_portal.web.desk import case_of, desk_of, render
from gmmas_portal.web.findings import SEQUENCE_NAMES, accuracy_rows, group_findings, headline, sequence_names
from gmmas_portal.web.gate import ClinicianRoute, MaskRoute, StaffRoute
from gmmas_portal.web.intake import discard
from gmmas_portal.web.jobs import JobKind, JobState
from gmmas_portal.web.settings import DICOM_ARCHIVE
from gmmas_portal.web.stream import tell_job
from gmmas_portal.web.timeline import HEIGHT, LEFT, WIDTH, TimePoint, draw_timeline
from gmmas_portal.web.upload_pages import YES_OR_NO, context_of
from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_runtime.web_requests import form_of
from gmmas_schema.errors import ConfigError, DataError, GmmasError
from gmmas_schema.vocabulary import HEAD_NAMES, Modality, Subtype

router = APIRouter(route_class=ClinicianRoute)
masks = APIRouter(route_class=MaskRoute)
papers = APIRouter(route_class=StaffRoute)

LONGEST_REASON: Final = 300
SHORTEST_REASON: Final = 4
_NIFTI_TYPE: Final = "application/octet-stream"
_MAPS: Final = {
    "segmentation.nii.gz": SEGMENTATION_FILE,
    "uncertainty.nii.gz": UNCERTAINTY_FILE,
    "montage.png": MONTAGE_FILE,
    DICOM_ARCHIVE: DICOM_ARCHIVE,
}
_HEADINGS: Final = {
    JobKind.MEASURE: "The corrected outline is being measured",
    JobKind.EXPORT: "DICOM files are being made",
    JobKind.REWORD: "The language model is asked for other words",
}


@router.get("/cases")
def show_cases(request: Request) -> Response:
    """Show all cases."""
    desk = desk_of(request)
    states, rows = desk.jobs.states(), []
    for case in desk.cases.cases():
        newest = desk.cases.version(case.key) if case.versions else None
        version = newest.version if newest else 0
        reports = desk.cases.reports(case.key)
        of_newest = [report.state for report in reports if report.version == version]
        state = states.get(case.key)
        rows.append(
            {
                "case": case,
                "newest": newest,
                "headline": headline(newest.record) if newest else (),
                "sequences": sequence_names(newest.record.modalities_used if newest else case.images),
                "report": of_newest[0] if of_newest else "",
                "is_read": any(report.is_released and report.version != version for report in reports),
                "working": state in (JobState.QUEUED, JobState.RUNNING),
                "failed": state is JobState.FAILED,
            }
        )
    return render(request, "cases.html", rows=rows)


@router.get("/cases/{key}")
def show_case(request: Request, key: str, version: int = 0) -> Response:
    """Show one case, in its newest version or another."""
    desk, case = desk_of(request), case_of(request, key)
    job = desk.jobs.latest(key)
    versions = desk.cases.versions(key)
    chosen = desk.cases.version(key, version) if versions else None
    return render(
        request,
        "case.html",
        case=case,
        job=job,
        told=tell_job(job),
        working="The case is being analysed" if job is None else _HEADINGS.get(job.kind, "The case is being analysed"),
        versions=versions,
        chosen=chosen,
        subtypes=tuple(Subtype),
        entered=_entered(case),
        **({} if chosen is None else _shown(request, case, chosen)),
    )


@router.get("/cases/{key}/image/{name}")
def send_image(request: Request, key: str, name: str) -> Response:
    """Send a sequence, for the viewer."""
    case = case_of(request, key)
    modality = name.removesuffix(".nii.gz")
    if modality not in set(Modality) or Modality(modality) not in case.images or name == modality:
        raise not_there("image")
    return _send(desk_of(request).folder.path / case.images[Modality(modality)])


@router.get("/cases/{key}/v{version}/{name}")
def send_map(request: Request, key: str, version: int, name: str) -> Response:
    """Send the outline, the uncertainty or the picture of a version."""
    case = case_of(request, key)
    path = desk_of(request).folder.version(case.key, version) / _MAPS.get(name, "absent")
    if name not in _MAPS or not path.is_file():
        raise not_there("file")
    return _send(path)


@router.post("/cases/{key}/again")
async def analyse_again(request: Request, key: str) -> Response:
    """Analyse a case again, with what was entered about it now."""
    desk, form = desk_of(request), await form_of(request)
    case = await run_in_threadpool(case_of, request, key)
    context, scanned_on = context_of(form)
    job = await run_in_threadpool(desk.jobs.latest, key)
    if job is not None and not job.is_over:
        raise DataError("the case is being analysed already", expected="one analysis at a time", remedy="wait until it is done")
    await run_in_threadpool(lambda: desk.cases.set_context(key, context, scanned_on=scanned_on))
    detail = {**({} if job is None else job.detail), "reason": "what is known of the case was changed"} if case.versions == 0 else {}
    detail = detail or {"reason": "what is known of the case was changed"}
    kind = JobKind.SAMPLE if case.sample and not case.images else JobKind.ANALYSE
    await run_in_threadpool(lambda: desk.jobs.add(kind, key, asked_by=request.state.visitor.account.name, detail=detail))
    return RedirectResponse(f"/cases/{key}", status_code=303)


@router.post("/cases/{key}/export")
def export(request: Request, key: str) -> Response:
    """Have the DICOM files of the newest version made."""
    desk = desk_of(request)
    newest = desk.cases.version(case_of(request, key).key)
    by = request.state.visitor.account.name
    desk.jobs.add(JobKind.EXPORT, key, asked_by=by, detail={"version": newest.version})
    return RedirectResponse(f"/cases/{key}", status_code=303)


@router.post("/cases/{key}/delete")
async def delete(request: Request, key: str) -> Response:
    """Delete a case with its images, outlines and reports, for a reason."""
    form, case = await form_of(request), await run_in_threadpool(case_of, request, key)
    reason = form.get("reason", "").strip()[:LONGEST_REASON]
    if len(reason) < SHORTEST_REASON:
        raise DataError("this case is not deleted", got="no reason", expected="a reason in a few words")
    await run_in_threadpool(_delete, request, case, reason)
    return RedirectResponse("/cases", status_code=303)


@router.get("/cases/{key}/correct")
def show_correction(request: Request, key: str, version: int = 0) -> Response:
    """Show the page on which an outline is corrected."""
    case = case_of(request, key)
    chosen = desk_of(request).cases.version(key, version)
    return render(request, "correct.html", case=case, chosen=chosen, error=None, **_shown(request, case, chosen))


@masks.post("/cases/{key}/correct")
async def correct(request: Request, key: str) -> Response:
    """Take a corrected outline: drawn on the page, or a NIfTI file made elsewhere. The one before is kept."""
    desk = desk_of(request)
    case = await run_in_threadpool(case_of, request, key)
    form = await request.form(max_files=1, max_fields=10)
    reason, based_on = str(form.get("reason", "")).strip()[:LONGEST_REASON], str(form.get("based_on", ""))
    mask = form.get("mask")
    try:
        content = await mask.read() if isinstance(mask, UploadFile) else b""
        chosen = await run_in_threadpool(desk.cases.version, key, int(based_on) if based_on.isdecimal() else 0)
        job = await run_in_threadpool(desk.jobs.latest, key)
        _check_correction(reason, content, busy=job is not None and not job.is_over)
    except GmmasError as error:
        if "application/json" in request.headers.get("accept", ""):
            raise
        chosen = await run_in_threadpool(desk.cases.version, key, 0)
        shown = await run_in_threadpool(_shown, request, case, chosen)
        return render(request, "correct.html", status_code=409, case=case, chosen=chosen, error=error, **shown)
    name = await run_in_threadpool(_store_mask, desk.folder.cases / key / "corrections", content)
    by, detail = request.state.visitor.account.name, {"mask": name, "reason": reason, "based_on": chosen.version}
    await run_in_threadpool(lambda: desk.jobs.add(JobKind.MEASURE, key, asked_by=by, detail=detail))
    return RedirectResponse(f"/cases/{key}", status_code=303)


@router.get("/patients/{patient}")
def show_patient(request: Request, patient: str) -> Response:
    """Show the course of one patient."""
    desk = desk_of(request)
    cases = desk.cases.cases(patient=patient)
    if not cases:
        raise not_there("patient")
    points = [TimePoint(case, desk.cases.version(case.key).record) for case in cases if case.versions]
    drawing = draw_timeline(points)
    frame = {"width": WIDTH, "height": HEIGHT, "left": LEFT}
    return render(request, "patient.html", patient=patient, cases=cases, points=points, drawing=drawing, frame=frame)


@papers.get("/evidence")
def show_evidence(request: Request) -> Response:
    """Show all published evidence that reports may cite."""
    entries = read_library().entries
    topics = [(topic, [entry for entry in entries if entry.topic is topic]) for topic in Topic]
    return render(request, "evidence.html", topics=[(topic, found) for topic, found in topics if found])


@papers.get("/model")
def show_model(request: Request) -> Response:
    """Show the card of the model in use."""
    return render(request, "model.html", papers=desk_of(request).papers, sequence_names=sequence_names, head_names=HEAD_NAMES)


def _shown(request: Request, case: CaseRow, chosen: VersionRow) -> dict[str, Any]:
    """Return what a page shows of a version."""
    record, folder = chosen.record, desk_of(request).folder.version(case.key, chosen.version)
    back = next(m for m in (Modality.T1CE, Modality.FLAIR, Modality.T2, Modality.T1) if m in case.images)
    return {
        "record": record,
        "headline": headline(record),
        "groups": group_findings(record),
        "accuracy": accuracy_rows(record.accuracy),
        "used": sequence_names(record.modalities_used),
        "missing": sequence_names(record.modalities_missing),
        "sequences": [(m.value, SEQUENCE_NAMES[m]) for m in case.images],
        "background": back.value,
        "has_uncertainty": (folder / UNCERTAINTY_FILE).is_file(),
        "maps": f"/cases/{case.key}/v{chosen.version}",
        "has_dicom": (folder / DICOM_ARCHIVE).is_file(),
    }


def _delete(request: Request, case: CaseRow, reason: str) -> None:
    desk, by = desk_of(request), request.state.visitor.account.name
    job = desk.jobs.latest(case.key)
    desk.cases.delete(case.key)
    if job is not None and job.detail.get("draft"):
        with suppress(ConfigError):  # of a case that has its images it is gone
            discard(desk.folder.incoming, job.detail["draft"])
    shutil.rmtree(desk.folder.cases / case.key, ignore_errors=True)
    # A study that was uploaded twice was imported once: its folder goes with the last case of it.
    used = {path for other in desk.cases.cases() for path in other.images.values()}
    for path in set(case.images.values()) - used:
        shutil.rmtree((desk.folder.path / path).parent, ignore_errors=True)
    desk.audit.note("case deleted", who=by, subject=case.key, reason=reason)


def _check_correction(reason: str, content: bytes, *, busy: bool) -> None:
    if busy:
        raise DataError("the case is being analysed", expected="a case at rest", remedy="wait until it is done, then save again")
    if len(reason) < SHORTEST_REASON:
        raise DataError(
            "a reason is missing", got="nothing" if not reason else "a word", expected="why the outline is changed, in a few words"
        )
    if content[:2] != b"\x1f\x8b" and content[:4] not in (b"\x5c\x01\x00\x00", b"\x00\x00\x01\x5c"):
        raise DataError("this is no outline", got="another kind of file", expected="a label map as NIfTI (.nii or .nii.gz)")


def _store_mask(folder: Path, content: bytes) -> str:
    make_private_folder(folder)
    name = f"{secrets.token_hex(8)}.nii.gz"
    write_atomic(folder / name, content)
    return name


def _send(path: Path) -> Response:
    return FileResponse(path, media_type="image/png" if path.suffix == ".png" else _NIFTI_TYPE)


def _entered(case: CaseRow) -> dict[str, str | bool]:
    """Return what was entered about a case, as the form's fields hold it."""
    tissue, words = case.context.tissue, {True: "yes", False: "no", None: ""}
    return {
        "scanned_on": case.scanned_on,
        "age_years": "" if case.context.age_years is None else str(case.context.age_years),
        "post_operative": words[case.context.post_operative],
        "t2_flair_mismatch": words[case.context.t2_flair_mismatch],
        **{f"tissue_{name}": words[getattr(tissue, name)] for name in YES_OR_NO},
        "tissue_grade": "" if tissue.grade is None else str(tissue.grade),
        "tissue_diagnosis": tissue.diagnosis or "",
        "tissue": any(value is not None for value in tissue.model_dump().values()),
    }
