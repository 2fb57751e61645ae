"""All DICOM objects of a record, and their folder.

images-<sequence>-0001.dcm ...    derived MR images, only for a case that came as NIfTI
segmentation.dcm                  where something is outlined
report.dcm                        structured report
"""

import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from gmmas_data.volumes import read_image
from gmmas_portal.analysis.frame import MeasurementFrame
from gmmas_portal.exports.identity import CaseIdentity, missing_package
from gmmas_runtime.files import whole_folder
from gmmas_schema.case_record import CaseRecord
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.vocabulary import MODALITIES, Modality
from gmmas_workflows.figures import background_of

IMAGE_PREFIX: Final = "images"
SEGMENTATION_FILE: Final = "segmentation.dcm"
REPORT_FILE: Final = "report.dcm"


@dataclass(frozen=True)
class DicomExport:
    """DICOM objects of one record, as pydicom datasets.

    Attributes:
        images: derived MR series by sequence; empty for a case that has its own DICOM images.
        segmentation: None where nothing is outlined.
        report: structured report.
    """

    images: Mapping[Modality, Sequence[Any]]
    segmentation: Any | None
    report: Any


def export_dicom(
    record: CaseRecord,
    labels_IJK: NDArray[np.uint8],
    *,
    frame: MeasurementFrame,
    images: Mapping[Modality, Path],
    source_dicom: Sequence[Path] = (),
    verified_by: tuple[str, str] | None = None,
) -> DicomExport:
    """Return the DICOM objects of a record.

    Args:
        record: what is told.
        labels_IJK: the mask of the record's version, in our own values.
        frame: of the case.
        images: NIfTI files that were analysed.
        source_dicom: files of the series that gave the case its grid (import.json names it), where the case was imported from DICOM and
            they are at hand: segmentation and report then belong to that patient and study, in that frame of reference. Without them
            derived images are made under the pseudonym.
        verified_by: name and organisation of the clinician who signed.

    Raises:
        ConfigError: a package of the extra `portal` is missing.
        DataError: a file cannot be read, the source series is no MR series of one frame, or the grid has shear.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise missing_package(error) from error
    from gmmas_portal.exports.mr_series import make_mr_series
    from gmmas_portal.exports.segmentation import make_segmentation
    from gmmas_portal.exports.structured_report import make_report

    affine = frame.affine_array
    # It quotes names of patients where they are unusual, and its words would end in a log.
    logging.getLogger("highdicom").setLevel(logging.ERROR)
    if source_dicom:
        sources = _read_sources(source_dicom)
        identity, made = CaseIdentity.of(record, source=sources[0]), {}
    else:
        identity = CaseIdentity.of(record)
        values = {modality: read_image(images[modality]).values_XYZ for modality in MODALITIES if modality in images}
        made = {modality: make_mr_series(volume, affine, modality=modality, identity=identity) for modality, volume in values.items()}
        sources = made[background_of(values)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The string .* is unlikely to represent the intended person name")
        segmentation = make_segmentation(record, labels_IJK, affine, sources=sources, identity=identity)
        report = make_report(record, segmentation, sources=sources, identity=identity, verified_by=verified_by)
    return DicomExport(made, segmentation, report)


def write_dicom(export: DicomExport, folder: Path) -> None:
    """Write the objects into a folder, which must not be there yet and appears as a whole.

    Raises:
        OSError: the folder is there, or the disk is full or not writable.
    """
    with whole_folder(folder) as made:
        for modality, series in export.images.items():
            for number, one in enumerate(series, start=1):
                one.save_as(made / f"{IMAGE_PREFIX}-{modality}-{number:04d}.dcm", enforce_file_format=True)
        if export.segmentation is not None:
            export.segmentation.save_as(made / SEGMENTATION_FILE)
        export.report.save_as(made / REPORT_FILE)


def _read_sources(paths: Sequence[Path]) -> list[Any]:
    """Return the headers of a DICOM series in the order of its slices."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    except (OSError, InvalidDicomError) as error:
        raise _bad_sources(type(error).__name__) from error
    faults = [
        name for name in ("SeriesInstanceUID", "FrameOfReferenceUID", "StudyInstanceUID") if len({str(h.get(name)) for h in headers}) > 1
    ]
    if faults or any(str(header.get("Modality")) != "MR" or not header.get("FrameOfReferenceUID") for header in headers):
        raise _bad_sources(f"several values of {', '.join(faults)}" if faults else "images that are not MR, or have no frame of reference")
    return sorted(headers, key=lambda header: int(header.get("InstanceNumber") or 0))


def _bad_sources(got: str) -> DataError:
    return DataError(
        "the DICOM images of the case cannot be used",
        got=got,
        expected="the files of the one MR series that gave the case its grid",
        remedy="name these files, or export without them: derived images are made then",
        code=ReasonCode.DATA_UNREADABLE,
    )
