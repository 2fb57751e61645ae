"""Whole cohorts: the same bytes by any number of processes, resumed, refused, read back by the readers."""

import csv
import json
import multiprocessing
from pathlib import Path

import pytest

from gmmas_data.layouts import read_cohort
from gmmas_data.phantom import draw_overview, make_cohorts
from gmmas_schema.errors import ConfigError, GmmasError, ReasonCode
from gmmas_schema.phantom import PhantomManifest, PhantomSpec
from gmmas_schema.vocabulary import Modality, Task

SPEC = PhantomSpec.parse(
    {
        "seed": 5,
        "spacing_mm": 4.0,
        "sites": [
            {"name": "one", "cases": 2, "scanner": "research-3t", "modalities": ["t1", "flair"]},
            {
                "name": "two",
                "cases": 2,
                "scanner": "old-1.5t",
                "modalities": ["flair"],
                "layout": "brats2023",
                "labelled": {"segmentation": 0.5, "idh": 1, "codeletion": 0.5},
            },
        ],
    },
    where="test",
)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "cohorts"
    make_cohorts(SPEC, out, processes=2)
    return out


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(made: Path, tmp_path: Path) -> None:
    make_cohorts(SPEC, tmp_path / "again", processes=1)
    assert content(tmp_path / "again") == content(made)


def test_readers_find_the_cohorts_as_specified(made: Path) -> None:
    one = read_cohort(made / "one", labels=made / "one" / "labels.csv")
    two = read_cohort(made / "two", labels=made / "two" / "labels.csv")
    assert [case.patient_id for case in one] == ["PH-ONE-0001", "PH-ONE-0002"]
    assert all(set(case.images) == {Modality.T1, Modality.FLAIR} for case in one)
    assert all(case.segmentation is not None and case.idh is not None and case.codeletion is not None for case in one)
    assert sum(case.segmentation is not None for case in two) == sum(case.codeletion is not None for case in two) == 1
    assert all(case.idh is not None for case in two)


def test_what_is_not_labelled_is_nowhere_to_be_found(made: Path) -> None:
    rows = list(csv.DictReader((made / "two" / "labels.csv").read_text().splitlines()))
    hidden = [row for row in rows if row["codeletion"] == "unknown"]
    assert len(hidden) == 1
    assert (hidden[0]["subtype"], hidden[0]["grade"]) == ("unknown", "unknown")
    assert hidden[0]["idh"] in {"mutant", "wildtype"}
    assert not list((made / "two" / hidden[0]["patient_id"]).glob("*seg*"))
    assert set(rows[0]) == {"patient_id", "idh", "codeletion", "subtype", "grade", "age_years", "sex"}


def test_the_manifest_tells_what_was_made(made: Path) -> None:
    manifest = PhantomManifest.parse(json.loads((made / "phantom.json").read_text()), where="test")
    assert manifest.complete
    assert manifest.spec == SPEC
    assert manifest.spec_digest == SPEC.digest()
    assert manifest.sites["two"].labelled == {Task.SEGMENTATION: 1, Task.IDH: 2, Task.CODELETION: 1, Task.GRADE: 1}
    assert "McConnell Brain Imaging Centre" in manifest.notice


def test_a_finished_cohort_is_left_alone(made: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in made.rglob("*.nii.gz")}
    seen = []
    make_cohorts(SPEC, made, processes=2, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 4)]
    assert {p: p.stat().st_mtime_ns for p in made.rglob("*.nii.gz")} == before


def test_an_interrupted_call_leaves_whole_cases_and_is_resumed(tmp_path: Path) -> None:
    spec = PhantomSpec(spacing_mm=4.0, sites=(SPEC.sites[1].model_copy(update={"cases": 8}),))

    def interrupt(done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_cohorts(spec, tmp_path, processes=1, on_progress=interrupt)
    whole = content(tmp_path / "two")
    assert 1 <= len(list((tmp_path / "two").iterdir())) < 8
    assert not list(tmp_path.rglob(".*"))
    assert not json.loads((tmp_path / "phantom.json").read_text())["complete"]

    (tmp_path / "two" / ".PH-TWO-0008.partial-1").mkdir()  # as a killed worker leaves it
    assert make_cohorts(spec, tmp_path, processes=2).complete
    assert len(read_cohort(tmp_path / "two")) == 8
    assert content(tmp_path / "two").items() >= whole.items()
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.slow
def test_a_killed_worker_is_told_and_what_was_made_is_kept(tmp_path: Path) -> None:
    spec = PhantomSpec(spacing_mm=4.0, sites=(SPEC.sites[1].model_copy(update={"cases": 8}),))

    def kill_workers(done: int, _total: int) -> None:
        if done == 1:
            for worker in multiprocessing.active_children():
                worker.kill()

    with pytest.raises(GmmasError, match="died") as told:
        make_cohorts(spec, tmp_path, processes=1, on_progress=kill_workers)
    assert told.value.code is ReasonCode.OUT_OF_MEMORY
    assert len(read_cohort(tmp_path / "two")) >= 1


def test_another_specification_is_refused(made: Path) -> None:
    before = content(made)
    with pytest.raises(ConfigError, match="another specification") as refused:
        make_cohorts(SPEC.model_copy(update={"seed": 6}), made)
    assert refused.value.remedy
    assert content(made) == before


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("")
    with pytest.raises(ConfigError, match="not empty"):
        make_cohorts(SPEC, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.docx"]


def test_a_broken_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "phantom.json").write_text("{")
    with pytest.raises(ConfigError, match="cannot be read"):
        make_cohorts(SPEC, tmp_path)


def test_the_overview_shows_every_site(made: Path, tmp_path: Path) -> None:
    picture = tmp_path / "phantom.png"
    draw_overview(SPEC, made, picture, cases_per_site=1)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000
