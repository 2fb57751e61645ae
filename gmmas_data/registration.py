"""Rigid co-registration of the sequences of one study to a reference, and one isotropic grid for all (SimpleITK).

Mattes mutual information (Mattes et al., IEEE TMI 2003) over 50 bins, a tenth of the voxels drawn with a fixed seed, three resolutions,
one thread: the same input gives the same output. Scans of one session share the scanner's frame, so the search starts from the headers;
from the centres only where the frames differ.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gmmas_data.dicom_series import missing_extra
from gmmas_schema.errors import DataError, ReasonCode

BINS, SAMPLED, SEED = 50, 0.1, 1
LARGEST_ROTATION_DEGREES, LARGEST_TRANSLATION_MM = 30.0, 60.0
"""Nobody moves farther within a session: beyond it the registration went wrong."""

WHOLE_NUMBERS = (100.0, 32767.0)
"""Largest intensities that 16 bits hold in whole numbers without loss: below, half a step is more than 0.5 %; above, they do not fit."""


@dataclass(frozen=True)
class Placed:
    """A scan on the reference's grid, and how it got there."""

    image: Any
    rotation_degrees: float = 0.0
    translation_mm: float = 0.0
    mutual_information: float | None = None


def read_volume(path: Path) -> Any:
    """Return a converted series as a SimpleITK image in single precision.

    Raises:
        DataError: the file is no volume.
    """
    sitk = sitk_module()
    try:
        image = sitk.ReadImage(str(path), sitk.sitkFloat32)
    except RuntimeError as error:
        raise _fault("a converted series cannot be read", path, got=" ".join(str(error).split())[:200]) from error
    if image.GetDimension() != 3 or min(image.GetSize()) < 4:
        raise _fault("a series is no volume", path, got=f"{image.GetDimension()} axes of {image.GetSize()} voxels")
    return image


def isotropic(image: Any, *, spacing_mm: float) -> Any:
    """Return an image on an isotropic grid along its own axes, over the same field of view."""
    sitk = sitk_module()
    old, size = np.array(image.GetSpacing()), np.array(image.GetSize())
    new_size = np.maximum(np.round(old * size / spacing_mm), 1).astype(int)
    grid = sitk.Image(new_size.tolist(), sitk.sitkUInt8)
    grid.SetSpacing([spacing_mm] * 3)
    grid.SetDirection(image.GetDirection())
    # The first voxel's centre lies half a new voxel inside the field of view's edge, as it lay half an old one.
    grid.SetOrigin(image.TransformContinuousIndexToPhysicalPoint((-0.5 + 0.5 * spacing_mm / old).tolist()))
    return sitk.Resample(image, grid, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear, 0.0, sitk.sitkFloat32)


def place_on(reference: Any, moving: Any, *, same_frame: bool, name: str) -> Placed:
    """Return a scan on the grid of the reference.

    Args:
        reference: image that gives the grid.
        moving: image of the same patient.
        same_frame: both were acquired in one frame of reference.
        name: of the scan, for messages.

    Raises:
        DataError: the scans do not overlap, or the registration moved farther than a patient can.
    """
    sitk = sitk_module()
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        start = sitk.Euler3DTransform()
        start.SetCenter(reference.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in reference.GetSize()]))
        if not same_frame:
            start = sitk.CenteredTransformInitializer(
                reference, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
            )
        method = _method(sitk)
        method.SetInitialTransform(start, inPlace=False)
        found = sitk.Euler3DTransform(method.Execute(reference, moving).GetNthTransform(0))
        placed = sitk.Resample(moving, reference, found, sitk.sitkLinear, 0.0, sitk.sitkFloat32)
    except RuntimeError as error:
        raise _fault("two sequences cannot be co-registered", name, got=" ".join(str(error).split())[-200:]) from error
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    rotation = np.array(found.GetMatrix()).reshape(3, 3)
    degrees = float(np.degrees(np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1, 1))))
    centre = reference.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in reference.GetSize()])
    moved_mm = float(np.linalg.norm(np.subtract(found.TransformPoint(centre), start.TransformPoint(centre))))
    if degrees > LARGEST_ROTATION_DEGREES or moved_mm > LARGEST_TRANSLATION_MM:
        raise _fault("a co-registration went wrong", name, got=f"{degrees:.0f} degrees and {moved_mm:.0f} mm")
    return Placed(placed, round(degrees, 2), round(moved_mm, 2), round(-float(method.GetMetricValue()), 4))


def cut(image: Any, mask_IJK: NDArray[np.bool_]) -> Any:
    """Return an image that is 0 outside a mask over its voxels."""
    sitk = sitk_module()
    mask = sitk.GetImageFromArray(mask_IJK.transpose(2, 1, 0).astype(np.uint8))
    mask.CopyInformation(image)
    return sitk.Mask(image, mask)


def save_volume(image: Any, path: Path) -> None:
    """Write an image as compressed NIfTI: whole numbers, as scanners give them, where they hold it; else as it is (Philips' scaling)."""
    sitk = sitk_module()
    extent = sitk.MinimumMaximumImageFilter()
    extent.Execute(image)
    if WHOLE_NUMBERS[0] <= max(-extent.GetMinimum(), extent.GetMaximum()) <= WHOLE_NUMBERS[1]:
        image = sitk.Cast(sitk.Round(image), sitk.sitkInt16)
    sitk.WriteImage(image, str(path), True)


def _method(sitk: Any) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(BINS)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(SAMPLED, SEED)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(learningRate=1.0, minStep=1e-3, numberOfIterations=150)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    return method


def sitk_module() -> Any:
    """Return SimpleITK.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import SimpleITK
    except ImportError as error:
        raise missing_extra("SimpleITK") from error
    return SimpleITK


def _fault(what: str, where: object, *, got: str) -> DataError:
    return DataError(
        what,
        where=where,
        got=got,
        expected="three-dimensional scans of one patient that show the same head",
        remedy="check the series that were named; leave this one out if it is another region",
        code=ReasonCode.DATA_GRID,
    )
