"""From an upload to findings and back: the worker's jobs on a real case, with random weights."""

import io
import json
import os
import re
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gmmas_portal.analysis import fact_ids as ids
from gmmas_portal.web.accounts import Role
from gmmas_portal.web.intake import DRAFT_FILE, Draft
from gmmas_portal.web.jobs import JobKind, JobState
from gmmas_portal.web.model_copy import read_papers
from gmmas_portal.web.settings import OwnThreshold, PortalFolder
from gmmas_portal.web.worker import StopAsked, Worker
from gmmas_schema.vocabulary import Modality
from tests.gmmas_data.test_dicom_import import write_series
from tests.gmmas_data.test_skull_stripping import peeler
from tests.gmmas_portal.web.conftest import CASE, NAMES, PortalUnderTest
from tests.server.dashboard.conftest import Browser

NAME = b"DOE JANE"


def telling(path: Path) -> bytes:
    """Return a scan whose header names somebody."""
    image: Any = nib.load(path)
    image.header["descrip"] = NAME
    content: bytes = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header).to_bytes()
    return content


def send(site: PortalUnderTest, doctor: Browser, files: dict[str, bytes]) -> Any:
    return doctor.post("/upload", data={"csrf": site.csrf(doctor)}, files=[("files", (name, content)) for name, content in files.items()])


@pytest.fixture
def worker(site: PortalUnderTest) -> Worker:
    return Worker(site.folder)


def test_an_upload_becomes_a_case_with_findings_a_correction_and_files(site: PortalUnderTest, worker: Worker) -> None:
    doctor = site.client(Role.CLINICIAN)

    # 1. upload, with names that tell nothing the platform should keep
    files = {f"DOE_JANE_{m}.nii": telling(CASE / f"BraTS2021_00006_{m}.nii.gz") for m in ("t1ce", "flair")}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in files.items():
            packed.writestr(f"study/{name}", content)
    answer = send(site, doctor, {"study.zip": archive.getvalue()})
    assert answer.status_code == 303
    draft = answer.headers["location"]
    assert "Looking at what was uploaded" in doctor.get(draft).text
    assert worker.do_next()

    # 2. what was found is shown, with a proposal to confirm
    page = doctor.get(draft).text
    assert page.count("DOE JANE") >= 2, "whoever uploads sees what is dropped"
    numbers = {
        m: page.partition(f'aria-label="Sequence of DOE_JANE_{m}"')[0].rpartition('name="image_')[2].partition('"')[0]
        for m in ("t1ce", "flair")
    }
    for modality, number in numbers.items():
        chosen = page.partition(f'name="image_{number}"')[2].partition("</select>")[0]
        assert f'value="{modality}" selected' in chosen
    fields = {f"image_{number}": modality for modality, number in numbers.items()}
    assert site.post(doctor, draft, patient="Doe, Jane", **fields).status_code == 409, "a name is no pseudonym"
    assert site.post(doctor, draft, patient="P-0009").status_code == 409, "no sequence"
    twice = site.post(doctor, draft, patient="P-0009", **dict.fromkeys(fields, "flair"))
    assert twice.status_code == 409
    answer = site.post(doctor, draft, patient="P-0009", age_years="54", post_operative="no", scanned_on="2026-03-31", **fields)
    key = answer.headers["location"].rpartition("/")[2]
    assert "The case is being analysed" in doctor.get(f"/cases/{key}").text

    # 3. analysis
    assert worker.do_next()
    job = site.desk.jobs.latest(key)
    assert job is not None
    assert (job.state, job.fault) == (JobState.DONE, {})
    case, version = site.desk.cases.case(key), site.desk.cases.version(key)
    assert (case.name, case.patient, case.scanned_on, case.context.age_years) == ("P-0009-000", "P-0009", "2026-03-31", 54)
    assert version.record.case == "P-0009-000"
    assert version.record.modalities_used == (Modality.T1CE, Modality.FLAIR)
    assert version.record.fact(ids.AGE) is not None
    assert list(site.folder.incoming.iterdir()) == [], "the upload is gone"
    kept = b"".join(path.read_bytes() for path in site.folder.path.rglob("*") if path.is_file() and "log" not in path.parts)
    assert not [name for name in (NAME, b"DOE_JANE") if name in kept]
    for path in (site.folder.cases / key).rglob("*.nii.gz"):
        assert NAME not in nib.load(path).header.binaryblock
    assert doctor.get(f"/cases/{key}/image/flair.nii.gz").content[:2] == b"\x1f\x8b"
    assert doctor.get(f"/cases/{key}/v1/montage.png").content[:4] == b"\x89PNG"
    line = next(line for line in site.desk.audit.lines() if line.action == "analysed")
    assert (line.who, line.subject, line.model) == (NAMES[Role.CLINICIAN], key, version.record.model.weights_sha256)
    assert line.output == version.record.digest()

    # 4. correction: a NIfTI of the case's grid; the one before stays
    outline: Any = nib.load(site.folder.version(key, 1) / "segmentation.nii.gz")
    labels = np.zeros(outline.shape, np.uint8)
    labels[40:60, 50:70, 30:40] = 3
    corrected = nib.Nifti1Image(labels, outline.affine).to_bytes()
    fields = {"csrf": site.csrf(doctor), "based_on": "1"}
    for reason, content in (("", corrected), ("too large", b"no NIfTI at all"), ("too large", b"")):
        refused = doctor.post(f"/cases/{key}/correct", data={**fields, "reason": reason}, files={"mask": ("m.nii", content)})
        assert refused.status_code == 409
    answer = doctor.post(f"/cases/{key}/correct", data={**fields, "reason": "too large"}, files={"mask": ("m.nii", corrected)})
    assert answer.status_code == 303
    busy = doctor.post(f"/cases/{key}/correct", data={**fields, "reason": "too large"}, files={"mask": ("m.nii", corrected)})
    assert busy.status_code == 409
    assert worker.do_next()
    second = site.desk.cases.version(key)
    assert (second.version, second.author, second.reason, second.record.segmentation.based_on) == (2, NAMES[Role.CLINICIAN], "too large", 1)
    volume = second.record.fact(ids.VOLUME_ET)
    assert volume is not None
    assert volume.value == pytest.approx(20 * 20 * 10 * 8 / 1000)
    assert site.desk.cases.version(key, 1).record == version.record
    assert "too large" in doctor.get(f"/cases/{key}").text

    # 5. an outline of another grid is refused by the worker, and told
    other = nib.Nifti1Image(labels[1:], outline.affine).to_bytes()
    doctor.post(f"/cases/{key}/correct", data={**fields, "reason": "another"}, files={"mask": ("m.nii", other)})
    assert worker.do_next()
    assert "another grid" in doctor.get(f"/cases/{key}").text
    assert site.desk.cases.version(key).version == 2

    # 6. DICOM
    assert site.post(doctor, f"/cases/{key}/export").status_code == 303
    assert worker.do_next()
    files_of = zipfile.ZipFile(io.BytesIO(doctor.get(f"/cases/{key}/v2/dicom.zip").content)).namelist()
    assert {"segmentation.dcm", "report.dcm"} <= set(files_of)
    assert site.desk.audit.verify().broken_at is None


