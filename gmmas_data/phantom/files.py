"""Writing phantoms as BraTS does: NIfTI in LPS, one folder a patient, a labels table a site, one manifest.

A case is written into a hidden folder and renamed, so a folder that is there is whole. Compressed files carry no time stamp, so
equal cases are equal bytes.
"""

import csv
import gzip
import io
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from gmmas_data.phantom.case import PhantomCase
from gmmas_data.phantom.fields import Grid
from gmmas_schema.vocabulary import SEGMENTATION_VALUES, Layout, Modality

MANIFEST = "phantom.json"
LABELS = "labels.csv"
LABEL_COLUMNS = ("patient_id", "idh", "codeletion", "subtype", "grade", "age_years", "sex")
COMPRESSION = 2
"""gzip level: noise hardly compresses; level 6 takes twice the time and saves 4 %."""

SEPARATOR = {Layout.BRATS2021: "_", Layout.BRATS2023: "-"}
SUFFIX: dict[Layout, dict[Modality, str]] = {
    Layout.BRATS2021: {m: m.value for m in Modality},
    Layout.BRATS2023: {Modality.T1: "t1n", Modality.T1CE: "t1c", Modality.T2: "t2w", Modality.FLAIR: "t2f"},
}


def write_case(folder: Path, case: PhantomCase, *, layout: Layout, segmentation: bool) -> None:
    """Write one case into the new folder `folder`, named after the patient; without a label map where it is not labelled."""
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for modality, image in case.images.items():
            name = f"{folder.name}{SEPARATOR[layout]}{SUFFIX[layout][modality]}.nii.gz"
            (partial / name).write_bytes(encode_nifti(image, case.grid))
        if segmentation:
            values = np.zeros(4, np.uint8)
            for in_file, ours in SEGMENTATION_VALUES[layout].items():
                values[ours] = in_file
            name = f"{folder.name}{SEPARATOR[layout]}seg.nii.gz"
            (partial / name).write_bytes(encode_nifti(values[case.labels_XYZ], case.grid))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def encode_nifti(volume_XYZ: NDArray[Any], grid: Grid) -> bytes:
    """Return a gzipped NIfTI of a RAS+ volume, stored in LPS order as BraTS is."""
    step = grid.spacing_mm
    affine = np.diag([-step, -step, step, 1.0])
    affine[:3, 3] = [grid.origin_mm[0] + step * (grid.shape[0] - 1), grid.origin_mm[1] + step * (grid.shape[1] - 1), grid.origin_mm[2]]
    image = nib.Nifti1Image(np.ascontiguousarray(volume_XYZ[::-1, ::-1]), affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=4)
    image.set_qform(affine, code=4)
    return gzip.compress(image.to_bytes(), COMPRESSION, mtime=0)


def write_labels(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write a site's labels table."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, LABEL_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(path)
