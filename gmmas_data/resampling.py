"""Between a file's own voxels and the network's grid, as one small matrix per axis.

The grid keeps the file's axes (reordered and flipped to the nearest of right, anterior, superior), so every step of resampling is
separable: a volume is multiplied by W of shape (grid voxels, file voxels) along each axis. Three kinds of W:

    smooth    linear interpolation after a Gaussian with FWHM^2 = ratio^2 - 1 voxels where the grid is coarser, so that the file's
              point spread becomes the grid's (Cardoso et al., "Scale factor point spread function matching", MICCAI 2015)
    area      mean over the grid voxel's extent, for binary regions
    restore   linear or nearest interpolation from the grid back to the file's voxels

Grid voxels begin at an edge of a file voxel: at equal spacing both are the same voxels, at a whole ratio each is a whole block.

Legend: N axes in the file's own order, X Y Z the grid's axes, C channels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gmmas_data.volumes import spacing_of
from gmmas_schema.model import GridConfig

_FWHM_PER_SIGMA = 2 * math.sqrt(2 * math.log(2))

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class _Axis:
    """One axis of the grid, in voxels of the file; an edge coordinate e means voxel e begins there.

    Attributes:
        source: which axis of the file it runs along.
        flipped: whether it runs against it.
        source_voxels: file voxels along it.
        voxels: grid voxels along it.
        start: edge where the grid begins, counted in the grid's direction.
        ratio: grid spacing over file spacing.
    """

    source: int
    flipped: bool
    source_voxels: int
    voxels: int
    start: int
    ratio: float

    def centres(self) -> NDArray[np.float64]:
        """Return the grid voxels' centres as file voxel indices, counted in the grid's direction."""
        return self.start - 0.5 + (np.arange(self.voxels, dtype=np.float64) + 0.5) * self.ratio


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the network's grid lies in a file's volume.

    Attributes:
        affine: 4x4, grid voxel to millimetres in RAS+ (oblique if the file is).
    """

    axes: tuple[_Axis, _Axis, _Axis]
    affine: NDArray[np.float64]

    def smooth(self) -> tuple[Matrix, ...]:
        """Return the matrices that resample an image."""
        return tuple(_smooth_matrix(axis) for axis in self.axes)

    def area(self) -> tuple[Matrix, ...]:
        """Return the matrices that average over the grid voxels' extent."""
        return tuple(_area_matrix(axis) for axis in self.axes)

    def resample(self, volume_N: NDArray[Any], matrices: Sequence[Matrix]) -> NDArray[np.float32]:
        """Return a volume of the file on the grid; outside the file it is 0."""
        oriented = volume_N.transpose([axis.source for axis in self.axes])
        oriented = np.flip(oriented, tuple(place for place, axis in enumerate(self.axes) if axis.flipped))
        return _multiply(oriented.astype(np.float32, copy=False), matrices)


def place_grid(mask_N: NDArray[np.bool_], native_affine: NDArray[np.float64], grid: GridConfig) -> Placement:
    """Return the grid centred on the box around a mask, to the nearest file voxel.

    Args:
        mask_N: the brain on the file's voxels; not empty.
        native_affine: 4x4, file voxel to millimetres in RAS+.
        grid: spacing and shape of the grid.
    """
    spacing_mm = spacing_of(native_affine)
    axes: list[_Axis] = []
    to_native = np.zeros((4, 4))
    to_native[3, 3] = 1
    for place, (source, direction) in enumerate(_nearest_axes(native_affine)):
        inside = np.flatnonzero(mask_N.any(axis=tuple(other for other in range(3) if other != source)))
        length, flipped, ratio = mask_N.shape[source], direction < 0, grid.spacing_mm / float(spacing_mm[source])
        low, high = int(inside[0]), int(inside[-1]) + 1
        centre = (2 * length - low - high if flipped else low + high) / 2
        axis = _Axis(source, flipped, length, grid.shape[place], math.floor(centre - grid.shape[place] * ratio / 2 + 0.5), ratio)
        first = axis.centres()[0]
        to_native[source, place] = -ratio if flipped else ratio
        to_native[source, 3] = length - 1 - first if flipped else first
        axes.append(axis)
    return Placement((axes[0], axes[1], axes[2]), native_affine @ to_native)