def test_the_hospitals_own_threshold_decides_what_is_unlike_a_glioma(site: PortalUnderTest) -> None:
    own = OwnThreshold(score=0.0, patients=20, weights_sha256=read_papers(site.folder).sha256)
    folder = PortalFolder.make(site.folder.path, site.folder.config.model_copy(update={"novelty": own}))
    site.desk.jobs.add(JobKind.ANALYSE, site.key, asked_by=NAMES[Role.CLINICIAN])
    assert Worker(folder).do_next()
    assert "known gliomas up to 0.00" in " ".join(each.reason for each in site.desk.cases.version(site.key).record.abstentions)


def test_a_dicom_study_becomes_a_case_under_a_pseudonym_of_its_own(site: PortalUnderTest, worker: Worker, tmp_path: Path) -> None:
    doctor = site.client(Role.CLINICIAN)
    write_series(tmp_path / "in", 3, RepetitionTime=600, EchoTime=10, ContrastBolusAgent="Gadovist", PatientBirthDate="19600101")
    write_series(tmp_path / "in", 5, RepetitionTime=9000, EchoTime=110, InversionTime=2500)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted((tmp_path / "in").iterdir()):
            packed.write(path, f"DICOM/{path.name}")
    keys = []
    for _ in range(2):  # the same study twice: imported once
        draft = send(site, doctor, {"export.zip": archive.getvalue()}).headers["location"]
        assert worker.do_next()
        page = doctor.get(draft).text
        for shown in ("Doe^Jane", "P1", "19600101", 'value="2020-01-01"', "TR 600 ms", "PatientName"):
            assert shown in page
        for number, modality in ((3, "t1ce"), (5, "flair")):
            assert f'value="{modality}" selected' in page.partition(f'name="image_{number}"')[2].partition("</select>")[0]
        answer = site.post(doctor, draft, image_3="t1ce", image_5="flair", scanned_on="2020-01-01")
        keys.append(answer.headers["location"].rpartition("/")[2])
        assert worker.do_next()
    first, second = (site.desk.cases.case(key) for key in keys)
    assert first.name.startswith("GMMAS-")
    assert (first.patient, first.images) == (second.patient, second.images)
    assert set(first.images) == {Modality.T1CE, Modality.FLAIR}
    kept = b"".join(path.read_bytes() for path in site.folder.path.rglob("*") if path.is_file())
    assert not [word for word in (b"Doe", b"19600101") if word in kept]
    site.post(doctor, f"/cases/{keys[0]}/delete", reason="uploaded twice")
    assert all((site.folder.path / path).is_file() for path in second.images.values())
    site.post(doctor, f"/cases/{keys[1]}/delete", reason="uploaded twice")
    assert not any((site.folder.path / path).exists() for path in second.images.values())


