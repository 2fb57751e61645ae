"""Reading one NIfTI file to an array, with every way it can be broken told apart.

The whole file is read and, where it is compressed, checked against its own checksum: nibabel alone stops before the gzip trailer, so
a flipped bit would pass. Real headers are met as they are: either of sform and qform may be missing (the sform wins where both are
set, as the NIfTI-1 standard prefers), scale factors may leave a mask at 0.9999, masks may be stored as floating point.
"""

import gzip
import io
import math
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import nibabel as nib
import numpy as np
from nibabel.imageglobals import LoggingOutputSuppressor
from numpy.typing import NDArray

from gmmas_schema.errors import DataError, ReasonCode

SPACING_RANGE_MM = (0.2, 15.0)
"""Voxel spacings believed; outside it a header gives metres, micrometres or nonsense."""

MINIMUM_VOXELS = 4
"""Fewer voxels along an axis are no volume."""

LARGEST_INTENSITY = 1e30
"""No scanner reaches it; beyond it single precision overflows in the statistics."""

LABEL_TOLERANCE = 1e-3
"""Distance from a whole number within which a mask value is rounded to it."""

_FARTHEST_MM = 1e5

_MAXIMUM_BYTES = 2**31
"""Largest file content read; 512^3 voxels in double precision are half of it."""


@dataclass(frozen=True, eq=False)
class Volume:
    """One file's voxels and their place.

    Attributes:
        values_XYZ: float32 image, or uint8 label map.
        affine: 4x4, voxel to millimetres in RAS+.
        path: the file.
    """

    values_XYZ: NDArray[Any]
    affine: NDArray[np.float64]
    path: Path

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """Voxel spacing along the file's own three axes."""
        return spacing_of(self.affine)


