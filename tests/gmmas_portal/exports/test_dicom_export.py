from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from gmmas_portal.analysis import Analysis, remeasure
from gmmas_portal.exports import export_dicom
from gmmas_portal.exports.identity import CaseIdentity, person_name
from gmmas_portal.exports.mr_series import make_mr_series
from gmmas_schema.case_record import CaseRecord
from gmmas_schema.errors import DataError
from gmmas_schema.vocabulary import Modality


def test_the_folder_holds_all_objects_of_one_study(analysis: Analysis, exported: Path) -> None:
    slices = analysis.frame.shape[2]
    files = sorted(path.name for path in exported.iterdir())
    assert len(files) == 2 * slices + 2
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in exported.iterdir()]
    assert len({str(h.StudyInstanceUID) for h in headers}) == 1
    assert len({str(h.SOPInstanceUID) for h in headers}) == len(headers)
    assert {str(h.PatientID) for h in headers} == {analysis.record.case}
    assert len({str(h.SeriesInstanceUID) for h in headers}) == 4


def test_nothing_outlined_gives_a_report_and_no_segmentation(analysis: Analysis) -> None:
    empty = np.zeros(analysis.frame.shape, dtype=np.uint8)
    record = remeasure(analysis.record, empty, author="dr.weber", frame=analysis.frame)
    export = export_dicom(record, empty, frame=analysis.frame, images={Modality.T2: analysis.case.images[Modality.T2]})
    assert export.segmentation is None
    assert export.report.ContentTemplateSequence[0].TemplateIdentifier == "1500"


@pytest.fixture(scope="module")
def acquired(analysis: Analysis, tmp_path_factory) -> list[Path]:
    """A series as a scanner might have made it: another grid in the same space, under a patient's own identifiers."""
    folder = tmp_path_factory.mktemp("acquired")
    affine = analysis.frame.affine_array @ np.diag([2.0, 2, 3, 1])
    identity = replace(CaseIdentity.of(analysis.record), case="MRN-42", study_uid="1.2.3.4", frame_uid="1.2.3.5")
    series = make_mr_series(np.ones((30, 30, 12), dtype=np.float32), affine, modality=Modality.T1CE, identity=identity)
    for number, one in enumerate(series):
        one.PatientName = "Miller^Ann"
        one.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return sorted(folder.iterdir())


def test_beside_its_own_images_a_case_keeps_its_patient_and_its_space(analysis: Analysis, acquired: list[Path]) -> None:
    export = export_dicom(analysis.record, analysis.labels_IJK, frame=analysis.frame, images={}, source_dicom=acquired)
    assert export.images == {}
    for one in (export.segmentation, export.report):
        assert (str(one.PatientName), one.PatientID, one.StudyInstanceUID) == ("Miller^Ann", "MRN-42", "1.2.3.4")
    assert export.segmentation.FrameOfReferenceUID == "1.2.3.5"
    volume = export.segmentation.get_volume(segment_numbers=[1])
    assert float(np.count_nonzero(volume.array)) * float(np.prod(volume.spacing)) / 1000 == pytest.approx(
        analysis.record.fact("volume.wt").value
    )


def test_images_of_two_studies_or_of_no_mr_are_refused(analysis: Analysis, acquired: list[Path], tmp_path: Path) -> None:
    other = pydicom.dcmread(acquired[0])
    other.StudyInstanceUID = "1.2.3.9"
    other.save_as(tmp_path / "other.dcm")
    not_mr = pydicom.dcmread(acquired[0])
    not_mr.Modality = "CT"
    not_mr.save_as(tmp_path / "ct.dcm")
    (tmp_path / "no.dcm").write_bytes(b"no dicom")
    for paths in ([acquired[1], tmp_path / "other.dcm"], [tmp_path / "ct.dcm"], [tmp_path / "no.dcm"]):
        with pytest.raises(DataError, match="DICOM images"):
            export_dicom(analysis.record, analysis.labels_IJK, frame=analysis.frame, images={}, source_dicom=paths)


def test_the_same_record_is_the_same_object_and_a_later_one_is_not(analysis: Analysis, corrected: CaseRecord) -> None:
    first, again, later = (CaseIdentity.of(record) for record in (analysis.record, analysis.record.model_copy(), corrected))
    assert first.uid("report") == again.uid("report") != later.uid("report")
    assert first.uid("report") != first.uid("segmentation")
    assert (first.study_uid, first.frame_uid) == (later.study_uid, later.frame_uid)
    assert first.image_uid("image", "t1", "1") == later.image_uid("image", "t1", "1") != first.image_uid("image", "t1", "2")


@pytest.mark.parametrize(
    ("text", "name"),
    [("P-001", "P-001^"), ("Weber^Anna", "Weber^Anna"), ("a=b\\c", "a b c^"), ("x" * 100, "x" * 63 + "^")],
)
def test_names_are_such_that_dicom_takes_them(text: str, name: str) -> None:
    assert person_name(text) == name