@pytest.mark.slow  # tests/gmmas_data/test_skull_stripping.py takes skulls off in the short suite
def test_the_skull_of_a_study_comes_off_by_the_program_of_the_hospital(site: PortalUnderTest, tmp_path: Path) -> None:
    doctor = site.client(Role.CLINICIAN)
    assert "their skull stays on" in doctor.get("/upload").text
    config = site.folder.config.model_copy(update={"skull_stripper": peeler(tmp_path, "good")})
    site.desk.folder = replace(site.folder, config=config)
    assert "a program takes their skull off" in doctor.get("/upload").text
    write_series(tmp_path / "in", 3, RepetitionTime=600, EchoTime=10, ContrastBolusAgent="Gadovist", PixelSpacing=[12, 12])
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted((tmp_path / "in").iterdir()):
            packed.write(path, f"DICOM/{path.name}")
    worker = Worker(site.desk.folder)
    draft = send(site, doctor, {"export.zip": archive.getvalue()}).headers["location"]
    assert worker.do_next()
    assert f"{Path(sys.executable).name} takes the skull off" in doctor.get(draft).text
    answer = site.post(doctor, draft, image_3="t1ce", scanned_on="2020-01-01")
    assert worker.do_next()
    case = site.desk.cases.case(answer.headers["location"].rpartition("/")[2])
    record = json.loads((site.folder.path / case.images[Modality.T1CE]).with_name("import.json").read_text())
    assert record["skull_stripped"]


def test_an_upload_that_is_no_study_is_told_and_can_be_thrown_away(site: PortalUnderTest, worker: Worker) -> None:
    doctor = site.client(Role.CLINICIAN)
    assert send(site, doctor, {}).status_code == 409
    draft = send(site, doctor, {"letter.txt": b"Dear colleague"}).headers["location"]
    assert worker.do_next()
    page = doctor.get(draft).text
    assert "No MR series was found" in page
    assert "letter" not in page
    assert site.post(doctor, draft, patient="P-1").status_code == 409
    assert site.post(doctor, f"{draft}/discard").status_code == 303
    assert list(site.folder.incoming.iterdir()) == []
    assert doctor.get(draft).status_code == 409


def test_a_hostile_archive_leaves_nothing(site: PortalUnderTest) -> None:
    doctor = site.client(Role.CLINICIAN)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("../../portal.yaml", "model: evil")
    before = (site.folder.path / "portal.yaml").read_bytes()
    answer = send(site, doctor, {"study.zip": archive.getvalue()})
    assert answer.status_code == 409
    assert "leads out of the archive" in answer.text
    assert (site.folder.path / "portal.yaml").read_bytes() == before
    assert list(site.folder.incoming.iterdir()) == []


