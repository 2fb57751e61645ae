"""The quality gate: nothing is trained on, or predicted from, that this module has not accepted.

Every way into the data passes load_case; check_case is the same without keeping the voxels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from gmmas_data.cases import Case
from gmmas_data.normalisation import brain_of
from gmmas_data.parallel import map_in_processes
from gmmas_data.volumes import Volume, read_image, read_labels
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.vocabulary import Modality

GRID_TOLERANCE_VOXELS = 0.1
"""Largest distance between the corners of two files that count as one grid; headers store single precision."""


@dataclass(frozen=True, eq=False)
class LoadedCase:
    """The voxels of a case, all on one grid.

    Attributes:
        case: whose they are.
        images: float32 scans as stored.
        brains: the foreground of each scan.
        segmentation: uint8 in our own label values, or None.
        affine: 4x4 of the common grid, voxel to millimetres in RAS+.
        shape: voxels of the common grid.
    """

    case: Case
    images: Mapping[Modality, NDArray[np.float32]]
    brains: Mapping[Modality, NDArray[np.bool_]]
    segmentation: NDArray[np.uint8] | None
    affine: NDArray[np.float64]
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class QualityReport:
    """Outcome of the gate for a cohort, in the cohort's order."""

    accepted: tuple[Case, ...]
    rejected: tuple[tuple[str, DataError], ...]


def load_case(case: Case) -> LoadedCase:
    """Read all files of a case and pass them through the gate.

    Raises:
        DataError: no scan; an unreadable or damaged file; not one volume; grids that differ; NaN or infinity; a constant or empty
            scan; an unknown label value; a segmentation without tumour. `where` names the file.
    """
    if not case.images:
        raise DataError(
            "a case has no scan of a sequence this site offers",
            where=case.case_id,
            got="no image file",
            expected="at least one sequence",
            remedy="complete the case or remove it; check the names and `data.modalities`",
            code=ReasonCode.DATA_EMPTY,
        )
    volumes = {modality: read_image(path) for modality, path in case.images.items()}
    first = next(iter(volumes.values()))
    for volume in volumes.values():
        _check_grid(volume, first)
    brains = {modality: brain_of(volume) for modality, volume in volumes.items()}
    return LoadedCase(
        case=case,
        images={modality: volume.values_XYZ for modality, volume in volumes.items()},
        brains=brains,
        segmentation=_load_segmentation(case, first),
        affine=first.affine,
        shape=_shape(first),
    )


def check_case(case: Case) -> None:
    """Pass a case through the gate.

    Raises:
        DataError: as load_case.
    """
    load_case(case)


def check_cohort(cases: Sequence[Case], *, on_progress: Callable[[int, int], None] | None = None, processes: int = 1) -> QualityReport:
    """Pass every case through the gate, and go on after a bad one."""
    faults = map_in_processes(_fault_of, cases, processes=processes, on_progress=on_progress)
    return QualityReport(
        accepted=tuple(case for case, fault in zip(cases, faults, strict=True) if fault is None),
        rejected=tuple((case.case_id, fault) for case, fault in zip(cases, faults, strict=True) if fault is not None),
    )


def _fault_of(case: Case) -> DataError | None:
    try:
        check_case(case)
    except DataError as error:
        return error
    return None


def _load_segmentation(case: Case, reference: Volume) -> NDArray[np.uint8] | None:
    """Return the label map in our own values, on the grid of the scans."""
    if case.segmentation is None:
        return None
    volume = read_labels(case.segmentation, meaning=case.segmentation_values)
    _check_grid(volume, reference)
    if not volume.values_XYZ.any():
        raise DataError(
            "a segmentation is empty",
            where=volume.path,
            got="no tumour voxel",
            expected="a segmented tumour, for this is a tumour cohort",
            remedy="remove the file if the case was never segmented: a missing segmentation is allowed",
            code=ReasonCode.DATA_EMPTY,
        )
    return volume.values_XYZ


def _check_grid(volume: Volume, reference: Volume) -> None:
    """Refuse a file whose voxels are not where the reference has them."""
    got, expected = _shape(volume), _shape(reference)
    if got != expected:
        raise _grid_error(volume, reference, got=f"{_times(got)} voxels", expected=f"{_times(expected)} voxels")
    corners = np.array([(*corner, 1) for corner in product(*((0, n - 1) for n in expected))], dtype=np.float64).T
    apart_mm = float(np.linalg.norm(((volume.affine - reference.affine) @ corners)[:3], axis=0).max())
    if apart_mm > GRID_TOLERANCE_VOXELS * float(reference.spacing_mm.min()):
        raise _grid_error(volume, reference, got=f"corners up to {apart_mm:.2f} mm apart", expected="the same affine")


def _grid_error(volume: Volume, reference: Volume, *, got: str, expected: str) -> DataError:
    return DataError(
        "two files of a case lie on different grids",
        where=volume.path,
        got=got,
        expected=f"{expected} as in {reference.path.name}",
        remedy="co-register the sequences and resample them to one grid",
        code=ReasonCode.DATA_GRID,
    )


def _shape(volume: Volume) -> tuple[int, int, int]:
    x, y, z = volume.values_XYZ.shape
    return x, y, z


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
