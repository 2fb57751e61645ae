"""What each kind of job does. Everything that opens an image of a patient is called from here, in the worker's process.

Whatever a job writes, it may have written before: an interrupted one is begun again from its start, and ends in the same state.
"""

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np

from gmmas_data.cases import Case, patient_of
from gmmas_data.dicom_import import import_study
from gmmas_data.dicom_series import read_series
from gmmas_data.layouts import read_case
from gmmas_data.phantom.atlas import load_atlas
from gmmas_data.phantom.case import make_case
from gmmas_data.phantom.files import write_case
from gmmas_data.volumes import read_image
from gmmas_portal.analysis import (
    KnownModel,
    analyse,
    draw_montage,
    read_frame,
    read_mask,
    remeasure,
    write_analysis,
    write_mask,
)
from gmmas_portal.analysis.files import FRAME_FILE, MONTAGE_FILE, RECORD_FILE, SEGMENTATION_FILE, UNCERTAINTY_FILE
from gmmas_portal.exports import export_dicom, write_dicom
from gmmas_portal.web.accounts import MODEL_AUTHOR
from gmmas_portal.web.audit import AuditTrail, digest_of
from gmmas_portal.web.cases import CaseRow, CaseStore
from gmmas_portal.web.craft import reword_reports
from gmmas_portal.web.deidentification import write_clean_copy
from gmmas_portal.web.intake import discard, draft_folder, look_at, read_draft, study_files
from gmmas_portal.web.jobs import Job, JobKind
from gmmas_portal.web.settings import DICOM_ARCHIVE, PortalFolder
from gmmas_runtime.files import clear_unfinished, make_private_folder, sha256_file, whole_folder, write_atomic
from gmmas_schema.case_record import CaseRecord
from gmmas_schema.dicom import SeriesMap
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.phantom import SCANNERS
from gmmas_schema.vocabulary import Layout, Modality, Subtype
from gmmas_workflows.model_source import open_model

SAMPLE_NAME, PHANTOM_NAME = "SAMPLE", "SAMPLE-PHANTOM"
_SAMPLE_SEED, _SAMPLE_SPACING_MM = 20_260_331, 2.0

Tell = Callable[[str, int, int], None]
"""Told of each step: what, done, total."""


