from pathlib import Path

import pytest

from gmmas_data.cache import SampleCache
from gmmas_data.layouts import read_cohort
from gmmas_data.splits import split_patients
from gmmas_schema.errors import DataError
from gmmas_schema.model import GridConfig
from gmmas_schema.site import SplitConfig
from gmmas_schema.standalone import CohortConfig
from gmmas_schema.vocabulary import MODALITIES, Layout, Modality, Split
from gmmas_workflows.cohorts import prepare_cohorts
from tests.gmmas_data.scans import write_case

SPLIT = SplitConfig(validation=0.25, test=0.25)
SHAPE = (20, 24, 18)


@pytest.fixture
def cache(tmp_path: Path) -> SampleCache:
    return SampleCache(tmp_path / "cache", GridConfig(spacing_mm=8.0, shape=(8, 8, 8)))


def write_cohort(root: Path, count: int, *, prefix: str, modalities: tuple[Modality, ...] = MODALITIES, first: int = 0) -> Path:
    """Write cases of the patients from number `first`, whose scans are their own."""
    for number in range(count):
        write_case(root / f"{prefix}{number}", case_id=f"{prefix}{number}", modalities=modalities, shape=SHAPE, patient=first + number)
    return root


def config(root: Path, name: str, **options: object) -> CohortConfig:
    return CohortConfig.model_validate({"name": name, "root": root, "split": SPLIT} | options)


def test_cohorts_are_split_as_their_hospitals_split_them(tmp_path: Path, cache: SampleCache) -> None:
    north = write_cohort(tmp_path / "north", 4, prefix="N")
    east = write_cohort(tmp_path / "east", 2, prefix="E", modalities=(Modality.T2, Modality.FLAIR), first=4)
    (north / "labels.csv").write_text("patient_id,idh,codeletion\nN0,mutant,intact\n")
    progress: list[tuple[int, int]] = []
    configs = [config(north, "north", labels=north / "labels.csv"), config(east, "east", modalities=("flair",))]
    cohorts = prepare_cohorts(configs, cache, on_progress=lambda *at: progress.append(at))
    assert [cohort.name for cohort in cohorts] == ["north", "east"]
    assert progress[-1] == (6, 6)
    expected = split_patients(read_cohort(north), SPLIT)
    for split in Split:
        assert [sample.case_id for sample in cohorts[0].samples[split]] == [case.case_id for case in expected[split]]
    assert len(cohorts[0].samples[Split.TRAIN]) == 2
    known = {sample.case_id: sample.idh for found in cohorts[0].samples.values() for sample in found}
    assert known["N0"] == 1
    # What a cohort does not offer is not read.
    assert cohorts[1].modalities == (Modality.FLAIR,)
    assert all(sample.present_M.tolist() == [False, False, False, True] for found in cohorts[1].samples.values() for sample in found)


def test_a_cohort_is_read_as_its_site_yaml_describes_it(tmp_path: Path, cache: SampleCache) -> None:
    root = write_cohort(tmp_path / "north", 3, prefix="N")
    (root / "table.csv").write_text("PatNr,IDH\nN1,mutiert\n")
    table = {"columns": {"patient_id": "PatNr", "idh": "IDH"}, "values": {"idh": {"mutiert": "mutant"}}}
    whole = {1: "tumour", 2: "tumour", 4: "tumour"}
    described = config(root, "north", labels=root / "table.csv", table=table, segmentation_values=whole, exclude=("N0/*", "*_t2.nii*"))
    (cohort,) = prepare_cohorts([described], cache)
    samples = {sample.case_id: sample for found in cohort.samples.values() for sample in found}
    assert set(samples) == {"N1", "N2"}
    assert samples["N1"].idh == 1
    assert not samples["N1"].present_M[2]
    assert samples["N1"].weight_RXYZ[0].all()
    assert not samples["N1"].weight_RXYZ[1:].any()


def test_a_bad_case_refuses_the_cohort_or_is_left_out(tmp_path: Path, cache: SampleCache) -> None:
    root = write_cohort(tmp_path / "north", 3, prefix="N")
    (root / "N1" / "N1_t2.nii").write_bytes(b"not a scan")
    with pytest.raises(DataError) as caught:
        prepare_cohorts([config(root, "north")], cache)
    assert caught.value.what == "1 of 3 cases do not pass the quality gate"
    assert "N1_t2.nii" in caught.value.got
    (cohort,) = prepare_cohorts([config(root, "north", skip_bad_cases=True)], cache)
    assert cohort.left_out == ("N1",)
    assert sorted(sample.case_id for found in cohort.samples.values() for sample in found) == ["N0", "N2"]


