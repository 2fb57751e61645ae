"""Taking the skull off with a program of the hospital's own choice; the project brings none.

    hd-bet -i {image} -o {brain} -device cpu     HD-BET (Isensee et al., Human Brain Mapping 2019)
    mri_synthstrip -i {image} -o {brain}         SynthStrip (Hoopes et al., NeuroImage 2022)

The program sees one image, the reference of the co-registration. Where its answer is not background lies the brain, holes filled; the
same mask then cuts every sequence. What is no brain by its volume is refused: better no case than half a patient.
"""

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from gmmas_data.case_audit import BRAIN_ML
from gmmas_data.normalisation import foreground
from gmmas_data.volumes import read_image
from gmmas_runtime.supervised import descendants, kill_all
from gmmas_schema.dicom import SkullStripper
from gmmas_schema.errors import ConfigError, DataError, ReasonCode


def find_brain(stripper: SkullStripper, image: Path) -> NDArray[np.bool_]:
    """Return where a program says that the brain is, (I, J, K) as the image is stored.

    Args:
        stripper: the program.
        image: NIfTI file of a head.

    Raises:
        ConfigError: the program is not there.
        DataError: it failed, ran out of time, or what it left is no brain on the same grid.
    """
    with tempfile.TemporaryDirectory(prefix=".skull-", dir=image.parent) as folder:
        brain = Path(folder) / "brain.nii.gz"
        _run(stripper, stripper.words(image=image, brain=brain))
        if not brain.is_file():
            raise _fault(stripper, got="no file where {brain} stands", expected="a NIfTI file there")
        head = read_image(image)
        try:
            left = read_image(brain)
        except DataError as error:
            raise _fault(stripper, got=f"{error.what}: {error.got}", expected="a whole NIfTI file where {brain} stands") from error
    if left.values_XYZ.shape != head.values_XYZ.shape or not np.allclose(left.affine, head.affine, atol=1e-3):
        raise _fault(stripper, got="an image on another grid", expected=f"the grid of the input, {head.values_XYZ.shape}")
    mask: NDArray[np.bool_] = ndimage.binary_fill_holes(foreground(left.values_XYZ))
    ml = float(mask.sum()) * float(np.prod(left.spacing_mm)) / 1000
    if not BRAIN_ML[0] <= ml <= BRAIN_ML[1]:
        raise _fault(stripper, got=f"{ml:.0f} ml", expected=f"a brain of {BRAIN_ML[0]:.0f} to {BRAIN_ML[1]:.0f} ml")
    return mask


def _run(stripper: SkullStripper, command: Sequence[str]) -> None:
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )
    except OSError as error:
        raise ConfigError(
            "the program that takes the skull off cannot be started",
            where=stripper.program,
            got=error.strerror or type(error).__name__,
            expected="a program of this machine",
            remedy="install it, or name it by its whole path; without a program, skulls stay on",
        ) from error
    with process:
        try:
            out, err = process.communicate(timeout=stripper.timeout_s)
        except BaseException as error:
            # Such programs are often scripts around others, which would go on, in memory and on the card.
            others = descendants(process.pid)
            process.kill()
            kill_all(others)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise _fault(stripper, got=f"no end within {stripper.timeout_s:g} s", expected="an answer in time") from error
    if process.returncode:
        said = (err.strip() or out.strip()).splitlines()
        last = f": {said[-1][:200]}" if said else ""
        raise _fault(stripper, got=f"exit status {process.returncode}{last}", expected="exit status 0")


def _fault(stripper: SkullStripper, *, got: str, expected: str) -> DataError:
    return DataError(
        "the skull could not be taken off",
        where=stripper.program,
        got=got,
        expected=expected,
        remedy="run the program by hand on this study, or import it without and strip it afterwards",
        code=ReasonCode.DATA_UNREADABLE,
    )
