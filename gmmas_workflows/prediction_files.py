"""A prediction's folder, which appears as a whole or not at all.

    segmentation.nii.gz                      labels in the values of the case's layout (enhancing tumour 4 in BraTS 2021, 3 in 2023)
    probability_{wt,tc,et}.nii.gz            float32 in [0, 1], rounded to 0.001; segmented by gmmas_workflows.evaluation.threshold;
                                             none of a region that nobody trained, which is not in the segmentation either
    uncertainty.nii.gz                       where it was asked for: entropy of the Monte-Carlo mean, float32 in [0, 1], rounded to 0.001
    findings.json                            gmmas_schema.findings.Findings
    overview.png                             the same at a glance

Headers are those of the case's first image, without its free text, which may name a patient.

Shapes: R region (WT, TC, ET), I J K voxels of the case's files.
"""

import gzip
from pathlib import Path
from typing import Any, Final, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from gmmas_data.volumes import read_image, spacing_of
from gmmas_runtime.files import write_atomic
from gmmas_runtime.results import check_result_folder, result_folder
from gmmas_schema.vocabulary import REGIONS, Modality
from gmmas_workflows.figures import overview
from gmmas_workflows.inference import CasePrediction

FINDINGS_FILE: Final = "findings.json"
SEGMENTATION_FILE: Final = "segmentation.nii.gz"
UNCERTAINTY_FILE: Final = "uncertainty.nii.gz"
OVERVIEW_FILE: Final = "overview.png"

_GEOMETRY: Final = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d"),
    *("qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
_ORDERS: Final[tuple[Literal["little", "big"], ...]] = ("little", "big")


def write_prediction(prediction: CasePrediction, folder: Path, *, overwrite: bool = False) -> None:
    """Write a prediction's folder as a whole.

    Args:
        prediction: what predict_case returned.
        folder: the folder to make; its parents are made too.
        overwrite: replace an earlier prediction.

    Raises:
        ConfigError: the folder is there and may not be replaced.
        OSError: the disk is full or not writable; nothing is left behind.
    """
    check_target(folder, overwrite=overwrite)
    with result_folder(folder) as made:
        _fill(made, prediction)


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Refuse a folder that must not be replaced, before any work is done.

    Raises:
        ConfigError: the folder exists and `overwrite` is off, or it holds something that is not a prediction.
    """
    check_result_folder(folder, kind="a prediction", marker=FINDINGS_FILE, overwrite=overwrite)


def _fill(folder: Path, prediction: CasePrediction) -> None:
    """Write the files of a prediction."""
    header = _plain_header(next(iter(prediction.case.images.values())))
    _write_nifti(folder / SEGMENTATION_FILE, prediction.segmentation_IJK, header)
    for region, probability_IJK in zip(REGIONS, prediction.probability_RIJK, strict=True):
        if region in prediction.findings.untrained:
            continue
        _write_nifti(folder / f"probability_{region}.nii.gz", probability_IJK, header)
    if prediction.uncertainty_IJK is not None:
        _write_nifti(folder / UNCERTAINTY_FILE, prediction.uncertainty_IJK, header)
    overview(
        folder / OVERVIEW_FILE,
        images=_pictures(prediction),
        labels=_to_ras(prediction.own_labels(), prediction.affine),
        spacing_mm=_spacing_in_ras(prediction.affine),
        findings=prediction.findings,
        uncertainty=None if prediction.uncertainty_IJK is None else _to_ras(prediction.uncertainty_IJK, prediction.affine),
    )
    write_atomic(folder / FINDINGS_FILE, prediction.findings.model_dump_json(indent=2).encode() + b"\n")


def _plain_header(path: Path) -> Any:
    """Return a header with the geometry of an image's header and nothing else: free text in it may name a patient."""
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    with gzip.open(path) if compressed else path.open("rb") as stream:
        content = stream.read(nib.Nifti2Header.sizeof_hdr)
    sizes = [int.from_bytes(content[:4], order) for order in _ORDERS]
    kind = nib.Nifti2Header if nib.Nifti2Header.sizeof_hdr in sizes else nib.Nifti1Header
    original = kind(content[: kind.sizeof_hdr], check=False)
    header = nib.Nifti1Header()
    for field in _GEOMETRY:
        header[field] = original[field]
    return header


def _write_nifti(path: Path, volume_IJK: NDArray[Any], header: Any) -> None:
    """Write a volume with its own voxel type, unscaled."""
    own = header.copy()
    own.set_data_dtype(volume_IJK.dtype)
    own.set_slope_inter(1, 0)
    # No affine is given, so that nibabel keeps qform, sform and their codes as they are.
    nib.save(nib.Nifti1Image(volume_IJK, None, own), path)


def _pictures(prediction: CasePrediction) -> dict[Modality, NDArray[np.float32]]:
    """Return the images in RAS+ order of axes."""
    return {m: _to_ras(read_image(path).values_XYZ, prediction.affine) for m, path in prediction.case.images.items()}


def _to_ras(volume_IJK: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """Return the volume with its axes turned to the nearest of right, anterior and superior."""
    turned: NDArray[Any] = nib.orientations.apply_orientation(volume_IJK, nib.orientations.io_orientation(affine))
    return turned


def _spacing_in_ras(affine: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return the voxel spacing in the order of axes of _to_ras."""
    places = nib.orientations.io_orientation(affine)[:, 0].astype(int)
    x, y, z = spacing_of(affine)[np.argsort(places)].tolist()
    return x, y, z
