import logging
from pathlib import Path

import pytest

from gmmas_data.layouts import read_case, read_cohort, unrecognised_files
from gmmas_schema.errors import DataError, ReasonCode
from gmmas_schema.vocabulary import MARKERS, MODALITIES, Layout, Modality
from tests.gmmas_data.scans import SUFFIX, case_in, write_case


def touch(root: Path, *names: str) -> Path:
    """Make empty files: reading names opens none."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def names(layout: Layout, case_id: str, *, folder: str = "", extension: str = ".nii.gz") -> list[str]:
    return [f"{folder}{case_id}{suffix}{extension}" for suffix in SUFFIX[layout].values()]


@pytest.mark.parametrize("layout", SUFFIX)
@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
@pytest.mark.parametrize("folder", ["", "{}/", "HGG/{}/", "deep/er/{}/"])
def test_finds_cases_nested_or_flat(tmp_path: Path, layout: Layout, extension: str, folder: str) -> None:
    ids = ["Case-00002-000", "Case-00001-000"]
    for case_id in ids:
        touch(tmp_path, *names(layout, case_id, folder=folder.format(case_id), extension=extension))
    cases = read_cohort(tmp_path)
    assert [case.case_id for case in cases] == sorted(ids)
    for case in cases:
        assert case.layout is layout
        assert tuple(case.images) == MODALITIES
        assert {m: path.name for m, path in case.images.items()} == {m: f"{case.case_id}{SUFFIX[layout][m]}{extension}" for m in MODALITIES}
        assert case.segmentation is not None
        assert case.segmentation.name == f"{case.case_id}{SUFFIX[layout][None]}{extension}"


def test_both_grades_of_2018_are_one_cohort(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *names(Layout.BRATS2021, "Brats18_1", folder="HGG/Brats18_1/"),
        *names(Layout.BRATS2021, "Brats18_2", folder="LGG/Brats18_2/"),
    )
    assert [case.case_id for case in read_cohort(tmp_path)] == ["Brats18_1", "Brats18_2"]


def test_images_and_segmentations_may_lie_in_different_folders(tmp_path: Path) -> None:
    touch(tmp_path, "images/x_flair.nii.gz", "labels/x_seg.nii.gz")
    (case,) = read_cohort(tmp_path)
    assert case.modalities == (Modality.FLAIR,)
    assert case.segmentation == tmp_path / "labels/x_seg.nii.gz"


def test_symbolic_links_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path / "store", "x_t1.nii")
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "x").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "cohort")
    (case,) = read_cohort(tmp_path / "cohort")
    assert case.case_id == "x"


def test_hidden_twins_of_macos_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "x_t1.nii.gz", "._x_t1.nii.gz", ".cache/x_t1.nii.gz")
    assert len(read_cohort(tmp_path)) == 1


def test_files_of_other_sequences_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, *names(Layout.BRATS2023, "x"))
    (case,) = read_cohort(tmp_path, modalities=(Modality.T2, Modality.T1CE))
    assert case.modalities == (Modality.T1CE, Modality.T2)
    assert case.segmentation is not None


def test_unknown_names_are_counted_without_naming_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "x_t1.nii", "W39_1998.09.19_Segm.nii", "x_T2.nii.gz", "_t1.nii", "notes.txt")
    with caplog.at_level(logging.WARNING):
        read_cohort(tmp_path)
    assert [path.name for path in unrecognised_files(tmp_path)] == ["W39_1998.09.19_Segm.nii", "_t1.nii", "x_T2.nii.gz"]
    assert "3 NIfTI files" in caplog.text
    assert "W39" not in caplog.text


def test_mixed_layouts_are_refused_unless_one_is_named(tmp_path: Path) -> None:
    touch(tmp_path, *names(Layout.BRATS2021, "old"), *names(Layout.BRATS2023, "new"))
    with pytest.raises(DataError, match="brats2021 and brats2023"):
        read_cohort(tmp_path)
    assert [case.case_id for case in read_cohort(tmp_path, layout=Layout.BRATS2023)] == ["new"]


@pytest.mark.parametrize(
    "doubled", [("x_t1.nii", "x_t1.nii.gz"), ("HGG/x_t1.nii.gz", "LGG/x_t1.nii.gz"), ("x_t1.nii", "x_seg.nii", "x_seg.nii.gz")]
)
def test_two_files_for_one_sequence_are_refused_by_name(tmp_path: Path, doubled: tuple[str, ...]) -> None:
    touch(tmp_path, *doubled)
    with pytest.raises(DataError, match="two files for one sequence") as caught:
        read_cohort(tmp_path)
    assert doubled[-1] in caught.value.got
    assert doubled[-2] in caught.value.got


def test_a_folder_without_cases_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_cohort(touch(tmp_path, "IM0001.dcm"))
    assert caught.value.code is ReasonCode.DATA_EMPTY
    assert "_{t1,t1ce,t2,flair,seg}" in caught.value.expected
    for path, found in ((tmp_path / "absent", "no folder"), (tmp_path / "IM0001.dcm", "a file")):
        with pytest.raises(DataError, match=found):
            read_cohort(path)


def test_a_layout_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no case of layout brats2023") as caught:
        read_cohort(touch(tmp_path, "x_t1.nii"), layout=Layout.BRATS2023)
    assert "brats2021" in caught.value.got


def test_markers_belong_to_every_time_point_of_a_patient(tmp_path: Path) -> None:
    for case_id in ("BraTS-GLI-00005-100", "BraTS-GLI-00005-101", "BraTS-GLI-00006-100"):
        touch(tmp_path, f"{case_id}-t1n.nii.gz")
    table = tmp_path / "labels.csv"
    table.write_text("patient_id,idh,codeletion,grade,mgmt\nBraTS-GLI-00005,mutant,intact,3,unmethylated\n")
    known = {case.case_id: [case.marker(task) for task in MARKERS] for case in read_cohort(tmp_path, labels=table)}
    assert known == {
        "BraTS-GLI-00005-100": [True, False, True, False],
        "BraTS-GLI-00005-101": [True, False, True, False],
        "BraTS-GLI-00006-100": [None] * 4,
    }


def test_read_case_wants_one(tmp_path: Path) -> None:
    case = case_in(tmp_path / "one", modalities=[Modality.T2], segmentation=False)
    assert (case.modalities, case.segmentation) == ((Modality.T2,), None)
    write_case(tmp_path / "two", case_id="other")
    with pytest.raises(DataError, match="2 cases"):
        read_case(tmp_path)
