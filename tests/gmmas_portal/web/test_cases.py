"""What happens to a case when two people are at it at once, when a job of it fails, and when it is corrected or exported meanwhile."""

import io
import zipfile
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom import dcmread

from gmmas_portal.analysis import MeasurementFrame, read_record, write_mask
from gmmas_portal.analysis.context import CaseContext
from gmmas_portal.analysis.files import FRAME_FILE, SEGMENTATION_FILE
from gmmas_portal.web.accounts import Role
from gmmas_portal.web.jobs import JobKind, JobState
from gmmas_portal.web.settings import DICOM_ARCHIVE
from gmmas_portal.web.worker import StopAsked, Worker
from gmmas_runtime.files import write_atomic
from gmmas_schema.case_record import RecordSegmentation
from gmmas_schema.errors import ConfigError, DataError
from tests.gmmas_portal.sample_case import MEASURES, PREDICTIONS, make_record, measured
from tests.gmmas_portal.web.conftest import CASE, NAMES, PortalUnderTest, add_case
from tests.gmmas_portal.web.test_reports import release, sign

DOCTOR = NAMES[Role.CLINICIAN]


def fail_a_job(site: PortalUnderTest, key: str, kind: JobKind) -> None:
    site.desk.jobs.add(kind, key, asked_by=DOCTOR)
    job = site.desk.jobs.take()
    assert job is not None
    site.desk.jobs.fail(job, DataError("a mask lies on another grid than its case", expected="the grid of the case"))


def test_what_was_entered_is_still_there_when_a_failed_analysis_is_tried_again(site: PortalUnderTest) -> None:
    doctor = site.client(Role.CLINICIAN)
    key = site.desk.cases.add(created_by=DOCTOR, context=CaseContext(age_years=12, post_operative=True), scanned_on="2026-03-01")
    fail_a_job(site, key, JobKind.ANALYSE)
    form = doctor.get(f"/cases/{key}").text.partition(f'action="/cases/{key}/again"')[2].partition("</form>")[0]
    assert "Try again" in form
    for field in ('name="age_years" type="number" min="0" max="120" value="12"', 'type="date" value="2026-03-01"', '"yes" selected'):
        assert field in form


def test_a_correction_that_failed_offers_no_other_analysis(site: PortalUnderTest) -> None:
    fail_a_job(site, site.key, JobKind.MEASURE)
    page = site.client(Role.CLINICIAN).get(f"/cases/{site.key}").text
    assert "another grid" in page
    assert "Try again" not in page, "it would put the network's outline in the place of a person's"


def test_no_two_cases_of_a_patient_have_one_name(site: PortalUnderTest) -> None:
    keys = [site.key, *(add_case(site.desk) for _ in range(2))]
    site.desk.cases.delete(keys[0])
    add_case(site.desk)
    names = [case.name for case in site.desk.cases.cases()]
    assert sorted(names) == ["P-0001-001", "P-0001-002", "P-0001-003"]


def test_a_case_at_work_is_not_deleted_under_the_worker(site: PortalUnderTest) -> None:
    doctor = site.client(Role.CLINICIAN)
    site.desk.jobs.add(JobKind.ANALYSE, site.key, asked_by=DOCTOR)
    assert "case at work" in site.post(doctor, f"/cases/{site.key}/delete", reason="uploaded twice").text
    with pytest.raises(ConfigError, match="deleted"):
        site.desk.cases.delete(site.key)
    assert site.desk.cases.case(site.key).versions == 1


def test_of_two_who_sign_or_withdraw_at_once_one_is_told(site: PortalUnderTest) -> None:
    doctor, cases = site.client(Role.CLINICIAN), site.desk.cases
    row = sign(site, doctor)
    with pytest.raises(ConfigError, match="signed already"):
        cases.sign(site.key, 1, by="dr.two", comment="", clinician=row.clinician, patient=row.patient)
    cases.withdraw(row.id, by="dr.two", reason="wrong side")
    late = site.post(doctor, f"/cases/{site.key}/report/{row.id}/withdraw", reason="another reason")
    assert late.status_code == 409
    assert "another reason" not in [line.reason for line in site.desk.audit.lines()]
    with pytest.raises(ConfigError, match="released"):
        cases.release(row.id, by=DOCTOR)


