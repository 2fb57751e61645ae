"""What a scanner does to the ideal image: slice profile, misregistration, shading, ghosts, noise, and an arbitrary scale.

Noise is Rician, the magnitude of a complex signal with Gaussian noise in both parts (Gudbjartsson and Patz, Magn Reson Med 1995).
"""

import numpy as np
from numpy.typing import NDArray

from gmmas_data.phantom.fields import Grid, Volume, apply_separable, random_field
from gmmas_schema.phantom import ScannerConfig
from gmmas_schema.vocabulary import Modality

MISREGISTRATION_MM = 0.25
BIAS_LENGTH_MM = 70.0
LARGEST_VALUE = 32000


def acquire(rng: np.random.Generator, image_XYZ: Volume, modality: Modality, scanner: ScannerConfig, grid: Grid) -> Volume:
    """Return the image as the scanner gives it: magnitude, in arbitrary units."""
    volumetric = modality is Modality.T1CE and rng.random() < scanner.volumetric_t1ce
    thickness_mm = min(scanner.thickness_mm, 1.2) if volumetric else scanner.thickness_mm
    shift = rng.normal(0, MISREGISTRATION_MM, 3) / grid.spacing_mm
    matrices = [_shift_matrix(n, s) for n, s in zip(grid.shape, shift, strict=True)]
    matrices[scanner.axis] = _slice_matrix(grid.shape[scanner.axis], thickness_mm / grid.spacing_mm, rng.random())
    image = apply_separable(image_XYZ, matrices)

    image *= np.exp(np.float32(0.5 * scanner.bias * rng.uniform(0.6, 1.3)) * random_field(rng, grid, length_mm=BIAS_LENGTH_MM))
    if rng.random() < scanner.ghosting:
        image += np.float32(rng.uniform(0.02, 0.06)) * np.roll(image, int(grid.shape[1] * rng.uniform(0.25, 0.5)), axis=1)
    # A voxel of 2 mm averages eight of 1 mm, but noise of resampled clinical images is correlated: less than the full gain.
    averaging = min(1.0, 1.2 * grid.spacing_mm**-0.5)
    sigma = np.float32(scanner.noise * rng.uniform(0.8, 1.3) * (1.4 if modality is Modality.FLAIR else 1.0) * averaging)
    real, imaginary = rng.standard_normal((2, *grid.shape), dtype=np.float32)
    image = np.hypot(image + sigma * real, sigma * imaginary)
    gamma, gain = np.exp(0.06 * rng.standard_normal()), rng.uniform(180, 900)
    return np.asarray(np.power(image, np.float32(gamma)) * np.float32(gain), dtype=np.float32)


def quantise(image_XYZ: Volume, inside_XYZ: NDArray[np.bool_]) -> NDArray[np.int16]:
    """Return whole numbers: 0 outside the brain and at least 1 inside, so that the brain can be told from the image alone."""
    values = np.clip(np.rint(image_XYZ), 1, LARGEST_VALUE).astype(np.int16)
    return np.asarray(values * inside_XYZ, dtype=np.int16)


def _shift_matrix(n: int, shift: float) -> Volume:
    """Return linear interpolation at `i + shift`, the edge repeated."""
    at = np.clip(np.arange(n) + shift, 0, n - 1)
    low = np.minimum(at.astype(int), n - 2)
    matrix = np.zeros((n, n), np.float32)
    matrix[np.arange(n), low] = 1 - (at - low)
    matrix[np.arange(n), low + 1] += at - low
    return matrix


def _slice_matrix(n: int, thickness: float, offset: float) -> Volume:
    """Return averaging over slabs of `thickness` voxels, then linear interpolation back to every voxel."""
    if thickness <= 1:
        return np.eye(n, dtype=np.float32)
    centres = np.arange(offset * thickness - thickness, n + thickness, thickness)
    voxel = np.arange(n)
    overlap = np.minimum(voxel + 0.5, centres[:, None] + thickness / 2) - np.maximum(voxel - 0.5, centres[:, None] - thickness / 2)
    average = np.clip(overlap, 0, None)
    centres, average = centres[average.sum(1) > 0], average[average.sum(1) > 0]
    average /= average.sum(1, keepdims=True)
    at = np.clip((voxel - centres[0]) / thickness, 0, len(centres) - 1)
    low = np.minimum(at.astype(int), len(centres) - 2)
    back = np.zeros((n, len(centres)))
    back[voxel, low] = 1 - (at - low)
    back[voxel, low + 1] += at - low
    return np.asarray(back @ average, dtype=np.float32)
