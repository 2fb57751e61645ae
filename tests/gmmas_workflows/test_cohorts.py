from pathlib import Path

import pytest

from gmmas_data.cache import SampleCache
from gmmas_data.layouts import read_cohort
from gmmas_data.splits import split_patients
from gmmas_schema.errors import DataError
from gmmas_schema.model import GridConfig
from gmmas_schema.site import SplitConfig
from gmmas_schema.standalone import CohortConfig
from gmmas_schema.vocabulary import MODALITIES, Modality, Split
from gmmas_workflows.cohorts import prepare_cohorts
from tests.gmmas_data.scans import save, tumour, write_case

SPLIT = SplitConfig(validation=0.25, test=0.25)
SHAPE = (20, 24, 18)


@pytest.fixture
def cache(tmp_path: Path) -> SampleCache:
    return SampleCache(tmp_path / "cache", GridConfig(spacing_mm=8.0, shape=(8, 8, 8)))


def write_cohort(root: Path, count: int, *, prefix: str, modalities: tuple[Modality, ...] = MODALITIES) -> Path:
    for number in range(count):
        write_case(root / f"{prefix}{number}", case_id=f"{prefix}{number}", modalities=modalities, shape=SHAPE)
    return root


def config(root: Path, name: str, **options: object) -> CohortConfig:
    return CohortConfig.model_validate({"name": name, "root": root, "split": SPLIT} | options)


def test_cohorts_are_split_as_their_hospitals_split_them(tmp_path: Path, cache: SampleCache) -> None:
    north = write_cohort(tmp_path / "north", 4, prefix="N")
    east = write_cohort(tmp_path / "east", 2, prefix="E", modalities=(Modality.T2, Modality.FLAIR))
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


def test_a_case_in_two_cohorts_is_refused_and_a_case_of_the_same_number_is_not(tmp_path: Path, cache: SampleCache) -> None:
    north = write_cohort(tmp_path / "north", 2, prefix="P")
    twin = write_cohort(tmp_path / "twin", 1, prefix="P")
    with pytest.raises(DataError, match="part of two cohorts") as caught:
        prepare_cohorts([config(north, "north"), config(twin, "twin")], cache)
    assert caught.value.got == "P0"
    save(twin / "P0" / "P0_seg.nii", tumour(shape=SHAPE) // 4 * 4)
    assert len(prepare_cohorts([config(north, "north"), config(twin, "twin")], cache)) == 2


def test_a_case_in_the_cache_is_not_preprocessed_again(tmp_path: Path, cache: SampleCache, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_cohort(tmp_path / "north", 2, prefix="N")
    (first,) = prepare_cohorts([config(root, "north")], cache)
    monkeypatch.setattr("gmmas_data.cache.preprocess_case", None)
    (again,) = prepare_cohorts([config(root, "north")], cache)
    assert [len(found) for found in first.samples.values()] == [len(found) for found in again.samples.values()]
