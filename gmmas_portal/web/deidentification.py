"""What in an upload names a patient, and getting rid of it.

DICOM: nothing of a header is copied; gmmas_data.dicom_import reads the attributes of READ and writes the images as NIfTI, under a pseudonym
made with a key that stays here. What is listed as dropped follows the Basic Application Level Confidentiality Profile (DICOM PS3.15, table
E.1-1): every attribute of KNOWN that is there, and all private ones by their number.

NIfTI: the header is made anew from geometry and voxel type alone. Free text (descrip, aux_file, intent_name, db_name), extensions and the
file's name are dropped.

Neither takes the face off: whoever sees a head scan in three dimensions may know the person (Schwarz et al., NEJM 2019). Skull-stripped
scans have none.
"""

import gzip
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import nibabel as nib
import numpy as np

from gmmas_data.volumes import read_image
from gmmas_runtime.files import write_atomic
from gmmas_schema.base import FrozenModel
from gmmas_schema.printable import printable

READ: Final = (
    *("SeriesNumber", "SeriesDescription", "ProtocolName", "SequenceName", "ImageType", "RepetitionTime", "EchoTime", "InversionTime"),
    *("ContrastBolusAgent", "Manufacturer", "MagneticFieldStrength", "PixelSpacing", "SliceThickness", "SpacingBetweenSlices"),
)
"""Attributes that are used to tell sequences apart; timing, scanner and spacing are kept in import.json."""

KNOWN: Final = (
    *(
        "PatientName",
        "PatientID",
        "OtherPatientIDs",
        "IssuerOfPatientID",
        "PatientBirthDate",
        "PatientBirthTime",
        "PatientSex",
        "PatientAge",
    ),
    *("PatientSize", "PatientWeight", "PatientAddress", "PatientTelephoneNumbers", "PatientComments", "EthnicGroup", "Occupation"),
    *(
        "AccessionNumber",
        "StudyID",
        "StudyDate",
        "StudyTime",
        "SeriesDate",
        "AcquisitionDate",
        "ContentDate",
        "AdmittingDiagnosesDescription",
    ),
    *(
        "InstitutionName",
        "InstitutionAddress",
        "InstitutionalDepartmentName",
        "StationName",
        "DeviceSerialNumber",
        "ReferringPhysicianName",
    ),
    *("PerformingPhysicianName", "OperatorsName", "NameOfPhysiciansReadingStudy", "RequestingPhysician", "PhysiciansOfRecord"),
    *("StudyDescription", "RequestedProcedureDescription", "ImageComments", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"),
    *("FrameOfReferenceUID", "PerformedProcedureStepStartDate", "RequestAttributesSequence"),
)
"""Attributes that name or may name a patient, a person, a place or a day."""

_FREE_TEXT: Final = ("descrip", "aux_file", "intent_name", "db_name")
_LONGEST: Final = 80
_COMPRESSION: Final = 4


class HeaderField(FrozenModel):
    """One thing found in a header; `value` is shown once to whoever uploads, and kept nowhere after that."""

    name: str
    value: str


class HeaderPreview(FrozenModel):
    """What is read of an upload, and what is dropped.

    Attributes:
        kept: used, and kept as far as the module says.
        dropped: not kept anywhere.
        notes: what else is to be known, in sentences.
    """

    kept: tuple[HeaderField, ...] = ()
    dropped: tuple[HeaderField, ...] = ()
    notes: tuple[str, ...] = ()


def preview_dicom(path: Path) -> HeaderPreview:
    """Return what a DICOM file's header says; one file of a study stands for all."""
    import pydicom

    header = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    private = sum(1 for element in header if element.tag.is_private)
    notes = ["Names, numbers and dates are dropped from every file of the study, not only from the one shown."]
    if private:
        notes.append(f"{private} private attributes are dropped unread.")
    if "BurnedInAnnotation" in header and str(header.BurnedInAnnotation).upper() == "YES":
        notes.append("The images say that text is burned into them: it stays. Do not upload them if it names the patient.")
    notes.append(_FACE)
    return HeaderPreview(kept=_fields(header, READ), dropped=_fields(header, KNOWN), notes=tuple(notes))


def preview_nifti(paths: Iterable[Path]) -> HeaderPreview:
    """Return what the free text of NIfTI headers says."""
    dropped: list[HeaderField] = []
    for place, path in enumerate(paths, start=1):
        dropped.append(HeaderField(name=f"file name {place}", value=_short(path.name)))
        header, extensions = _header_of(path)
        for name in _FREE_TEXT:
            text = bytes(header[name].tobytes() if name in header else b"").split(b"\0")[0].decode("latin-1").strip()
            if text:
                dropped.append(HeaderField(name=f"{name} of file {place}", value=_short(text)))
        if extensions:
            dropped.append(HeaderField(name=f"extensions of file {place}", value=f"{extensions}"))
    kept = (HeaderField(name="geometry", value="axes, spacing and position"), HeaderField(name="voxels", value="unchanged"))
    return HeaderPreview(kept=kept, dropped=tuple(dropped), notes=(_FACE,))


def write_clean_copy(source: Path, target: Path) -> None:
    """Write an image with the same voxels and geometry, and nothing else in its header.

    Raises:
        DataError: as gmmas_data.volumes.read_image; the file is refused before anything is written.
    """
    volume = read_image(source)
    values = volume.values_XYZ
    whole = np.rint(values)
    exact = bool((values == whole).all()) and float(np.abs(whole).max(initial=0)) < np.iinfo(np.int16).max
    stored = whole.astype(np.int16) if exact else values
    image = nib.Nifti1Image(stored, volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code=1)
    image.set_qform(volume.affine, code=1)
    write_atomic(target, gzip.compress(image.to_bytes(), _COMPRESSION, mtime=0))


_FACE: Final = "The picture itself is kept. With the skull on, it can show a face; upload skull-stripped scans where you can."


def _fields(header: Any, names: tuple[str, ...]) -> tuple[HeaderField, ...]:
    found = [(name, header.get(name)) for name in names]
    return tuple(HeaderField(name=name, value=_short(str(value))) for name, value in found if value not in (None, ""))


def _header_of(path: Path) -> tuple[Any, int]:
    """Return a NIfTI header and the number of its extensions; an unreadable file has neither."""
    try:
        image: Any = nib.load(path)
        return image.header, len(image.header.extensions)
    except Exception:  # nibabel's exceptions on a damaged file are an open set; the look at the image tells what is wrong
        return {}, 0


def _short(text: str) -> str:
    clean = printable(" ".join(text.split()))
    return clean if len(clean) <= _LONGEST else f"{clean[:_LONGEST]}…"
