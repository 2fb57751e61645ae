"""Small DICOM studies of our own making: what headers say, what is refused, and a study that becomes a case."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from gmmas_data.dicom_import import import_study, look_at_images
from gmmas_data.dicom_series import guess_sequence, read_series
from gmmas_data.layouts import read_case
from gmmas_data.registration import isotropic, place_on, save_volume
from gmmas_data.volumes import read_image
from gmmas_schema.dicom import SeriesMap
from gmmas_schema.errors import ConfigError, DataError
from gmmas_schema.vocabulary import Modality
from tests.gmmas_data.test_skull_stripping import peeler

pydicom = pytest.importorskip("pydicom")
sitk = pytest.importorskip("SimpleITK")
pytest.importorskip("dcm2niix")

NAME = "Doe^Jane"
X, Y, Z = np.meshgrid(np.arange(32), np.arange(32), np.arange(16), indexing="ij")
HEAD = (
    400 * (((X - 16) / 12) ** 2 + ((Y - 15) / 13) ** 2 + ((Z - 8) / 7) ** 2 < 1) + 300 * ((X > 19) & (Y < 14) & (Z > 6) & (Z < 12))
).astype(np.uint16)


def write_series(
    folder: Path, number: int, *, values: np.ndarray = HEAD, patient: str = "P1", study: str = "1.2.3", **tags: object
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for place in range(values.shape[2]):
        data = pydicom.Dataset()
        data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", f"{study}.{number}.{place + 1}"
        data.Modality, data.PatientID, data.PatientName, data.StudyInstanceUID = "MR", patient, NAME, study
        data.StudyDate, data.SeriesInstanceUID, data.SeriesNumber, data.InstanceNumber = "20200101", f"{study}.{number}", number, place + 1
        data.FrameOfReferenceUID, data.Manufacturer, data.ImageType = "1.9", "SIEMENS", ["ORIGINAL", "PRIMARY", "M"]
        data.ImagePositionPatient, data.ImageOrientationPatient = [-32, -32, 4.0 * place], [1, 0, 0, 0, 1, 0]
        data.PixelSpacing, data.SliceThickness, data.Rows, data.Columns = [2, 2], 4, 32, 32
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 16, 16, 15, 0, 1
        data.PhotometricInterpretation = "MONOCHROME2"
        for tag, value in tags.items():
            setattr(data, tag, value)
        data.PixelData = values[:, :, place].T.copy().tobytes()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.save_as(folder / f"{number}-{place}.dcm", enforce_file_format=True)


@pytest.mark.parametrize(
    ("tr", "te", "ti", "agent", "words", "expected"),
    [
        (2300, 3, 900, "", "mprage", Modality.T1),
        (600, 12, None, "Gadovist", "se", Modality.T1CE),
        (600, 12, None, "", "t1 post", Modality.T1CE),
        (5000, 100, None, "", "t2_tse", Modality.T2),
        (9000, 110, 2500, "Gadovist", "", Modality.FLAIR),
        (5000, 100, None, "", "flair", None),
        (5000, 100, None, "", "ep2d_diff", None),
        (4000, 12, None, "", "pd", None),
        (None, None, None, "", "", None),
    ],
)
def test_headers_are_guessed_by_physics(tr: float, te: float, ti: float, agent: str, words: str, expected: Modality | None) -> None:
    found, reason = guess_sequence(repetition_ms=tr, echo_ms=te, inversion_ms=ti, agent=agent, description=words, slices=20)
    assert found is expected
    assert reason


def test_a_study_becomes_a_case_that_names_nobody(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 3, RepetitionTime=600, EchoTime=10, ContrastBolusAgent="Gadovist")
    write_series(tmp_path / "in", 5, values=np.roll(HEAD, 1, axis=0), RepetitionTime=9000, EchoTime=110, InversionTime=2500)
    series = read_series(tmp_path / "in")
    assert [(one.number, one.guess) for one in series] == [(3, Modality.T1CE), (5, Modality.FLAIR)]
    out = tmp_path / "out"
    looks = look_at_images(series, out)
    folder, record = import_study(series, SeriesMap(t1ce=3, flair=5), out, looks=looks, spacing_mm=2.0)
    case = read_case(folder)
    assert case.modalities == (Modality.T1CE, Modality.FLAIR)
    assert case.patient_id == record.case_id[:-4]
    assert record.scans[Modality.FLAIR].translation_mm == pytest.approx(2.0, abs=1.0)
    text = (folder / "import.json").read_text() + " ".join(str(path) for path in out.rglob("*"))
    assert not [word for word in ("Doe", "P1", "20200101", "1.2.3") if word in text.replace(str(tmp_path), "")]
    assert not list(out.glob(".import-*"))
    assert import_study(series, SeriesMap(t1ce=3), out)[0] == folder


def test_a_skull_is_taken_off_all_sequences_or_the_import_goes_on_later(tmp_path: Path) -> None:
    wide = {"PixelSpacing": [12, 12]}
    write_series(tmp_path / "in", 3, RepetitionTime=600, EchoTime=10, ContrastBolusAgent="Gadovist", **wide)
    write_series(tmp_path / "in", 5, RepetitionTime=9000, EchoTime=110, InversionTime=2500, **wide)
    series, out = read_series(tmp_path / "in"), tmp_path / "out"
    with pytest.raises(DataError, match="no patience"):
        import_study(series, SeriesMap(t1ce=3, flair=5), out, spacing_mm=4.0, stripper=peeler(tmp_path, "fail"))
    assert not list(out.glob("GMMAS-*"))
    folder, record = import_study(series, SeriesMap(t1ce=3, flair=5), out, spacing_mm=4.0, stripper=peeler(tmp_path, "good"))
    assert record.skull_stripped
    images = [read_image(path).values_XYZ for path in read_case(folder).images.values()]
    whole, _ = import_study(series, SeriesMap(t1ce=3, flair=5), tmp_path / "whole", spacing_mm=4.0)
    before = [read_image(path).values_XYZ for path in read_case(whole).images.values()]
    with pytest.raises(DataError, match="imported before, with its skull"):
        import_study(series, SeriesMap(t1ce=3), tmp_path / "whole", stripper=peeler(tmp_path, "good"))
    shown = (before[0] > 0) & (before[1] > 0)
    gone = [image[shown] == 0 for image in images]
    assert 0 < gone[0].sum() < shown.sum()
    assert (gone[0] == gone[1]).all()
    for image, head in zip(images, before, strict=True):
        assert (image[image > 0] == head[image > 0]).all()


def test_a_study_that_is_there_is_not_given_back_as_another(tmp_path: Path) -> None:
    write_series(tmp_path / "in", 3)
    write_series(tmp_path / "in", 5, values=np.roll(HEAD, 1, axis=0))
    series, out = read_series(tmp_path / "in"), tmp_path / "out"
    folder, _ = import_study(series, SeriesMap(t1ce=3, flair=5), out, spacing_mm=4.0)
    for exchanged in (SeriesMap(t1ce=5, flair=3), SeriesMap(t2=5)):
        with pytest.raises(DataError, match="imported before, from other series"):
            import_study(series, exchanged, out, spacing_mm=4.0)
    look_at_images(series, out)
    assert list(out.glob(".import-*"))
    assert import_study(series, SeriesMap(t1ce=3, flair=5), out, spacing_mm=4.0)[0] == folder
    assert not list(out.glob(".import-*")), "conversions show a face, and nobody needs them any more"


def test_imports_into_one_folder_wait_for_each_other(tmp_path: Path) -> None:
    wide, out = {"PixelSpacing": [12, 12]}, tmp_path / "out"
    write_series(tmp_path / "one", 3, study="1.2.3", **wide)
    write_series(tmp_path / "two", 3, study="1.2.4", **wide)
    one, two = read_series(tmp_path / "one"), read_series(tmp_path / "two")
    begun, told = threading.Event(), []

    def tell_first(what: str, *_: int) -> None:
        if "skull" in what:
            begun.set()

    def tell_second(what: str, *_: int) -> None:
        told.append(what)
        (tmp_path / "go").touch()

    with ThreadPoolExecutor(1) as pool:
        stripper = peeler(tmp_path, "wait")
        first = pool.submit(import_study, one, SeriesMap(t1=3), out, spacing_mm=4.0, stripper=stripper, on_progress=tell_first)
        assert begun.wait(60)
        second, _ = import_study(two, SeriesMap(t1=3), out, spacing_mm=4.0, on_progress=tell_second)
        folder, _ = first.result()
    assert told[0] == "waiting for another import into this folder"
    assert {folder.name[-3:], second.name[-3:]} == {"000", "001"}
    assert read_case(folder).images


def test_what_the_converter_says_need_not_be_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "converter"
    program.write_bytes(b"#!/bin/sh\nprintf 'Error: Gehirn f\374r M\374ller\\n'\n")
    program.chmod(0o700)
    monkeypatch.setattr("dcm2niix.bin", str(program))
    write_series(tmp_path / "in", 3)
    with pytest.raises(DataError, match="0 volumes: Error"):
        import_study(read_series(tmp_path / "in"), SeriesMap(t1=3), tmp_path / "out")


@pytest.mark.parametrize("largest", [0.7, 700.0, 36082.5])
def test_no_scaling_of_a_scanner_is_rounded_or_cut_off(tmp_path: Path, largest: float) -> None:
    """Philips' intensities are floating point numbers, often beyond 16 bits."""
    values = HEAD.transpose(2, 1, 0).astype(np.float32) * np.float32(largest / HEAD.max())
    save_volume(sitk.GetImageFromArray(values), tmp_path / "x.nii.gz")
    written = read_image(tmp_path / "x.nii.gz").values_XYZ
    assert np.abs(written - values.transpose(2, 1, 0)).max() < 1e-3 * largest


