"""An analysis on disk, in a folder that appears as a whole or not at all.

    record.json                       gmmas_schema.case_record.CaseRecord
    frame.json                        in which masks of the case are measured
    segmentation.nii.gz               the network's label map in our own values: 1 necrosis, 2 oedema, 3 enhancing tumour
    probability_{wt,tc,et}.nii.gz     float32 in [0, 1]
    uncertainty.nii.gz                where there were Monte-Carlo passes
    montage.png                       slices with the outline

Headers hold the geometry and nothing else: free text of the originals may name a patient.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from gmmas_data.volumes import read_image, read_labels
from gmmas_portal.analysis.frame import MeasurementFrame
from gmmas_portal.analysis.montage import draw_montage
from gmmas_runtime.files import whole_folder, write_atomic
from gmmas_schema.case_record import CaseRecord
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.vocabulary import ENHANCING, NECROSIS, OEDEMA, REGIONS

if TYPE_CHECKING:
    from gmmas_portal.analysis.case_analysis import Analysis

RECORD_FILE: Final = "record.json"
FRAME_FILE: Final = "frame.json"
SEGMENTATION_FILE: Final = "segmentation.nii.gz"
UNCERTAINTY_FILE: Final = "uncertainty.nii.gz"
MONTAGE_FILE: Final = "montage.png"

_OWN_VALUES = {value: value for value in (NECROSIS, OEDEMA, ENHANCING)}
_GRID_TOLERANCE_MM = 0.1


def write_analysis(analysis: "Analysis", folder: Path) -> None:
    """Write an analysis; the folder must not be there yet.

    Raises:
        OSError: the folder is there, or the disk is full or not writable; nothing is left behind.
    """
    affine = analysis.frame.affine_array
    with whole_folder(folder) as made:
        write_atomic(made / RECORD_FILE, analysis.record.model_dump_json(indent=1).encode() + b"\n")
        write_atomic(made / FRAME_FILE, analysis.frame.model_dump_json(indent=1).encode() + b"\n")
        write_mask(made / SEGMENTATION_FILE, analysis.labels_IJK, analysis.frame)
        for region, probability_IJK in zip(REGIONS, analysis.probability_RIJK, strict=True):
            _write_nifti(made / f"probability_{region}.nii.gz", probability_IJK, affine)
        if analysis.uncertainty_IJK is not None:
            _write_nifti(made / UNCERTAINTY_FILE, analysis.uncertainty_IJK, affine)
        images = {modality: read_image(path).values_XYZ for modality, path in analysis.case.images.items()}
        write_atomic(made / MONTAGE_FILE, draw_montage(images, analysis.labels_IJK, affine))


def write_mask(path: Path, labels_IJK: NDArray[np.uint8], frame: MeasurementFrame) -> None:
    """Write a label map in our own values as compressed NIfTI."""
    _write_nifti(path, labels_IJK.astype(np.uint8, copy=False), frame.affine_array)


def read_record(folder: Path) -> CaseRecord:
    """Read the record of an analysis.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        return CaseRecord.model_validate_json((folder / RECORD_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(folder / RECORD_FILE, error) from error


def read_frame(folder: Path) -> MeasurementFrame:
    """Read the frame of an analysis.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        return MeasurementFrame.model_validate_json((folder / FRAME_FILE).read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(folder / FRAME_FILE, error) from error


def read_mask(path: Path, frame: MeasurementFrame) -> NDArray[np.uint8]:
    """Read a label map in our own values: the network's, or one that a person drew and saved as NIfTI.

    Args:
        path: NIfTI, compressed or not.
        frame: of the case.

    Raises:
        DataError: unreadable, an unknown label value, or another grid than the case's.
    """
    volume = read_labels(path, meaning=_OWN_VALUES)
    corners = np.array([(i, j, k, 1) for i in (0, frame.shape[0] - 1) for j in (0, frame.shape[1] - 1) for k in (0, frame.shape[2] - 1)])
    apart_mm = float(np.abs((volume.affine - frame.affine_array) @ corners.T.astype(np.float64)).max())
    if volume.values_XYZ.shape != frame.shape or apart_mm > _GRID_TOLERANCE_MM:
        got = " x ".join(map(str, volume.values_XYZ.shape))
        raise DataError(
            "a mask lies on another grid than its case",
            where=path.name,
            got=f"{got} voxels, corners up to {apart_mm:.1f} mm apart" if volume.values_XYZ.shape == frame.shape else f"{got} voxels",
            expected=f"{' x '.join(map(str, frame.shape))} voxels where the case has them",
            remedy="draw the mask on the case's own images",
            code=ReasonCode.DATA_GRID,
        )
    return volume.values_XYZ


def _write_nifti(path: Path, volume_IJK: NDArray[Any], affine: NDArray[np.float64]) -> None:
    image = nib.Nifti1Image(volume_IJK, affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(
        "an analysis cannot be read",
        where=path.name,
        got=type(error).__name__,
        expected="the file as it was written",
        remedy="analyse the case again",
        code=ReasonCode.DATA_UNREADABLE,
    )
