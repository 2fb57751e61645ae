"""Derived MR images for a case that came as NIfTI: one secondary series a sequence, so that a segmentation has images to lie on.

A NIfTI file knows no patient, no scanner and no protocol, and nothing is invented: type 2 attributes of the MR Image IOD (PS3.3 A.4) that
are unknown stand empty, the patient is the pseudonym, ImageType says DERIVED and SECONDARY. Intensities are stored as 16-bit whole numbers:
as they are where they are such, else scaled linearly with slope and intercept in the header (a standard extended SOP class then).
"""

from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gmmas_portal.exports.geometry import place_volume
from gmmas_portal.exports.identity import CHARACTER_SET, MANUFACTURER, MODEL_NAME, CaseIdentity, person_name, software_version
from gmmas_schema.vocabulary import MODALITIES, Modality
from gmmas_workflows.figures import MODALITY_NAMES

MR_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.4"
_EXPLICIT_LITTLE: Final = "1.2.840.10008.1.2.1"
_LARGEST: Final = 2**16 - 1


def make_mr_series(
    values_IJK: NDArray[np.float32], affine: NDArray[np.float64], *, modality: Modality, identity: CaseIdentity
) -> list[Any]:
    """Return one pydicom dataset a slice, in the order of their positions.

    Args:
        values_IJK: intensities as the file has them.
        affine: 4x4, voxel to millimetres in RAS+.
        modality: the sequence.
        identity: of the case.

    Raises:
        DataError: the grid has shear.
    """
    stored, slope, intercept = _as_whole_numbers(values_IJK)
    volume = place_volume(stored, affine, frame_uid=identity.frame_uid)
    orientation = volume.get_plane_orientation()[0].ImageOrientationPatient
    positions = [position[0].ImagePositionPatient for position in volume.get_plane_positions()]
    inside = values_IJK[values_IJK != 0]
    low, high = (float(v) for v in np.percentile(inside, (1, 99.5))) if inside.size else (0.0, 1.0)
    made = []
    for number, (plane, position) in enumerate(zip(volume.array, positions, strict=True), start=1):
        one = _header(identity, modality, number)
        one.ImagePositionPatient, one.ImageOrientationPatient = position, orientation
        one.PixelSpacing = [_decimal(mm) for mm in volume.pixel_spacing]
        one.SliceThickness = one.SpacingBetweenSlices = _decimal(volume.spacing_between_slices)
        one.Rows, one.Columns = plane.shape
        if (slope, intercept) != (1.0, 0.0):
            one.RescaleSlope, one.RescaleIntercept, one.RescaleType = _decimal(slope), _decimal(intercept), "US"
        one.WindowCenter, one.WindowWidth = _decimal((low + high) / 2), _decimal(max(high - low, 1.0))
        one.PixelData = plane.astype("<u2").tobytes()
        made.append(one)
    return made


def _as_whole_numbers(values: NDArray[np.float32]) -> tuple[NDArray[np.uint16], float, float]:
    """Return stored values, slope and intercept: value = slope stored + intercept."""
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= _LARGEST and bool((values == np.rint(values)).all()):
        return values.astype(np.uint16), 1.0, 0.0
    # Rounded to what a decimal string of DICOM holds, so that reader and writer use the same numbers.
    slope, intercept = float(_decimal(max(high - low, 1e-6) / _LARGEST)), float(_decimal(low))
    stored = np.clip(np.rint((values.astype(np.float64) - intercept) / slope), 0, _LARGEST)
    return stored.astype(np.uint16), slope, intercept


def _header(identity: CaseIdentity, modality: Modality, number: int) -> Any:
    """Return a slice's header without geometry and voxels."""
    from pydicom.dataset import Dataset, FileMetaDataset

    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.SOPClassUID, one.SOPInstanceUID = MR_IMAGE, identity.image_uid("image", modality, str(number))
    one.file_meta.MediaStorageSOPClassUID, one.file_meta.MediaStorageSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
    one.file_meta.TransferSyntaxUID = _EXPLICIT_LITTLE
    now = datetime.now(UTC)
    values: dict[str, Any] = {
        "SpecificCharacterSet": CHARACTER_SET,
        "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
        "InstanceCreationDate": now.strftime("%Y%m%d"),
        "InstanceCreationTime": now.strftime("%H%M%S"),
        "PatientName": person_name(identity.case),
        "PatientID": identity.case,
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "made from NIfTI files, which name no patient",
        "StudyInstanceUID": identity.study_uid,
        "SeriesInstanceUID": identity.image_uid("series", modality),
        "SeriesNumber": 1 + MODALITIES.index(modality),
        "SeriesDescription": f"{MODALITY_NAMES[modality]}, made from NIfTI",
        "Modality": "MR",
        "Manufacturer": MANUFACTURER,
        "ManufacturerModelName": MODEL_NAME,
        "SoftwareVersions": software_version(),
        "FrameOfReferenceUID": identity.frame_uid,
        "InstanceNumber": number,
        "DerivationDescription": "NIfTI voxels as DICOM slices, not resampled",
        "BurnedInAnnotation": "NO",
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
    }
    # Types 2 and 2C: the attribute stands there, and its value is unknown.
    unknown = (
        *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID", "PatientBirthDate", "PatientSex"),
        *(
            "PositionReferenceIndicator",
            "ScanOptions",
            "MRAcquisitionType",
            "EchoTime",
            "EchoTrainLength",
            "RepetitionTime",
            "PatientPosition",
            "Laterality",
        ),
    )
    for name, value in (*values.items(), *((name, None) for name in unknown)):
        setattr(one, name, value)
    return one


def _decimal(value: float) -> str:
    """Return a number as a decimal string of at most 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    return str(format_number_as_ds(float(value)))
