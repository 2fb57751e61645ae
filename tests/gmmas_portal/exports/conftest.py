"""The DICOM objects of the small real case with the expert's outline, in a folder."""

from pathlib import Path

import numpy as np
import pytest

from gmmas_portal.analysis import Analysis
from gmmas_portal.exports import export_dicom, write_dicom
from gmmas_schema.case_record import CaseRecord
from gmmas_schema.vocabulary import Modality


@pytest.fixture(scope="session")
def exported(analysis: Analysis, corrected: CaseRecord, outlined: np.ndarray, tmp_path_factory) -> Path:
    """The folder."""
    folder: Path = tmp_path_factory.mktemp("exports") / "case"
    images = {modality: analysis.case.images[modality] for modality in (Modality.T2, Modality.FLAIR)}
    export = export_dicom(corrected, outlined, frame=analysis.frame, images=images)
    write_dicom(export, folder)
    return folder
