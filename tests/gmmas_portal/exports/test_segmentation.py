"""The segmentation read back by pydicom alone (frames and their positions) and by highdicom."""

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from gmmas_portal.analysis import Analysis
from gmmas_portal.exports import export_dicom
from gmmas_portal.exports.concepts import SEGMENTS, segment_masks
from gmmas_schema.case_record import CaseRecord
from gmmas_schema.vocabulary import Modality


def _voxels_by_pydicom(path: Path, affine: np.ndarray, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return each segment's mask on the case's voxels, from patient coordinates of frames and pixels alone."""
    seg = pydicom.dcmread(path)
    frames = seg.pixel_array
    labels = {int(item.SegmentNumber): str(item.SegmentLabel) for item in seg.SegmentSequence}
    shared = seg.SharedFunctionalGroupsSequence[0]
    across_mm, along_mm = (float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing[::-1])
    direction = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=float)
    masks = {label: np.zeros(shape, dtype=bool) for label in labels.values()}
    to_voxel = np.linalg.inv(affine)
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = int(group.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        rows, columns = np.nonzero(frame)
        places = corner + columns[:, None] * across_mm * direction[:3] + rows[:, None] * along_mm * direction[3:]
        places[:, :2] *= -1
        voxels = np.rint(places @ to_voxel[:3, :3].T + to_voxel[:3, 3]).astype(int)
        masks[labels[number]][tuple(voxels.T)] = True
    return masks


def test_every_segment_is_the_mask_voxel_by_voxel(analysis: Analysis, outlined: np.ndarray, exported: Path) -> None:
    found = _voxels_by_pydicom(exported / "segmentation.dcm", analysis.frame.affine_array, analysis.frame.shape)
    expected = segment_masks(outlined)
    for kind in SEGMENTS:
        assert expected[kind.key].any()
        assert np.array_equal(found[kind.label], expected[kind.key]), kind.label


def test_volumes_of_the_segments_are_those_of_the_record(corrected: CaseRecord, exported: Path) -> None:
    seg = highdicom.seg.segread(exported / "segmentation.dcm")
    for number, kind in enumerate(SEGMENTS, start=1):
        volume = seg.get_volume(segment_numbers=[number])
        ml = float(np.count_nonzero(volume.array)) * float(np.prod(volume.spacing)) / 1000
        fact = corrected.fact(f"volume.{kind.key}")
        assert fact is not None
        assert ml == pytest.approx(fact.value)


def test_segments_name_their_tissue_the_model_and_how_to_follow_them(analysis: Analysis, exported: Path) -> None:
    seg = pydicom.dcmread(exported / "segmentation.dcm")
    assert seg.SegmentationType == "BINARY"
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert analysis.record.model.weights_sha256 in algorithm.AlgorithmParameters
    codes = {str(s.SegmentLabel): s.SegmentedPropertyTypeCodeSequence[0].CodeValue for s in seg.SegmentSequence}
    assert codes["Whole tumour"] == "52988006"
    assert len({str(s.TrackingUID) for s in seg.SegmentSequence}) == len(seg.SegmentSequence)
    image = pydicom.dcmread(exported / "images-flair-0001.dcm")
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID, seg.PatientID) == (
        image.StudyInstanceUID,
        image.FrameOfReferenceUID,
        image.PatientID,
    )
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == image.SeriesInstanceUID


def test_a_corrected_mask_is_semiautomatic_names_the_person_and_keeps_the_tracking(
    analysis: Analysis, corrected: CaseRecord, outlined: np.ndarray
) -> None:
    images = {Modality.T2: analysis.case.images[Modality.T2]}
    old, new = (
        export_dicom(record, labels, frame=analysis.frame, images=images).segmentation
        for record, labels in ((analysis.record, analysis.labels_IJK), (corrected, outlined))
    )
    assert old.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    assert "ContentCreatorName" not in old or not old.ContentCreatorName
    assert new.SegmentSequence[0].SegmentAlgorithmType == "SEMIAUTOMATIC"
    assert str(new.ContentCreatorName) == "Weber^Änne"
    assert new.SOPInstanceUID != old.SOPInstanceUID
    assert new.SegmentSequence[0].TrackingUID == old.SegmentSequence[0].TrackingUID
