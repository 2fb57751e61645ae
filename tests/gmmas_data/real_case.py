"""The small real case of tests/data (BraTS 2021, 2 mm), read or written again with changes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gmmas_data.cases import Case
from gmmas_data.layouts import read_case
from gmmas_data.volumes import read_image
from gmmas_schema.vocabulary import Modality
from tests.gmmas_data.scans import SUFFIX, Layout, save

FOLDER = Path(__file__).parents[1] / "data" / "BraTS2021_00006"
NAMED = {m: FOLDER / f"BraTS2021_00006{suffix}.nii.gz" for m, suffix in SUFFIX[Layout.BRATS2021].items()}


def write_real(folder: Path, *, case_id: str = "R1", scans: Mapping[Modality, Modality] | None = None, mirrored: bool = False) -> Case:
    """Write the case anew; `scans` says which scan stands under which name."""
    scans = scans or {m: m for m in Modality}
    for named, shown in (*scans.items(), (None, None)):
        volume = read_image(NAMED[shown])
        values = volume.values_XYZ.astype(np.uint8 if named is None else np.float32)
        if mirrored:
            values = values[::-1].copy()
        save(folder / f"{case_id}{SUFFIX[Layout.BRATS2021][named]}.nii", values, affine=volume.affine)
    return read_case(folder)