def test_a_cohort_of_bad_cases_alone_is_refused(tmp_path: Path, cache: SampleCache) -> None:
    root = write_cohort(tmp_path / "north", 1, prefix="N")
    (root / "N0" / "N0_t2.nii").write_bytes(b"not a scan")
    with pytest.raises(DataError, match="no case is left"):
        prepare_cohorts([config(root, "north", skip_bad_cases=True)], cache)


def pooled(cache: SampleCache, *roots: Path) -> int:
    return len(prepare_cohorts([config(root, root.name) for root in roots], cache))


def test_a_scan_in_two_cohorts_is_refused_by_any_name_and_a_case_of_the_same_number_is_not(tmp_path: Path, cache: SampleCache) -> None:
    north = write_cohort(tmp_path / "north", 2, prefix="P")
    with pytest.raises(DataError, match="a scan is part of two cohorts") as caught:
        pooled(cache, north, write_cohort(tmp_path / "twin", 1, prefix="P"))
    assert caught.value.got == "P0"
    with pytest.raises(DataError, match="a scan is part of two cohorts") as caught:
        pooled(cache, north, write_cohort(tmp_path / "renamed", 1, prefix="BraTS2021_0000", first=1))
    assert caught.value.got == "P1 and BraTS2021_00000"
    assert str(north) in caught.value.where
    assert str(tmp_path / "renamed") in caught.value.where
    assert pooled(cache, north, write_cohort(tmp_path / "other", 2, prefix="P", first=7)) == 2


def test_a_scan_is_found_again_beside_other_sequences_or_without_its_segmentation(tmp_path: Path, cache: SampleCache) -> None:
    """What is made of a case is another sample then, but the patient is the same."""
    north = write_cohort(tmp_path / "north", 2, prefix="P")
    undrawn = write_cohort(tmp_path / "undrawn", 1, prefix="U", modalities=(Modality.T2, Modality.FLAIR))
    (undrawn / "U0" / "U0_seg.nii").unlink()
    with pytest.raises(DataError, match="a scan is part of two cohorts") as caught:
        pooled(cache, north, undrawn)
    assert caught.value.got == "P0 and U0"


def test_two_time_points_of_a_public_patient_in_two_cohorts_are_refused(tmp_path: Path, cache: SampleCache) -> None:
    for name, time_point in (("first", 100), ("second", 101)):
        case = f"BraTS-GLI-00005-{time_point}"
        write_case(tmp_path / name / case, case_id=case, layout=Layout.BRATS2023, shape=SHAPE, patient=time_point)
    with pytest.raises(DataError, match="a patient is part of two cohorts") as caught:
        pooled(cache, tmp_path / "first", tmp_path / "second")
    assert caught.value.got == "BraTS-GLI-00005-100 and BraTS-GLI-00005-101"
    assert "move the files" in caught.value.remedy


def test_one_scan_under_two_patients_of_a_cohort_is_refused_and_under_two_time_points_is_not(tmp_path: Path, cache: SampleCache) -> None:
    root = write_cohort(tmp_path / "north", 3, prefix="N")
    t2 = (root / "N0" / "N0_t2.nii").read_bytes()
    (root / "N2" / "N2_t2.nii").write_bytes(t2)
    with pytest.raises(DataError, match="a scan lies under two patients") as caught:
        pooled(cache, root)
    assert (caught.value.got, caught.value.where) == ("N0 and N2", str(root))
    for time_point in (100, 101):
        case = f"BraTS-GLI-00005-{time_point}"
        write_case(tmp_path / "course" / case, case_id=case, layout=Layout.BRATS2023, shape=SHAPE)
    assert pooled(cache, tmp_path / "course") == 1


def test_a_case_that_is_left_out_has_no_twin(tmp_path: Path, cache: SampleCache) -> None:
    root = write_cohort(tmp_path / "north", 3, prefix="N")
    (root / "N2" / "N2_t2.nii").write_bytes((root / "N0" / "N0_t2.nii").read_bytes())
    assert len(prepare_cohorts([config(root, "north", exclude=("N2/*",))], cache)) == 1


def test_a_case_in_the_cache_is_not_preprocessed_again(tmp_path: Path, cache: SampleCache, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_cohort(tmp_path / "north", 2, prefix="N")
    (first,) = prepare_cohorts([config(root, "north")], cache)
    monkeypatch.setattr("gmmas_data.cache.preprocess_case", None)
    (again,) = prepare_cohorts([config(root, "north")], cache)
    assert [len(found) for found in first.samples.values()] == [len(found) for found in again.samples.values()]