def test_a_released_report_of_an_earlier_version_can_be_taken_back(site: PortalUnderTest) -> None:
    doctor, patient = site.client(Role.CLINICIAN), site.client(Role.PATIENT)
    row = sign(site, doctor)
    release(site, doctor, row)
    path = f"/cases/{site.key}/report/{row.id}/withdraw"
    assert doctor.get(f"/cases/{site.key}/report").text.count(path) == 1
    corrected = RecordSegmentation(version=2, author=DOCTOR, sha256="9" * 64, based_on=1)
    site.desk.cases.add_version(site.key, make_record(segmentation=corrected), author=DOCTOR, reason="wrong side")
    assert patient.get(f"/mine/{row.id}").status_code == 200, "the patient still reads it"
    page = doctor.get(f"/cases/{site.key}/report").text
    assert ("To be reviewed" in page, page.count(path)) == (True, 1)
    site.post(doctor, path, reason="wrong side")
    assert patient.get(f"/mine/{row.id}").status_code == 404
    assert path not in doctor.get(f"/cases/{site.key}/report").text


def test_while_a_correction_is_measured_the_outline_before_it_is_not_released(site: PortalUnderTest) -> None:
    doctor = site.client(Role.CLINICIAN)
    row = sign(site, doctor)
    site.desk.jobs.add(JobKind.MEASURE, site.key, asked_by=DOCTOR)
    assert "case at work" in release(site, doctor, row).text
    assert site.desk.cases.report(row.id).state == "signed"


def test_the_list_tells_that_a_corrected_case_is_to_be_reviewed_and_what_the_patient_reads(site: PortalUnderTest) -> None:
    doctor = site.client(Role.CLINICIAN)
    release(site, doctor, sign(site, doctor))
    page = doctor.get("/cases").text
    assert ("report released" in page, "to be reviewed" in page) == (True, False)
    corrected = RecordSegmentation(version=2, author=DOCTOR, sha256="9" * 64, based_on=1)
    site.desk.cases.add_version(site.key, make_record(segmentation=corrected), author=DOCTOR, reason="wrong side")
    page = doctor.get("/cases").text
    assert ("to be reviewed" in page, "earlier report released" in page) == (True, True)


def test_nothing_of_a_deleted_case_stays_in_the_file(site: PortalUnderTest) -> None:
    key = add_case(site.desk, patient="Q-7777", record=make_record(case="Q-7777-000", made_at="2026-11-28T13:13:13Z"))

    def content() -> bytes:
        return b"".join(path.read_bytes() for path in site.folder.path.glob("portal.db*"))

    assert b"2026-11-28T13:13:13Z" in content()
    site.desk.cases.delete(key)
    assert b"2026-11-28T13:13:13Z" not in content()
    assert b"Q-7777" not in content()


@pytest.fixture
def framed(site: PortalUnderTest) -> MeasurementFrame:
    """The case of the platform with a frame and an outline of its own, so that it can be corrected and exported."""
    image: Any = nib.load(CASE / "BraTS2021_00006_flair.nii.gz")
    brain = np.asarray(image.dataobj) > 0
    frame = MeasurementFrame.around(brain, image.affine, to_mni=None)
    version = site.folder.version(site.key, 1)
    write_atomic(version / FRAME_FILE, frame.model_dump_json().encode())
    write_mask(version / SEGMENTATION_FILE, box(frame), frame)
    return frame


def box(frame: MeasurementFrame) -> np.ndarray:
    labels = np.zeros(frame.shape, np.uint8)
    labels[40:60, 50:70, 30:40] = 3
    return labels


