import io

import numpy as np
import pydicom
import pytest
from highdicom import get_volume_from_series

from gmmas_portal.analysis import Analysis
from gmmas_portal.exports.identity import CaseIdentity
from gmmas_portal.exports.mr_series import make_mr_series
from gmmas_schema.vocabulary import Modality

AFFINE = np.array([[-1.0, 0, 0, 90], [0, 2, 0, -100], [0, 0, 3, -50], [0, 0, 0, 1]])


def _again(series: list) -> list:
    """Return the series as pydicom reads it from files."""
    read = []
    for one in series:
        stream = io.BytesIO()
        one.save_as(stream, enforce_file_format=True)
        read.append(pydicom.dcmread(io.BytesIO(stream.getvalue())))
    return read


@pytest.fixture
def identity(analysis: Analysis) -> CaseIdentity:
    return CaseIdentity.of(analysis.record)


@pytest.mark.parametrize("values", ["whole", "fractions", "negative", "constant"])
def test_voxels_are_read_back_as_they_were(identity: CaseIdentity, values: str) -> None:
    rng = np.random.default_rng(0)
    made = {
        "whole": rng.integers(0, 4000, (7, 6, 5)),
        "fractions": rng.uniform(0, 3, (7, 6, 5)),
        "negative": rng.integers(-900, 900, (7, 6, 5)),
        "constant": np.full((7, 6, 5), 2.5),
    }
    image = made[values].astype(np.float32)
    series = _again(make_mr_series(image, AFFINE, modality=Modality.T2, identity=identity))
    volume = get_volume_from_series(series)
    step = float(series[0].get("RescaleSlope", 1))
    for index in np.ndindex(volume.array.shape):
        x, y, z = (volume.affine @ [*index, 1])[:3]
        i, j, k = np.rint((np.linalg.inv(AFFINE) @ [-x, -y, z, 1])[:3]).astype(int)
        assert volume.array[index] == pytest.approx(image[i, j, k], abs=step)
    if values == "whole":
        assert "RescaleSlope" not in series[0]
        assert series[0].pixel_array.max() <= image.max()


def test_headers_name_nobody_and_invent_nothing(identity: CaseIdentity) -> None:
    image = np.ones((7, 6, 5), dtype=np.float32)
    series = _again(make_mr_series(image, AFFINE, modality=Modality.T1CE, identity=identity))
    one = series[0]
    assert (one.PatientName.family_name, one.PatientID) == (identity.case, identity.case)
    assert (one.PatientBirthDate, one.PatientSex, one.StudyDate) == ("", "", "")
    assert one.PatientIdentityRemoved == "YES"
    assert list(one.ImageType[:2]) == ["DERIVED", "SECONDARY"]
    assert len({str(s.SOPInstanceUID) for s in series}) == 5
    assert {str(s.SeriesInstanceUID) for s in series} == {str(one.SeriesInstanceUID)}
    assert {str(s.FrameOfReferenceUID) for s in series} == {identity.frame_uid}


def test_the_same_images_are_the_same_objects(identity: CaseIdentity) -> None:
    image = np.ones((7, 6, 5), dtype=np.float32)
    first, second = (make_mr_series(image, AFFINE, modality=Modality.T1, identity=identity) for _ in range(2))
    other = make_mr_series(image, AFFINE, modality=Modality.T2, identity=identity)
    assert [one.SOPInstanceUID for one in first] == [one.SOPInstanceUID for one in second]
    assert first[0].SeriesInstanceUID != other[0].SeriesInstanceUID
    assert all(len(one.SOPInstanceUID) <= 64 for one in first)
