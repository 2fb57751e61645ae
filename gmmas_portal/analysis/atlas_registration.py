"""The average brain laid over a patient's: affine registration to the MNI152 template that nilearn packages (SimpleITK).

Twelve parameters, Mattes mutual information (Mattes et al., IEEE TMI 2003), so any sequence will do; all voxels at 3 mm, one thread: the
same input gives the same output. The outlined tumour has no say (cost-function masking, Brett et al., NeuroImage 2001), for the template
has nothing that it could be matched to. The search starts from the boxes around both brains. What comes out is believed only where it is
a plausible change of size and position and both brains cover each other; else there is no location.

The template is the symmetric ICBM 2009a (Fonov et al., NeuroImage 2011): its middle is the plane x = 0.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gmmas_data.registration import sitk_module
from gmmas_data.volumes import spacing_of
from gmmas_schema.vocabulary import Modality

RESOLUTION_MM: Final = 3
SMALLEST_OVERLAP: Final = 0.85
"""Dice of the patient's brain and the template's, below which a registration is not believed."""

SCALES: Final = (0.7, 1.4)
"""Stretch of any direction that is believed."""

LARGEST_TILT_DEGREES: Final = 45.0

_BINS, _STEPS = 32, 120
_ORDER = (Modality.T1, Modality.T1CE, Modality.T2, Modality.FLAIR)


def register_to_mni(
    images: Mapping[Modality, NDArray[np.float32]],
    brain: NDArray[np.bool_],
    affine: NDArray[np.float64],
    *,
    tumour: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64] | None:
    """Return the 4x4 matrix from millimetres in RAS+ of a skull-stripped scan to MNI millimetres; None if none is to be believed.

    Args:
        images: scans (I, J, K) of one grid; the one most like the template is used.
        brain: (I, J, K).
        affine: 4x4, voxel to millimetres in RAS+.
        tumour: (I, J, K), what is not to be matched.

    Raises:
        ConfigError: SimpleITK is not installed.
    """
    sitk = sitk_module()
    modality = next(m for m in _ORDER if m in images)
    template, template_brain, template_affine = _template()
    moving_array, moving_affine = _thinned(np.where(brain, images[modality], 0), affine)
    kept_array, _ = _thinned((brain if tumour is None else brain & ~tumour).astype(np.float32), affine)
    start = _start(sitk, brain, affine, template_brain, template_affine)
    with _one_thread(sitk):
        method = _method(sitk)
        around = ndimage.binary_dilation(template_brain, iterations=2).astype(np.float32)
        method.SetMetricFixedMask(_placed(sitk, around, template_affine, kind=sitk.sitkUInt8))
        if tumour is not None and tumour.any():
            method.SetMetricMovingMask(_placed(sitk, _allowed(kept_array, moving_array), moving_affine, kind=sitk.sitkUInt8))
        method.SetInitialTransform(start, inPlace=False)
        try:
            found = method.Execute(_placed(sitk, template, template_affine), _placed(sitk, moving_array, moving_affine))
        except RuntimeError:
            return None
    matrix = _matrix(sitk.AffineTransform(found.GetNthTransform(0)))
    if not _is_plausible(matrix) or _overlap(matrix, brain, affine, template_brain, template_affine) < SMALLEST_OVERLAP:
        return None
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64)


@lru_cache(maxsize=1)
def _template() -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    """Return the template's T1, its brain and its affine at RESOLUTION_MM. Takes seconds, once."""
    from nilearn import datasets

    image = datasets.load_mni152_template(resolution=RESOLUTION_MM)
    values = np.asarray(image.dataobj, dtype=np.float32)
    brain: NDArray[np.bool_] = ndimage.binary_fill_holes(values > 0.05 * values.max())
    return np.where(brain, values, 0), brain, np.asarray(image.affine, dtype=np.float64)


