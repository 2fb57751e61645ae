"""Overlapping windows over a volume, with Gaussian weights that sum to 1 at every voxel.

    s_w(n) = g_w(n) / sum_v g_v(n),   g_w a Gaussian of sigma = side / 8 around the window's centre

so that voxels near a window's border, where the network sees little around them, count little (Isensee et al., Nature Methods 2021). Places
and Gaussians are MONAI's (`monai.data.utils`), as in its sliding-window inference. That function itself is not used, because the molecular
heads need sums over windows instead of stitched maps, and windows without any brain need not be computed.

Shape suffixes: B batch, M modality (order of MODALITIES), XYZ voxels of the volume, or of a window.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from gmmas_schema.errors import ModelError
from gmmas_schema.inference import OVERLAP

Place = tuple[slice, slice, slice]
"""Where a window lies in the volume."""


@dataclass(frozen=True)
class Tiling:
    """Windows that together cover the brain, on the device of the image.

    Attributes:
        places: where the windows lie, in a fixed order.
        weights: (gaussian_XYZ of a window, coverage_XYZ of the volume), fp32: the weight of each voxel of a window, and the sum of these
            over the windows, 0 where no window lies; None where the volume is one window.
    """

    places: tuple[Place, ...]
    weights: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        """Return the number of windows."""
        return len(self.places)

    def __iter__(self) -> Iterator[tuple[Place, Tensor | None]]:
        """Yield each window's place and its share_XYZ of the voxels there; None for the one window that is the volume."""
        for place in self.places:
            yield place, None if self.weights is None else self.weights[0] / self.weights[1][place]


def lay_windows(image_BMXYZ: Tensor, present_BM: Tensor, *, patch: tuple[int, int, int] | None = None, overlap: float = OVERLAP) -> Tiling:
    """Return the windows that hold some brain of some sample.

    Args:
        image_BMXYZ: 0 outside the brain; an absent modality is not read.
        present_BM: bool.
        patch: voxels of a window, none more than the image has; None for the whole image.
        overlap: in [0, 1), share of a window's side that the next window covers again; at least that, since the last window of an
            axis is moved back to the border.

    Raises:
        ModelError: `overlap` is out of bounds, or the image is smaller than a window.
    """
    shape = tuple(image_BMXYZ.shape[2:])
    if patch is None or patch == shape:
        return Tiling(((slice(None), slice(None), slice(None)),))
    if not 0 <= overlap < 1 or any(n > whole for n, whole in zip(patch, shape, strict=True)):
        raise ModelError(
            "windows do not fit the image",
            got=f"windows of {patch} voxels with overlap {overlap} on {shape} voxels",
            expected="windows no larger than the image, overlap from 0 to below 1",
            remedy="use the grid of the model definition and an overlap such as 0.5",
        )
    # MONAI takes seconds to import, and a grid without patches never needs it.
    from monai.data.utils import compute_importance_map, dense_patch_slices

    steps = [n if n == whole else max(1, int(n * (1 - overlap))) for n, whole in zip(patch, shape, strict=True)]
    places: list[Place] = dense_patch_slices(shape, patch, steps)
    brain_XYZ = brain_mask(image_BMXYZ, present_BM)
    kept = [place for place in places if bool(brain_XYZ[place].any())] or places
    gaussian_XYZ: Tensor = compute_importance_map(patch, mode="gaussian", device=image_BMXYZ.device)
    coverage_XYZ = torch.zeros(shape, device=image_BMXYZ.device)
    for place in kept:
        coverage_XYZ[place] += gaussian_XYZ
    return Tiling(tuple(kept), (gaussian_XYZ, coverage_XYZ))


def brain_mask(image_BMXYZ: Tensor, present_BM: Tensor) -> Tensor:
    """Return mask_XYZ: where any present modality of any sample is not 0."""
    return image_BMXYZ[present_BM].ne(0).any(0)
