"""Random patches of a sample, as a draw and its deterministic twin.

A share of the patches is centred on a tumour voxel: first a region is drawn among those that the case has, then a voxel of it, so that a
small enhancing core is met as often as the oedema around it (after Isensee et al., Nature Methods 2021). All others, and all of a case
without a segmentation, are centred on a brain voxel. At the border of the box a patch is moved inwards.

MONAI's crops do the same from index maps of the whole volume and with NumPy's legacy generator; here a draw needs no map of the brain and
follows the generator of the round.
"""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gmmas_data.samples import Sample

TUMOUR_SHARE: Final = 2 / 3
"""Share of the patches that are centred on a tumour voxel where a segmentation shows one."""

_TRIES: Final = 64
"""Voxels drawn at random before the whole box is searched; brains fill about half of their box."""


def random_patch(sample: Sample, patch: tuple[int, int, int], rng: np.random.Generator, *, tumour_share: float = TUMOUR_SHARE) -> Sample:
    """Return a random patch; the same generator state gives the same patch.

    Args:
        sample: one case on its box.
        patch: voxels of the patch, none more than the box has.
        rng: source of randomness.
        tumour_share: probability that the patch is centred on a tumour voxel, where the case has one.
    """
    return crop(sample, draw_corner(sample, patch, rng, tumour_share=tumour_share), patch)


def draw_corner(
    sample: Sample, patch: tuple[int, int, int], rng: np.random.Generator, *, tumour_share: float = TUMOUR_SHARE
) -> tuple[int, int, int]:
    """Return the first voxel of a random patch; arguments as in random_patch."""
    on_tumour = rng.random() < tumour_share
    centre = _tumour_voxel(sample, rng) if on_tumour else None
    if centre is None:
        centre = _brain_voxel(sample, rng)
    shape = sample.image_MXYZ.shape[1:]
    x, y, z = (min(max(at - n // 2, 0), whole - n) for at, n, whole in zip(centre, patch, shape, strict=True))
    return x, y, z


def crop(sample: Sample, corner: tuple[int, int, int], patch: tuple[int, int, int]) -> Sample:
    """Return the patch that begins at voxel `corner`, with its own affine; its arrays are views of the sample's."""
    box = (slice(None), *(slice(first, first + n) for first, n in zip(corner, patch, strict=True)))
    shift = np.eye(4)
    shift[:3, 3] = corner
    return replace(
        sample,
        image_MXYZ=sample.image_MXYZ[box],
        regions_RXYZ=None if sample.regions_RXYZ is None else sample.regions_RXYZ[box],
        weight_RXYZ=None if sample.weight_RXYZ is None else sample.weight_RXYZ[box],
        affine=sample.affine @ shift,
    )


def _tumour_voxel(sample: Sample, rng: np.random.Generator) -> tuple[int, ...] | None:
    """Return a random voxel of a random region, or None where no tumour is known."""
    if sample.regions_RXYZ is None:
        return None
    there = np.flatnonzero(sample.regions_RXYZ.any((1, 2, 3)))
    if len(there) == 0:
        return None
    return _random_voxel(sample.regions_RXYZ[rng.choice(there)] != 0, rng)


def _brain_voxel(sample: Sample, rng: np.random.Generator) -> tuple[int, ...]:
    """Return a random voxel at which a sequence of the case is not 0; any voxel where there is none."""
    shape = sample.image_MXYZ.shape[1:]
    tries = rng.integers(shape, size=(_TRIES, 3))
    hits = sample.image_MXYZ[:, *tries.T][sample.present_M].any(0)
    if hits.any():
        return tuple(tries[hits.argmax()].tolist())
    brain_XYZ: NDArray[np.bool_] = np.asarray(sample.image_MXYZ[sample.present_M].any(0))
    return _random_voxel(brain_XYZ if brain_XYZ.any() else np.ones_like(brain_XYZ), rng)


def _random_voxel(mask_XYZ: NDArray[np.bool_], rng: np.random.Generator) -> tuple[int, ...]:
    """Return one of the mask's voxels, each as likely."""
    inside = np.flatnonzero(mask_XYZ)
    return tuple(int(at) for at in np.unravel_index(inside[rng.integers(len(inside))], mask_XYZ.shape))