def spacing_of(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the voxel spacing in millimetres along the three voxel axes of a 4x4 affine."""
    spacing: NDArray[np.float64] = np.linalg.norm(affine[:3, :3], axis=0)
    return spacing


def read_image(path: Path) -> Volume:
    """Read a scan as float32.

    Raises:
        DataError: unreadable or damaged file, not three-dimensional, no or impossible geometry, or a voxel that is not finite.
    """
    image = _open(path)
    affine = _affine(image, path)
    values = _values(image, path)
    if bad := int(values.size - np.count_nonzero(np.abs(values) < LARGEST_INTENSITY)):
        raise DataError(
            "a scan has voxels that are not finite",
            where=path,
            got=f"{bad} of {values.size} voxels NaN, infinite or beyond {LARGEST_INTENSITY:g}",
            expected="finite intensities",
            remedy="export the sequence again, or repair it (NaN outside the brain may be set to 0)",
            code=ReasonCode.DATA_NOT_FINITE,
        )
    return Volume(values, affine, path)


def read_labels(path: Path, *, meaning: Mapping[int, int]) -> Volume:
    """Read a label map as uint8, translated by `meaning` (file value to our value; background 0 needs no entry).

    Raises:
        DataError: as read_image; also for a value that is not within LABEL_TOLERANCE of a known label.
    """
    image = read_image(path)
    rounded = np.rint(image.values_XYZ)
    if float(np.abs(image.values_XYZ - rounded).max()) > LABEL_TOLERANCE:
        between = np.unique(image.values_XYZ[np.abs(image.values_XYZ - rounded) > LABEL_TOLERANCE])
        _refuse_labels(path, between, meaning)
    table = np.zeros(1 + max(meaning), dtype=np.uint8)
    for theirs, ours in meaning.items():
        table[theirs] = ours
    unknown = [value for value in np.unique(rounded) if value != 0 and value not in meaning]
    if unknown:
        _refuse_labels(path, np.asarray(unknown), meaning)
    return Volume(table[rounded.astype(np.intp)], image.affine, path)


def _refuse_labels(path: Path, values: NDArray[Any], meaning: Mapping[int, int]) -> NoReturn:
    shown = ", ".join(f"{float(value):g}" for value in values[:6]) + (", ..." if len(values) > 6 else "")
    raise DataError(
        "a segmentation has unknown label values",
        where=path,
        got=shown,
        expected=f"0, {', '.join(map(str, sorted(meaning)))}",
        remedy="check the cohort's layout: conventions number the tissues differently",
        code=ReasonCode.DATA_LABEL,
    )


def _open(path: Path) -> Any:
    """Return the NIfTI image of a file's whole content."""
    content = _content(path)
    kind = nib.Nifti2Image if content[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c") else nib.Nifti1Image
    # nibabel's exceptions on a damaged header are an open set (its own, struct, numpy and arithmetic errors), so all are one kind here.
    # What it repairs it also tells stderr, which belongs to the command line.
    try:
        with warnings.catch_warnings(), LoggingOutputSuppressor():
            warnings.simplefilter("ignore")
            image = kind.from_bytes(content)
        shape, width = tuple(int(n) for n in image.shape), int(image.get_data_dtype().itemsize)
    except Exception as error:
        raise unreadable(path, f"{type(error).__name__}: {error}") from error
    dtype = image.get_data_dtype()
    if dtype.kind not in "iuf":
        raise unreadable(path, f"voxels of type {dtype}", expected="one real number per voxel")
    if len(shape) < 3 or any(n != 1 for n in shape[3:]) or min(shape[:3]) < MINIMUM_VOXELS:
        raise DataError(
            "a file does not hold one three-dimensional volume",
            where=path,
            got=f"shape {' x '.join(map(str, shape)) or '()'}",
            expected=f"three axes of at least {MINIMUM_VOXELS} voxels",
            remedy="split a series into volumes; convert slices to a volume",
            code=ReasonCode.DATA_GRID,
        )
    needed = math.prod(shape) * width
    if needed > len(content):
        raise unreadable(path, f"{len(content)} bytes where the header announces {needed} bytes of voxels")
    return image


def _content(path: Path) -> bytes:
    """Return a file's bytes, decompressed if they are gzip, whatever the name says."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAXIMUM_BYTES + 1)
        if content[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(content)) as stream:
                content = stream.read(_MAXIMUM_BYTES + 1)
                if stream.read(1):
                    content += b"+"
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, f"{type(error).__name__}: {error}") from error
    if len(content) > _MAXIMUM_BYTES:
        raise unreadable(path, f"more than {_MAXIMUM_BYTES} bytes", expected="one volume of a patient")
    return content


def _values(image: Any, path: Path) -> NDArray[np.float32]:
    """Return the scaled voxels as float32 with three axes."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = np.asarray(image.dataobj).astype(np.float32, copy=False)
    except Exception as error:
        raise unreadable(path, f"{type(error).__name__}: {error}") from error
    return values.reshape(values.shape[:3])


def _affine(image: Any, path: Path) -> NDArray[np.float64]:
    """Return the voxel-to-world matrix of sform or qform, checked."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sform, qform = image.header.get_sform(coded=True)[0], image.header.get_qform(coded=True)[0]
    except Exception as error:
        raise _bad_geometry(path, f"{type(error).__name__}: {error}") from error
    if sform is None and qform is None:
        raise _bad_geometry(path, "neither sform nor qform (both codes 0), so left and right are unknown")
    affine = np.asarray(qform if sform is None else sform, dtype=np.float64)
    if not (np.abs(affine) < _FARTHEST_MM).all():
        raise _bad_geometry(path, f"an affine that is not finite, or beyond {_FARTHEST_MM:g} mm")
    spacing = spacing_of(affine)
    if not all(SPACING_RANGE_MM[0] <= s <= SPACING_RANGE_MM[1] for s in spacing):
        raise _bad_geometry(path, f"voxel spacing {' x '.join(f'{s:g}' for s in spacing)} mm")
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 0.5:
        raise _bad_geometry(path, "axes that are not at right angles, or fall together")
    if sform is not None and qform is not None and _handedness(qform) * _handedness(sform) < 0:
        raise _bad_geometry(path, "sform and qform that disagree on left and right")
    return affine


def _handedness(affine: NDArray[Any]) -> float:
    """Return 1 or -1; 0 or nan if the matrix has none, as an unused form may."""
    with np.errstate(all="ignore"):
        return float(np.linalg.slogdet(affine[:3, :3])[0])


def unreadable(path: Path, got: str, *, expected: str = "a complete NIfTI file (.nii or .nii.gz)") -> DataError:
    """Return the error of a file that cannot be read."""
    return DataError(
        "a file cannot be read",
        where=path,
        got=" ".join(got.split()),
        expected=expected,
        remedy="copy or export the file again; it may be truncated or damaged",
        code=ReasonCode.DATA_UNREADABLE,
    )


def _bad_geometry(path: Path, got: str) -> DataError:
    return DataError(
        "a file's geometry cannot be used",
        where=path,
        got=" ".join(got.split()),
        expected=f"a regular affine with spacing of {SPACING_RANGE_MM[0]:g} to {SPACING_RANGE_MM[1]:g} mm",
        remedy="convert the original DICOM series again, or set sform and qform from another sequence on the same grid",
        code=ReasonCode.DATA_GRID,
    )
