"""Makes tests/data/BraTS2021_00006 from the original case: `python tests/data/make_case.py FOLDER_OF_THE_ORIGINAL`.

Scans are averaged over blocks of 2 x 2 x 2 voxels; a block of the segmentation takes its most frequent label. Both are cropped to the
brain with a margin of two voxels; orientation and place in millimetres stay those of the original.
"""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np

NAME = "BraTS2021_00006"
PARTS = ("t1", "t1ce", "t2", "flair", "seg")
MARGIN = 2


def blocks_of(values: np.ndarray) -> np.ndarray:
    """Return the voxels of every whole 2 x 2 x 2 block along a new last axis."""
    x, y, z = (n // 2 for n in values.shape)
    return values[: 2 * x, : 2 * y, : 2 * z].reshape(x, 2, y, 2, z, 2).transpose(0, 2, 4, 1, 3, 5).reshape(x, y, z, 8)


def halve(values: np.ndarray, *, labels: bool) -> np.ndarray:
    """Return the volume at twice its spacing."""
    blocks = blocks_of(values)
    if not labels:
        return np.rint(blocks.mean(axis=-1)).astype(np.int16)
    names = np.unique(values)
    return names[np.argmax(np.stack([(blocks == name).sum(axis=-1) for name in names]), axis=0)].astype(np.uint8)


def main(source: Path, target: Path) -> None:
    """Write the five files."""
    originals = {part: nib.load(source / f"{NAME}_{part}.nii.gz") for part in PARTS}
    small = {part: halve(np.asarray(image.dataobj), labels=part == "seg") for part, image in originals.items()}
    brain = np.argwhere(np.any([small[part] != 0 for part in PARTS], axis=0))
    low = np.maximum(brain.min(axis=0) - MARGIN, 0)
    high = brain.max(axis=0) + 1 + MARGIN
    to_original = np.diag([2.0, 2.0, 2.0, 1.0])
    to_original[:3, 3] = 2 * low + 0.5
    target.mkdir(exist_ok=True)
    for part, values in small.items():
        cropped = values[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        image = nib.Nifti1Image(np.ascontiguousarray(cropped), originals[part].affine @ to_original)
        image.header.set_xyzt_units("mm")
        nib.save(image, target / f"{NAME}_{part}.nii.gz")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent / NAME)
