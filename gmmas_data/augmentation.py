"""Augmentation: a random draw, then its deterministic twin (as in TorchIO, Perez-Garcia et al., CMPB 2021).

    u = (z - low) / (high - low) in the brain,  z' = (low + (high - low) u^gamma) * scale + shift + noise,   low, high = -CLIP, CLIP

Intensities change per modality and only inside the brain, so that outside stays 0; flips mirror image, regions and affine alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gmmas_data.normalisation import CLIP
from gmmas_data.samples import Sample

VoxelT = TypeVar("VoxelT", bound=np.generic)

FLIP_PROBABILITY = (0.5, 0.1, 0.1)
"""Left-right is nearly a symmetry of the brain; the other axes are not."""

SCALE_RANGE, SHIFT_RANGE, GAMMA_RANGE, NOISE_RANGE = (0.9, 1.1), (-0.1, 0.1), (0.8, 1.25), (0.0, 0.1)
"""Uniform ranges; gamma uniform in its logarithm. Shift and noise in standard deviations of the brain."""

GAMMA_PROBABILITY, NOISE_PROBABILITY = 0.3, 0.3


@dataclass(frozen=True)
class Augmentation:
    """The parameters of one draw; tuples have one entry per axis X, Y, Z or per modality.

    Attributes:
        flip: axes to mirror.
        scale: factor on the z-scores.
        shift: added to the z-scores.
        gamma: exponent on the intensities between -CLIP and CLIP; 1 is none.
        noise: standard deviation of Gaussian noise; 0 is none.
        noise_seed: seed of the noise.
    """

    flip: tuple[bool, bool, bool] = (False, False, False)
    scale: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()
    gamma: tuple[float, ...] = ()
    noise: tuple[float, ...] = ()
    noise_seed: int = 0


def augment(sample: Sample, rng: np.random.Generator) -> Sample:
    """Return the sample, randomly changed; the same generator state gives the same result."""
    return apply(sample, draw(rng, modalities=len(sample.present_M)))


def draw(rng: np.random.Generator, *, modalities: int) -> Augmentation:
    """Return random parameters."""
    flip_x, flip_y, flip_z = rng.random(3) < FLIP_PROBABILITY
    gamma = np.exp(rng.uniform(math.log(GAMMA_RANGE[0]), math.log(GAMMA_RANGE[1]), modalities))
    noise = rng.uniform(*NOISE_RANGE, modalities)
    return Augmentation(
        flip=(bool(flip_x), bool(flip_y), bool(flip_z)),
        scale=tuple(rng.uniform(*SCALE_RANGE, modalities).tolist()),
        shift=tuple(rng.uniform(*SHIFT_RANGE, modalities).tolist()),
        gamma=tuple(np.where(rng.random(modalities) < GAMMA_PROBABILITY, gamma, 1.0).tolist()),
        noise=tuple(np.where(rng.random(modalities) < NOISE_PROBABILITY, noise, 0.0).tolist()),
        noise_seed=int(rng.integers(2**63)),
    )


def apply(sample: Sample, augmentation: Augmentation) -> Sample:
    """Return the sample changed by these parameters; the sample itself stays as it is."""
    image_MXYZ = sample.image_MXYZ.copy()
    noise_rng = np.random.default_rng(augmentation.noise_seed)
    for place in np.flatnonzero(sample.present_M):
        image_MXYZ[place] = _change_intensity(image_MXYZ[place], augmentation, int(place), noise_rng)
    axes = tuple(axis for axis, flip in enumerate(augmentation.flip) if flip)
    affine = sample.affine @ _mirror(axes, sample.image_MXYZ.shape[1:])
    if not axes:
        return replace(sample, image_MXYZ=image_MXYZ, affine=affine)
    regions_RXYZ = None if sample.regions_RXYZ is None else _flip(sample.regions_RXYZ, axes)
    weight_RXYZ = None if sample.weight_RXYZ is None else _flip(sample.weight_RXYZ, axes)
    return replace(sample, image_MXYZ=_flip(image_MXYZ, axes), regions_RXYZ=regions_RXYZ, weight_RXYZ=weight_RXYZ, affine=affine)


def _flip(volume_CXYZ: NDArray[VoxelT], axes: Sequence[int]) -> NDArray[VoxelT]:
    """Return a copy of a volume, mirrored along some of X, Y, Z."""
    return np.ascontiguousarray(np.flip(volume_CXYZ, tuple(1 + axis for axis in axes)))


def _change_intensity(
    image_XYZ: NDArray[np.float32], augmentation: Augmentation, place: int, noise_rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return one scan with its brain voxels changed (gamma, scale, shift, noise in this order)."""
    brain = image_XYZ != 0
    values = image_XYZ[brain]
    if augmentation.gamma and augmentation.gamma[place] != 1:
        unit = np.clip((values + CLIP) / (2 * CLIP), 0, 1)
        values = 2 * CLIP * unit ** np.float32(augmentation.gamma[place]) - CLIP
    if augmentation.scale:
        values = values * np.float32(augmentation.scale[place])
    if augmentation.shift:
        values = values + np.float32(augmentation.shift[place])
    if augmentation.noise and augmentation.noise[place] > 0:
        values = values + np.float32(augmentation.noise[place]) * noise_rng.standard_normal(values.size, dtype=np.float32)
    changed = np.zeros_like(image_XYZ)
    changed[brain] = values
    return changed


def _mirror(axes: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return the 4x4 that maps voxels of the mirrored grid to those of the grid."""
    matrix = np.eye(4)
    for axis in axes:
        matrix[axis, axis], matrix[axis, 3] = -1, shape[axis] - 1
    return matrix