def test_old_uploads_are_swept_away(site: PortalUnderTest, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    doctor = site.client(Role.CLINICIAN)
    send(site, doctor, {"a.nii": b"x"})
    worker.sweep()
    assert len(list(site.folder.incoming.iterdir())) == 1
    monkeypatch.setattr("gmmas_portal.web.worker.DRAFT_HOURS", -1.0)
    worker.sweep()
    assert list(site.folder.incoming.iterdir()) == []


def test_a_worker_that_is_told_to_stop_puts_its_job_back(site: PortalUnderTest, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    site.desk.jobs.add(JobKind.ANALYSE, site.key, asked_by="anna")

    def stopped(*_: Any) -> None:
        raise StopAsked

    monkeypatch.setattr(worker.workshop, "do", stopped)
    with pytest.raises(StopAsked):
        worker.run(threading.Event())
    job = site.desk.jobs.latest(site.key)
    assert job is not None
    assert (job.state, job.attempts) == (JobState.QUEUED, 0)


def test_a_fault_of_ours_is_told_without_its_text_and_the_worker_goes_on(
    site: PortalUnderTest, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.desk.jobs.add(JobKind.ANALYSE, site.key, asked_by="anna")

    def broken(*_: Any) -> None:
        raise RuntimeError("/srv/Jane Doe")

    monkeypatch.setattr(worker.workshop, "do", broken)
    assert worker.do_next()
    page = site.client(Role.CLINICIAN).get(f"/cases/{site.key}").text
    assert "The software failed" in page
    assert "Jane" not in page
    assert not worker.do_next()


@pytest.mark.slow
def test_the_sample_case_is_a_phantom_made_here(site: PortalUnderTest, worker: Worker) -> None:
    key = site.desk.cases.add(created_by=NAMES[Role.CLINICIAN], sample=True)
    site.desk.jobs.add(JobKind.SAMPLE, key, asked_by=NAMES[Role.CLINICIAN])
    assert worker.do_next()
    case = site.desk.cases.case(key)
    assert (case.name, case.versions, set(case.images)) == ("SAMPLE-PHANTOM", 1, set(Modality))
    assert list(site.folder.incoming.iterdir()) == []


def draft_of(site: PortalUnderTest, doctor: Browser) -> str:
    """Upload an image, and have it looked at."""
    draft: str = send(site, doctor, {"scan.nii": telling(CASE / "BraTS2021_00006_flair.nii.gz")}).headers["location"]
    assert Worker(site.folder).do_next()
    return draft


def test_an_upload_that_was_confirmed_waits_however_long_the_platform_stood_still(site: PortalUnderTest, worker: Worker) -> None:
    doctor = site.client(Role.CLINICIAN)
    kept, old = draft_of(site, doctor), draft_of(site, doctor)
    site.post(doctor, kept, image_1="flair", patient="P-0009")
    folders = {path.name: path for path in site.folder.incoming.iterdir()}
    for path in folders.values():
        os.utime(path, (0, 0))
    worker.sweep()
    assert [f"/upload/{path.name}" for path in site.folder.incoming.iterdir()] == [kept]
    assert doctor.get(old).status_code == 409
    assert site.post(doctor, f"{kept}/discard").status_code == 409, "an analysis needs it"
    assert doctor.get(kept).status_code == 200


def test_whoever_confirms_twice_makes_one_case(site: PortalUnderTest) -> None:
    doctor = site.client(Role.CLINICIAN)
    draft, before = draft_of(site, doctor), len(site.desk.cases.cases())
    first, second = (site.post(doctor, draft, image_1="flair", patient="P-0009") for _ in range(2))
    assert first.headers["location"].startswith("/cases/")
    assert (second.status_code, second.headers["location"]) == (303, "/cases")
    assert len(site.desk.cases.cases()) == before + 1


def test_a_study_of_many_series_can_be_confirmed(site: PortalUnderTest) -> None:
    """Its form has a field for each of them; it is sent as a browser sends the form of the page."""
    doctor = site.client(Role.CLINICIAN)
    draft = draft_of(site, doctor)
    path = site.folder.incoming / draft.rpartition("/")[2] / DRAFT_FILE
    found = Draft.model_validate_json(path.read_bytes())
    images = tuple(found.images[0].model_copy(update={"number": number}) for number in range(1, 41))
    path.write_text(found.model_copy(update={"images": images}).model_dump_json())
    page = doctor.get(draft).text
    form = page.partition(f'<form method="post" action="{draft}"')[2].partition("</form>")[0]
    fields = dict.fromkeys(re.findall(r'name="([^"]+)"', form), "")
    assert len(fields) > 50
    fields |= {"csrf": site.csrf(doctor), "image_7": "flair", "patient": "P-0009"}
    sent = {"files": {name: (None, value) for name, value in fields.items()}} if "multipart/form-data" in form else {"data": fields}
    answer = doctor.post(draft, **sent)
    assert answer.status_code == 303
    job = site.desk.jobs.latest(answer.headers["location"].rpartition("/")[2])
    assert job is not None
    assert job.detail["chosen"] == {"flair": 7}


def test_a_case_that_never_got_its_images_takes_its_upload_with_it(site: PortalUnderTest) -> None:
    doctor = site.client(Role.CLINICIAN)
    draft = draft_of(site, doctor)
    key = site.post(doctor, draft, image_1="flair", patient="P-0009").headers["location"].rpartition("/")[2]
    job = site.desk.jobs.take()
    assert job is not None
    site.desk.jobs.fail(job, RuntimeError("full"))
    site.post(doctor, f"/cases/{key}/delete", reason="asked for by the patient")
    assert list(site.folder.incoming.iterdir()) == []
