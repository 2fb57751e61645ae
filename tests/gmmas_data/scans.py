"""Small cases on disk: an ellipsoid brain with a nested tumour, written in either layout."""

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from gmmas_data.cases import Case
from gmmas_data.layouts import read_case
from gmmas_schema.vocabulary import MODALITIES, Layout, Modality

SUFFIX = {
    Layout.BRATS2021: {Modality.T1: "_t1", Modality.T1CE: "_t1ce", Modality.T2: "_t2", Modality.FLAIR: "_flair", None: "_seg"},
    Layout.BRATS2023: {Modality.T1: "-t1n", Modality.T1CE: "-t1c", Modality.T2: "-t2w", Modality.FLAIR: "-t2f", None: "-seg"},
}
SHAPE = (30, 36, 28)
LPS = np.array([[-1.0, 0, 0, 20], [0, -1, 0, 30], [0, 0, 1, -10], [0, 0, 0, 1]])


def scaled(affine: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the affine with other voxel spacings along its own axes."""
    return affine @ np.diag([*spacing_mm, 1.0])


def ellipsoid(shape: Sequence[int], *, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """Return a binary ellipsoid; centre and radii as shares of the shape."""
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    return sum(((a - c * n) / (r * n)) ** 2 for a, n, c, r in zip(axes, shape, centre, radii, strict=True)) <= 1


def brain(modality: Modality, *, shape: Sequence[int] = SHAPE, patient: int = 0) -> np.ndarray:
    """Return an int16 scan: noise of the sequence's and the patient's own around the sequence's mean, 0 outside the brain."""
    rng = np.random.default_rng(MODALITIES.index(modality) + len(MODALITIES) * patient)
    inside = ellipsoid(shape, centre=(0.48, 0.52, 0.5), radii=(0.38, 0.42, 0.4))
    return (inside * rng.integers(200 + 100 * MODALITIES.index(modality), 1200, shape)).astype(np.int16)


def tumour(*, shape: Sequence[int] = SHAPE, enhancing: int = 4) -> np.ndarray:
    """Return a uint8 label map: oedema 2 around enhancing around necrosis 1."""
    labels = np.zeros(shape, dtype=np.uint8)
    for value, radius in ((2, 0.2), (enhancing, 0.14), (1, 0.07)):
        labels[ellipsoid(shape, centre=(0.6, 0.5, 0.5), radii=(radius,) * 3)] = value
    return labels


def save(path: Path, values: np.ndarray, *, affine: np.ndarray = LPS) -> Path:
    """Write one NIfTI file with sform and qform."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    nib.save(image, path)
    return path


def write_case(
    folder: Path,
    *,
    case_id: str = "BraTS2021_00001",
    layout: Layout = Layout.BRATS2021,
    modalities: Sequence[Modality] = MODALITIES,
    segmentation: bool = True,
    shape: Sequence[int] = SHAPE,
    affine: np.ndarray = LPS,
    extension: str = ".nii",
    patient: int = 0,
) -> Path:
    """Write one case into a folder and return the folder; cases of one `patient` number have equal scans."""
    for modality in modalities:
        scan = brain(modality, shape=shape, patient=patient)
        save(folder / f"{case_id}{SUFFIX[layout][modality]}{extension}", scan, affine=affine)
    if segmentation:
        labels = tumour(shape=shape, enhancing=4 if layout is Layout.BRATS2021 else 3)
        save(folder / f"{case_id}{SUFFIX[layout][None]}{extension}", labels, affine=affine)
    return folder


def case_in(folder: Path, **options: object) -> Case:
    """Write one case and read its names."""
    return read_case(write_case(folder, **options))