def restore(
    volume_CXYZ: NDArray[Any],
    *,
    affine: NDArray[np.float64],
    native_affine: NDArray[np.float64],
    native_shape: tuple[int, int, int],
    order: Literal[0, 1],
) -> NDArray[np.float32]:
    """Return a volume on the grid, interpolated at every voxel of the file; 0 where the grid does not reach.

    Args:
        volume_CXYZ: channels on the grid.
        affine: 4x4 of the grid, made by place_grid.
        native_affine: 4x4 of the file.
        native_shape: voxels of the file.
        order: 1 linear, 0 nearest.
    """
    to_grid = np.linalg.inv(affine) @ native_affine
    sources = [int(np.argmax(np.abs(to_grid[place, :3]))) for place in range(3)]
    matrices = [
        _restore_matrix(
            to_grid[place, source] * np.arange(native_shape[source]) + to_grid[place, 3], volume_CXYZ.shape[1 + place], order=order
        )
        for place, source in enumerate(sources)
    ]
    channels = [_multiply(channel.astype(np.float32, copy=False), matrices) for channel in volume_CXYZ]
    return np.ascontiguousarray(np.stack(channels).transpose([0, *(1 + int(place) for place in np.argsort(sources))]))


def _nearest_axes(affine: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return, for right, anterior and superior, the nearest file axis and +1 or -1 for its direction."""
    orientation = nib.orientations.io_orientation(affine)
    found = {int(world): (source, int(direction)) for source, (world, direction) in enumerate(orientation)}
    return [found[world] for world in range(3)]


def _multiply(volume_XYZ: NDArray[np.float32], matrices: Sequence[Matrix]) -> NDArray[np.float32]:
    """Multiply along each of three axes."""
    for place, matrix in enumerate(matrices):
        volume_XYZ = np.moveaxis(np.tensordot(matrix, volume_XYZ, axes=(1, place)), 0, place)
    return np.ascontiguousarray(volume_XYZ)


def _smooth_matrix(axis: _Axis) -> Matrix:
    """Gaussian prefilter where the grid is coarser, then linear interpolation."""
    linear = _linear_matrix(axis.centres(), axis.source_voxels)
    if axis.ratio <= 1 + 1e-3:
        return linear.astype(np.float32)
    sigma = math.sqrt(axis.ratio**2 - 1) / _FWHM_PER_SIGMA
    blur = ndimage.gaussian_filter1d(np.eye(axis.source_voxels), sigma, axis=0, mode="constant")
    return np.asarray(linear @ blur, dtype=np.float32)


def _area_matrix(axis: _Axis) -> Matrix:
    """Share of each grid voxel's extent that each file voxel covers."""
    edges = axis.start + np.arange(axis.voxels + 1) * axis.ratio
    voxels = np.arange(axis.source_voxels)
    overlap = np.minimum(edges[1:, None], voxels + 1) - np.maximum(edges[:-1, None], voxels)
    return np.asarray(np.clip(overlap, 0, None) / axis.ratio, dtype=np.float32)


def _restore_matrix(positions: NDArray[np.float64], voxels: int, *, order: Literal[0, 1]) -> Matrix:
    """Interpolate a grid at fractional positions; the outermost half voxel holds its value, beyond it there is nothing."""
    # Positions come out of a matrix inverse; without rounding, equal spacing would not restore exactly.
    positions = np.round(positions, 6)
    reached = (positions >= -0.5) & (positions <= voxels - 0.5)
    held = np.clip(positions, 0, voxels - 1)
    if order == 0:
        held = np.clip(np.floor(positions + 0.5), 0, voxels - 1)
    return (_linear_matrix(held, voxels) * reached[:, None]).astype(np.float32)


def _linear_matrix(positions: NDArray[np.float64], voxels: int) -> NDArray[np.float64]:
    """Weights of linear interpolation at fractional positions; 0 outside."""
    return np.asarray(np.clip(1 - np.abs(positions[:, None] - np.arange(voxels)), 0, None))