@pytest.mark.parametrize("change", [{"patient": "P2"}, {"study": "1.2.4"}])
def test_two_patients_or_studies_are_refused(tmp_path: Path, change: dict[str, str]) -> None:
    write_series(tmp_path, 1)
    write_series(tmp_path, 2, **change)
    with pytest.raises(DataError, match="several"):
        read_series(tmp_path)


def test_what_is_no_study_or_no_series_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.dcm").write_bytes(b"text")
    with pytest.raises(DataError, match="no MR series"):
        read_series(tmp_path / "in")
    with pytest.raises(DataError, match="no folder"):
        read_series(tmp_path / "absent")
    write_series(tmp_path / "nameless", 1, StudyInstanceUID="")
    with pytest.raises(DataError, match="the headers name no study"):
        read_series(tmp_path / "nameless")
    write_series(tmp_path / "ok", 1)
    with pytest.raises(ConfigError, match="not there"):
        import_study(read_series(tmp_path / "ok"), SeriesMap(t1=9), tmp_path / "out")


def test_no_series_has_the_number_that_leaves_one_out(tmp_path: Path) -> None:
    for number in (0, 7):
        write_series(tmp_path, number)
    assert [one.number for one in read_series(tmp_path)] == [1, 2]


def test_a_known_movement_is_undone() -> None:
    image = sitk.GetImageFromArray(HEAD.transpose(2, 1, 0).astype(np.float32))
    image.SetSpacing((2.0, 2.0, 4.0))
    grid = isotropic(image, spacing_mm=2.0)
    assert grid.GetSize() == (32, 32, 32)
    moved = sitk.Euler3DTransform((32, 32, 30), 0, 0, 0.1, (3, -2, 0))
    placed = place_on(grid, sitk.Resample(grid, grid, moved), same_frame=True, name="x")
    assert placed.rotation_degrees == pytest.approx(np.degrees(0.1), abs=1.5)
    assert np.corrcoef(sitk.GetArrayFromImage(placed.image).ravel(), sitk.GetArrayFromImage(grid).ravel())[0, 1] > 0.9