@dataclass
class Workshop:
    """Does jobs of one platform.

    Attributes:
        folder: of the platform.
        cases: where results are kept.
        audit: told of every result.
    """

    folder: PortalFolder
    cases: CaseStore
    audit: AuditTrail

    @cached_property
    def model(self) -> KnownModel:
        """The model in use, read once in the life of a worker."""
        return KnownModel.of(open_model(str(self.folder.model), authority=self.folder.authority))

    def do(self, job: Job, tell: Tell) -> None:
        """Do a job.

        Raises:
            GmmasError: with what the person who asked can do about it.
        """
        match job.kind:
            case JobKind.LOOK:
                look_at(draft_folder(self.folder.incoming, job.subject), imports=self.folder.imports, on_step=tell)
            case JobKind.SAMPLE:
                self._place_sample(job, tell)
                self._analyse(job, tell)
            case JobKind.ANALYSE:
                if job.detail.get("draft") and not self.cases.case(job.subject).images:
                    self._place(job, tell)
                self._analyse(job, tell)
            case JobKind.EXPORT:
                self._export(job, tell)
            case JobKind.REWORD:
                self._reword(job, tell)
            case JobKind.MEASURE:
                self._measure(job, tell)

    def _place(self, job: Job, tell: Tell) -> None:
        """Make the case's images of an upload, and throw the upload away."""
        draft = read_draft(self.folder.incoming, job.detail["draft"])
        if draft is None:
            raise _lost()
        numbers = {Modality(name): int(number) for name, number in job.detail["chosen"].items()}
        if draft.kind == "dicom":
            self._place_study(job, numbers, tell)
        else:
            source, files = draft_folder(self.folder.incoming, job.detail["draft"]), {one.number: one.file for one in draft.images}
            paths = {modality: source / files[number] for modality, number in numbers.items()}
            patient = job.detail["patient"]
            self._place_images(job.subject, paths, name=self.cases.next_name(patient), patient=patient, tell=tell)
        discard(self.folder.incoming, job.detail["draft"])

    def _place_study(self, job: Job, numbers: dict[Modality, int], tell: Tell) -> None:
        series = read_series(study_files(draft_folder(self.folder.incoming, job.detail["draft"])))
        chosen = SeriesMap(**{modality.value: number for modality, number in numbers.items()})
        path, record = import_study(series, chosen, self.folder.imports, stripper=self.folder.config.skull_stripper, on_progress=tell)
        images = {modality: str(file.relative_to(self.folder.path)) for modality, file in read_case(path).images.items()}
        self.cases.place(job.subject, name=record.case_id, patient=patient_of(record.case_id), images=images)

    def _place_images(self, key: str, paths: dict[Modality, Path], *, name: str, patient: str, tell: Tell) -> None:
        """Write copies without names of the images into the case's own folder."""
        target = self.folder.cases / key / "images"
        if not target.exists():
            make_private_folder(target.parent)
            shutil.rmtree(target.parent / f".unfinished-{target.name}", ignore_errors=True)
            with whole_folder(target) as made:
                for place, (modality, path) in enumerate(paths.items()):
                    tell("taking names off the images", place, len(paths))
                    write_clean_copy(path, made / f"{modality}.nii.gz")
        relative = {modality: str((target / f"{modality}.nii.gz").relative_to(self.folder.path)) for modality in paths}
        self.cases.place(key, name=name, patient=patient, images=relative)

    def _place_sample(self, job: Job, tell: Tell) -> None:
        """Give the sample case its images: of a folder that was named, or of a phantom made here."""
        if self.cases.case(job.subject).images:
            return
        if source := job.detail.get("folder"):
            self._place_images(job.subject, dict(read_case(Path(source)).images), name=SAMPLE_NAME, patient=SAMPLE_NAME, tell=tell)
            return
        tell("making a phantom patient", 0, 1)
        scratch = make_private_folder(self.folder.incoming / f"sample-{secrets.token_hex(4)}")
        try:
            seed = np.random.SeedSequence(_SAMPLE_SEED)
            atlas, scanner = load_atlas(2), SCANNERS["research-3t"]
            phantom = make_case(seed, atlas=atlas, subtype=Subtype.GLIOBLASTOMA, scanner=scanner, spacing_mm=_SAMPLE_SPACING_MM)
            write_case(scratch / "BraTS-GLI-00000-000", phantom, layout=Layout.BRATS2023, segmentation=False)
            images = dict(read_case(scratch / "BraTS-GLI-00000-000").images)
            self._place_images(job.subject, images, name=PHANTOM_NAME, patient=PHANTOM_NAME, tell=tell)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _analyse(self, job: Job, tell: Tell) -> None:
        """Predict and measure; the record is the case's next version."""
        row = self.cases.case(job.subject)
        case = self._case_of(row)
        threshold = self.folder.config.threshold_for(self.model.weights.sha256)
        context = row.context.model_copy(update={"pseudonym": row.name[:64], "ood_threshold": threshold})
        analysis = analyse(case, self.model, plan=self.folder.config.plan, context=context, on_progress=tell)
        version = row.versions + 1
        outline = analysis.record.segmentation.model_copy(update={"version": version})
        record = analysis.record.model_copy(update={"segmentation": outline})
        target = self._fresh(row.key, version)
        write_analysis(replace(analysis, record=record), target)
        self._keep(job, record, author=MODEL_AUTHOR, reason=job.detail.get("reason", "first analysis"), action="analysed")

    def _measure(self, job: Job, tell: Tell) -> None:
        """Measure an outline that a person corrected; it is the case's next version."""
        row = self.cases.case(job.subject)
        made = self.folder.cases / row.key / "corrections" / job.detail["mask"]
        # What the network said, and what was entered, stand in its last analysis, which may be later than the outline that was corrected.
        before = next(version.record for version in self.cases.versions(row.key) if version.author == MODEL_AUTHOR)
        base = self.folder.version(row.key, before.segmentation.version)
        tell("measuring the corrected outline", 0, 2)
        frame = read_frame(base)
        labels_IJK = read_mask(made, frame)
        record = remeasure(before, labels_IJK, author=job.asked_by, frame=frame)
        version = row.versions + 1
        outline = record.segmentation.model_copy(update={"version": version, "based_on": int(job.detail["based_on"])})
        record = record.model_copy(update={"segmentation": outline})
        tell("drawing", 1, 2)
        with whole_folder(self._fresh(row.key, version)) as folder:
            write_atomic(folder / RECORD_FILE, record.model_dump_json(indent=1).encode())
            write_mask(folder / SEGMENTATION_FILE, labels_IJK, frame)
            for name in (FRAME_FILE, UNCERTAINTY_FILE):
                if (base / name).is_file():
                    shutil.copyfile(base / name, folder / name)
            images = {modality: read_image(path).values_XYZ for modality, path in self._case_of(row).images.items()}
            write_atomic(folder / MONTAGE_FILE, draw_montage(images, labels_IJK, frame.affine_array))
        self._keep(job, record, author=job.asked_by, reason=job.detail["reason"], action="measured a corrected outline")
        made.unlink(missing_ok=True)

    def _export(self, job: Job, tell: Tell) -> None:
        """Make the DICOM objects of a version: images under the pseudonym, segmentation, structured report; one archive."""
        row, version = self.cases.case(job.subject), int(job.detail["version"])
        base, record = self.folder.version(row.key, version), self.cases.version(row.key, version).record
        tell("making DICOM files", 0, 2)
        frame = read_frame(base)
        labels_IJK = read_mask(base / SEGMENTATION_FILE, frame)
        signer = self._signer(row.key, version)
        verified_by = (signer, self.folder.config.institution) if signer else None
        made = export_dicom(record, labels_IJK, frame=frame, images=self._case_of(row).images, verified_by=verified_by)
        tell("packing", 1, 2)
        scratch = base / ".dicom"
        shutil.rmtree(scratch, ignore_errors=True)
        clear_unfinished(base)
        try:
            write_dicom(made, scratch)
            packed = shutil.make_archive(str(base / ".packing"), "zip", scratch)
            Path(packed).chmod(0o600)
            Path(packed).replace(base / DICOM_ARCHIVE)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        if self._signer(row.key, version) != signer:
            (base / DICOM_ARCHIVE).unlink(missing_ok=True)
            raise DataError("the report was signed or taken back meanwhile", expected="a report as it was", remedy="make the files again")
        output = sha256_file(base / DICOM_ARCHIVE)
        self.audit.note("exported", who=job.asked_by, subject=row.key, outcome=f"version {version}", input=record.digest(), output=output)

    def _signer(self, key: str, version: int) -> str:
        """Return who signed the report of a version; empty where nobody did, or it was taken back."""
        standing = (report for report in self.cases.reports(key) if report.version == version and report.withdrawn is None)
        return next((report.signed_by for report in standing), "")

    def _reword(self, job: Job, tell: Tell) -> None:
        """Ask the language model for other words; a fault of it leaves the templates."""
        version = int(job.detail["version"])
        record, folder = self.cases.version(job.subject, version).record, self.folder.version(job.subject, version)
        tell("asking the language model", 0, 1)
        settings = self.folder.config.language
        today = datetime.now(UTC).date()
        reword_reports(record, folder=folder, on=today, settings=settings, audit=self.audit, by=job.asked_by, subject=job.subject)

    def _keep(self, job: Job, record: CaseRecord, *, author: str, reason: str, action: str) -> None:
        self.cases.add_version(job.subject, record, author=author, reason=reason)
        inputs = digest_of("\n".join(f"{modality} {sha256}" for modality, sha256 in sorted(record.inputs.items())))
        self.audit.note(
            action,
            who=job.asked_by,
            subject=job.subject,
            outcome=f"version {record.segmentation.version}",
            model=record.model.weights_sha256,
            input=inputs,
            output=digest_of(record),
            reason=reason,
        )

    def _case_of(self, row: CaseRow) -> Case:
        images = {modality: self.folder.path / path for modality, path in row.images.items()}
        # Label maps are kept in our own values, which are those of this layout.
        return Case(row.name, row.patient, images, None, Layout.BRATS2023)

    def _fresh(self, key: str, version: int) -> Path:
        """Return the folder of a version that is about to be written; what an interrupted job left of it is removed."""
        target = self.folder.version(key, version)
        for left in (target, target.with_name(f".unfinished-{target.name}")):
            shutil.rmtree(left, ignore_errors=True)
        make_private_folder(target.parent)
        return target


def _lost() -> DataError:
    return DataError(
        "the upload is no longer there",
        got="no files",
        expected="the files that were confirmed",
        remedy="upload them again",
        code=ReasonCode.DATA_EMPTY,
    )
