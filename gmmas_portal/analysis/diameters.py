"""Diameters of a mask, exact over its hull.

A voxel is stood for by the centres of its faces, so that a row of n voxels is n voxels long, and a ball is neither shortened by half a
voxel at each end, as with voxel centres, nor lengthened, as with voxel corners. The two points of a set that lie farthest apart are
corners of its convex hull, so all pairs of the hull's corners give the longest diameter without any error of search.

In a slice, the longest diameter and the longest one at right angles to it are those of the two-dimensional criteria for gliomas (Wen et
al., JCO 2010, "Updated Response Assessment Criteria for High-Grade Gliomas"); both are taken on the hull, so that a ring is measured across
its necrosis. The chord at right angles is longest above or below a corner of the hull, because the hull's height is linear between corners.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist, squareform

_EQUAL_MM = 1e-6
"""Of several longest diameters that one counts whose perpendicular is longest, so that no order of voxels decides."""


@dataclass(frozen=True)
class SliceDiameters:
    """The two diameters in a slice.

    Attributes:
        longest_mm: the longest of all slices.
        perpendicular_mm: at right angles to it in the same slice.
        place: index of the slice along its axis, from 0.
    """

    longest_mm: float
    perpendicular_mm: float
    place: int


def longest_diameter(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> float:
    """Return the longest diameter in mm in three dimensions.

    Args:
        mask: (I, J, K), not empty.
        affine: 4x4, voxel to millimetres.
    """
    surface = mask & ~binary_erosion(mask)
    points = _face_centres(np.argwhere(surface)) @ affine[:3, :3].T
    return _farthest(_corners(points))[0]


def largest_slice_diameters(mask: NDArray[np.bool_], affine: NDArray[np.float64], *, axis: int) -> SliceDiameters:
    """Return the diameters of the slice with the longest one.

    Args:
        mask: (I, J, K), not empty.
        affine: 4x4, voxel to millimetres.
        axis: of the voxel grid, along which the slices are stacked.
    """
    inside = [a for a in range(3) if a != axis]
    first, second = (affine[:3, a] for a in inside)
    # Coordinates in the plane of the slice, whatever its tilt: the axes may be a hair off right angles.
    across = first / np.linalg.norm(first)
    up = second - (second @ across) * across
    to_plane = np.array([[first @ across, second @ across], [0.0, np.linalg.norm(up)]])
    best: SliceDiameters | None = None
    for place in np.flatnonzero(mask.any(axis=tuple(inside))):
        plane = np.take(mask, place, axis=axis)
        points = _face_centres(np.argwhere(plane & ~binary_erosion(plane))) @ to_plane.T
        corners = _corners(points)
        longest, directions = _farthest(corners)
        if best is not None and longest < best.longest_mm - _EQUAL_MM:
            continue
        perpendicular = max(_longest_chord(corners, along) for along in directions)
        if best is None or longest > best.longest_mm + _EQUAL_MM or perpendicular > best.perpendicular_mm + _EQUAL_MM:
            best = SliceDiameters(longest, perpendicular, int(place))
    assert best is not None, "the mask is empty"
    return best


def _face_centres(voxels: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the centres of all faces of voxels (N, D): two for each of the D axes."""
    dimensions = voxels.shape[1]
    steps = np.zeros((2 * dimensions, dimensions))
    for row, (axis, sign) in enumerate(product(range(dimensions), (-0.5, 0.5))):
        steps[row, axis] = sign
    centres: NDArray[np.float64] = (voxels.astype(np.float64)[:, None, :] + steps).reshape(-1, dimensions)
    return centres


def _corners(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the corners of the convex hull of points (N, D); in a plane in their order around it."""
    corners: NDArray[np.float64] = points[ConvexHull(points).vertices]
    return corners


def _farthest(corners: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Return the largest distance of two points (N, D), and the unit vectors (P, D) between all pairs that far apart."""
    distances = squareform(pdist(corners))
    longest = float(distances.max())
    one, other = np.nonzero(np.triu(distances >= longest - _EQUAL_MM))
    directions: NDArray[np.float64] = (corners[other] - corners[one]) / longest
    return longest, directions


def _longest_chord(corners: NDArray[np.float64], along: NDArray[np.float64]) -> float:
    """Return the longest chord of a convex polygon at right angles to a direction.

    Args:
        corners: (N, 2), in their order around the polygon.
        along: unit vector (2,).
    """
    u, v = corners @ along, corners @ np.array([-along[1], along[0]])
    longest = 0.0
    for place in u:
        heights = []
        for here, there in zip(range(len(u)), np.roll(range(len(u)), -1), strict=True):
            low, high = sorted((u[here], u[there]))
            if low - 1e-9 <= place <= high + 1e-9:
                if high - low < 1e-9:
                    heights += [v[here], v[there]]
                else:
                    part = (place - u[here]) / (u[there] - u[here])
                    heights.append(v[here] + part * (v[there] - v[here]))
        longest = max(longest, float(max(heights) - min(heights)))
    return longest