def test_a_correction_of_an_old_outline_keeps_what_was_found_since(site: PortalUnderTest, framed: MeasurementFrame) -> None:
    """Somebody draws on version 1 while a colleague enters that the patient is a child: what that left open stays open."""
    doctor, cases = site.client(Role.CLINICIAN), site.desk.cases
    age = measured("context.age", "age", 12, "a", source="clinician")
    later = make_record((*MEASURES, *PREDICTIONS[2:], age), segmentation=RecordSegmentation(version=2, author="model", sha256="8" * 64))
    cases.add_version(site.key, later, author="model", reason="what is known of the case was changed")
    second = site.folder.version(site.key, 2)
    second.mkdir()
    write_atomic(second / FRAME_FILE, framed.model_dump_json().encode())
    drawn = nib.Nifti1Image(box(framed), framed.affine_array).to_bytes()
    fields = {"csrf": site.csrf(doctor), "based_on": "1", "reason": "too small"}
    assert doctor.post(f"/cases/{site.key}/correct", data=fields, files={"mask": ("m.nii", drawn)}).status_code == 303
    assert Worker(site.folder).do_next()
    job = site.desk.jobs.latest(site.key)
    assert job is not None
    assert (job.state, job.fault) == (JobState.DONE, {})
    record = cases.version(site.key).record
    assert (record.segmentation.version, record.segmentation.based_on, record.segmentation.author) == (3, 1, DOCTOR)
    assert record.fact("context.age") == age
    assert record.fact("marker.idh") is None, "of the later analysis"
    assert read_record(site.folder.version(site.key, 3)) == record


def verifiers(site: PortalUnderTest) -> list[str]:
    """Return who stands in the exported report as the one who verified it."""
    packed = zipfile.ZipFile(site.folder.version(site.key, 1) / DICOM_ARCHIVE)
    report = dcmread(io.BytesIO(packed.read("report.dcm")))
    return [str(item.VerifyingObserverName) for item in report.get("VerifyingObserverSequence", ())]


def export(site: PortalUnderTest, worker: Worker) -> None:
    site.post(site.client(Role.CLINICIAN), f"/cases/{site.key}/export")
    assert worker.do_next()
    job = site.desk.jobs.latest(site.key)
    assert job is not None
    assert (job.state, job.fault) == (JobState.DONE, {})


@pytest.mark.usefixtures("framed")
def test_dicom_files_say_who_verified_them_only_while_it_is_so(site: PortalUnderTest) -> None:
    doctor, worker = site.client(Role.CLINICIAN), Worker(site.folder)
    export(site, worker)
    assert verifiers(site) == []
    row = sign(site, doctor)
    assert doctor.get(f"/cases/{site.key}/v1/dicom.zip").status_code == 404
    export(site, worker)
    assert verifiers(site) == [f"{DOCTOR}^"]
    site.post(doctor, f"/cases/{site.key}/report/{row.id}/withdraw", reason="wrong side")
    assert doctor.get(f"/cases/{site.key}/v1/dicom.zip").status_code == 404
    assert "Make DICOM files" in doctor.get(f"/cases/{site.key}").text


@pytest.mark.usefixtures("framed")
@pytest.mark.slow
def test_a_signature_that_is_taken_back_during_an_export_is_in_none(site: PortalUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    row, worker = sign(site, site.client(Role.CLINICIAN)), Worker(site.folder)
    from gmmas_portal.web import tasks

    real = tasks.write_dicom

    def withdraw_first(*given: Any) -> None:
        site.desk.cases.withdraw(row.id, by=DOCTOR, reason="wrong side")
        real(*given)

    monkeypatch.setattr(tasks, "write_dicom", withdraw_first)
    site.desk.jobs.add(JobKind.EXPORT, site.key, asked_by=DOCTOR, detail={"version": 1})
    assert worker.do_next()
    job = site.desk.jobs.latest(site.key)
    assert job is not None
    assert "taken back meanwhile" in job.fault["what"]
    assert not (site.folder.version(site.key, 1) / DICOM_ARCHIVE).exists()


@pytest.mark.usefixtures("framed")
def test_an_export_that_was_stopped_is_made_at_the_next_start(site: PortalUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    import highdicom.sr

    worker = Worker(site.folder)

    def stopped(*_given: Any, **_named: Any) -> None:
        raise StopAsked

    site.desk.jobs.add(JobKind.EXPORT, site.key, asked_by=DOCTOR, detail={"version": 1})
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(highdicom.sr.Comprehensive3DSR, "save_as", stopped)
        with pytest.raises(StopAsked):
            worker.do_next()
    assert Worker(site.folder).do_next()
    job = site.desk.jobs.latest(site.key)
    assert job is not None
    assert (job.state, job.fault) == (JobState.DONE, {})
    assert verifiers(site) == []
