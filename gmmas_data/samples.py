"""A sample: one case on the network's grid, ready to train on or to predict from.

Shapes: M modalities (order of MODALITIES), R regions (order of REGIONS), X, Y, Z grid voxels along right, anterior, superior.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gmmas_schema.vocabulary import Task


@dataclass(frozen=True, eq=False)
class Sample:
    """One case on the network's grid.

    Attributes:
        case_id: as in the case.
        patient_id: as in the case.
        image_MXYZ: float32 z-scores within the brain, 0 outside it and for absent sequences.
        present_M: bool, which sequences the case has.
        regions_RXYZ: uint8, nested binary regions WT, TC, ET; None without a segmentation.
        idh: 1 mutant, 0 wildtype, nan unknown.
        codeletion: 1 codeleted, 0 intact, nan unknown.
        affine: 4x4, grid voxel to millimetres in RAS+.
        native_affine: 4x4, voxel of the original files to millimetres in RAS+.
        native_shape: voxels of the original files along each axis.
        grade: 1 high-grade, 0 low-grade, nan unknown.
        mgmt: 1 MGMT promoter methylated, 0 unmethylated, nan unknown.
        weight_RXYZ: float32 in [0, 1], what each voxel of `regions_RXYZ` counts in training; None for 1 everywhere.
        marker_weight: what the label of a marker counts in training; 1 for those not named.
    """

    case_id: str
    patient_id: str
    image_MXYZ: NDArray[np.float32]
    present_M: NDArray[np.bool_]
    regions_RXYZ: NDArray[np.uint8] | None
    idh: float
    codeletion: float
    affine: NDArray[np.float64]
    native_affine: NDArray[np.float64]
    native_shape: tuple[int, int, int]
    grade: float = math.nan
    mgmt: float = math.nan
    weight_RXYZ: NDArray[np.float32] | None = None
    marker_weight: Mapping[Task, float] = field(default_factory=dict)

    def marker(self, task: Task) -> float:
        """Return the label of one of MARKERS: 1, 0, or nan for unknown."""
        return {Task.IDH: self.idh, Task.CODELETION: self.codeletion, Task.GRADE: self.grade, Task.MGMT: self.mgmt}[task]


def marker_value(known: bool | None) -> float:
    """Return 1 for True, 0 for False, nan for unknown."""
    return math.nan if known is None else float(known)