def _thinned(values: NDArray[np.float32], affine: NDArray[np.float64]) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return a volume averaged over blocks of about RESOLUTION_MM, and its affine: the search needs no more."""
    factors = [max(1, round(RESOLUTION_MM / mm)) for mm in spacing_of(affine)]
    kept = tuple(slice(0, n - n % f) for n, f in zip(values.shape, factors, strict=True))
    i, j, k = (n // f for n, f in zip(values.shape, factors, strict=True))
    blocks = values[kept].reshape(i, factors[0], j, factors[1], k, factors[2])
    coarse = affine.copy()
    coarse[:3, :3] = affine[:3, :3] * factors
    coarse[:3, 3] = affine[:3, :3] @ ((np.array(factors) - 1) / 2) + affine[:3, 3]
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32), coarse


def _allowed(kept: NDArray[np.float32], moving: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 0 where tumour takes more than half of a block of brain, else 1: outside the brain the background has its say."""
    return np.where((kept < 0.5) & (moving != 0), 0, 1).astype(np.float32)


def _placed(sitk: Any, values: NDArray[np.float32], affine: NDArray[np.float64], *, kind: int | None = None) -> Any:
    """Return an array as a SimpleITK image whose physical space is RAS+: nothing here reads it as LPS+."""
    spacing = spacing_of(affine)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.transpose(2, 1, 0)))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / spacing).ravel().tolist())
    return image if kind is None else sitk.Cast(image, kind)


def _box(mask: NDArray[np.bool_], affine: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centre and extent in RAS+ of nearly all of a mask."""
    points = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    low, high = np.percentile(points, (0.5, 99.5), axis=0)
    return (low + high) / 2, high - low


def _start(
    sitk: Any,
    brain: NDArray[np.bool_],
    affine: NDArray[np.float64],
    template_brain: NDArray[np.bool_],
    template_affine: NDArray[np.float64],
) -> Any:
    """Return the transform that lays the template's box on the patient's."""
    (here, size), (there, template_size) = _box(brain, affine), _box(template_brain, template_affine)
    start = sitk.AffineTransform(3)
    start.SetCenter(there.tolist())
    start.SetMatrix(np.diag(np.clip(size / template_size, *SCALES)).ravel().tolist())
    start.SetTranslation((here - there).tolist())
    return start


def _method(sitk: Any) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(_BINS)
    method.SetMetricSamplingStrategy(method.NONE)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(learningRate=1.0, minStep=1e-3, numberOfIterations=_STEPS)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([3, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    return method


def _matrix(transform: Any) -> NDArray[np.float64]:
    """Return the 4x4 matrix of an affine transform: x -> A (x - c) + c + t."""
    linear = np.array(transform.GetMatrix()).reshape(3, 3)
    centre, translation = np.array(transform.GetCenter()), np.array(transform.GetTranslation())
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, centre + translation - linear @ centre
    return matrix


def _is_plausible(matrix: NDArray[np.float64]) -> bool:
    """Whether one brain can become another's so: no mirror image, no large stretch, no large tilt."""
    left, stretch, right = np.linalg.svd(matrix[:3, :3])
    rotation = left @ right
    degrees = np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1)))
    return bool(
        np.linalg.det(rotation) > 0 and SCALES[0] <= stretch.min() and stretch.max() <= SCALES[1] and degrees <= LARGEST_TILT_DEGREES
    )


def _overlap(
    matrix: NDArray[np.float64],
    brain: NDArray[np.bool_],
    affine: NDArray[np.float64],
    template_brain: NDArray[np.bool_],
    template_affine: NDArray[np.float64],
) -> float:
    """Return the Dice of both brains on the template's grid."""
    to_voxel = np.linalg.inv(affine) @ matrix @ template_affine
    filled = ndimage.binary_fill_holes(brain).astype(np.uint8)
    moved = ndimage.affine_transform(filled, to_voxel, output_shape=template_brain.shape, order=0) > 0
    both, sizes = int(np.count_nonzero(moved & template_brain)), int(np.count_nonzero(moved)) + int(np.count_nonzero(template_brain))
    return 2 * both / max(sizes, 1)


@contextmanager
def _one_thread(sitk: Any) -> Iterator[None]:
    """Sums over threads differ in their last bits from run to run."""
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
