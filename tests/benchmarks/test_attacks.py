import json

import numpy as np
import pytest

from benchmarks.attacks import DEFENCES, FULL, QUICK, Bench, Cell, main, pairs, write_table
from benchmarks.hostile_sites import ATTACKS, FACTORS, flip_labels, make_site
from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.federation import FederationConfig, HoldersStrategy
from gmmas_schema.vocabulary import Region, Split
from server.checkpoint import RunFolder
from server.events import EventLog
from server.local_grid import LocalGrid
from server.records import Outcome
from server.rounds import run_federation
from tests.client.tiny_sites import TINY, make_config, make_sample
from tests.server.simulated_sites import RecordingTracker


def samples(first):
    return {Split.TRAIN: [make_sample(first + n) for n in range(2)], Split.VALIDATION: [make_sample(first + 3)]}


def config() -> FederationConfig:
    plain = make_config(4)
    quorum = plain.quorum.model_copy(update={"replies": 3})
    return plain.model_copy(update={"strategy": HoldersStrategy(), "quorum": quorum, "calibration": None})


def federate(path, attack):
    """Return the records of two rounds of three honest sites and one that attacks."""
    folder = RunFolder.create(path, config(), run="r")
    sites = [make_site(TINY, samples(10 * number), site=f"s{number}") for number in range(3)]
    sites.append(make_site(TINY, samples(90), site="bad", attack=attack))
    run_federation(LocalGrid(dict(enumerate(sites, start=10))), folder, tracker=RecordingTracker(), events=EventLog(folder.events_path))
    return folder.read_records()


@pytest.mark.parametrize(
    ("attack", "refused", "named"),
    [
        pytest.param("none", [False, False], "", marks=pytest.mark.slow),
        ("sign-flip", [False, False], ""),
        ("scale-100x", [True, True], "size of its update"),
        ("nan", [True, True], "values"),
        pytest.param("shape", [True, True], "form of", marks=pytest.mark.slow),
        pytest.param("replay", [False, True], "round", marks=pytest.mark.slow),
        ("stale", [False, True], "round"),
        ("labels", [False, False], ""),
    ],
)
def test_each_attack_is_what_it_says_and_the_default_defences_do_what_they_can(tmp_path, attack, refused, named) -> None:
    records = federate(tmp_path / "run", attack)
    bad = [next(site for site in record.sites if site.site == "bad") for record in records]
    assert [site.outcome is Outcome.REFUSED for site in bad] == refused
    assert all(site.outcome is Outcome.ACCEPTED for record in records for site in record.sites if site.site != "bad")
    assert named in bad[1].reason


def test_flipped_labels_are_wrong_and_still_labels() -> None:
    sample = make_sample(1)
    flipped = flip_labels(sample)
    assert flipped.idh == 1 - sample.idh
    assert np.isnan(flipped.codeletion) == np.isnan(sample.codeletion)
    brain = (sample.image_MXYZ != 0).any(axis=0)
    np.testing.assert_array_equal(flipped.regions_RXYZ[0].astype(bool), brain & ~sample.regions_RXYZ[0].astype(bool))
    assert flipped.regions_RXYZ.dtype == sample.regions_RXYZ.dtype


def test_every_column_is_a_valid_run_and_forms_need_two_of_them(tmp_path) -> None:
    bench = Bench(tmp_path, FULL, 1)
    assert len({bench.config(name).digest() for name in DEFENCES}) == len(DEFENCES)
    cells = pairs(ATTACKS, tuple(DEFENCES))
    assert [defence for attack, defence in cells if attack == "nan"] == ["no checks", "default"]
    assert [defence for attack, defence in cells if attack == "none"] == list(DEFENCES)
    assert set(FACTORS) <= {attack for attack, _ in cells}


def test_a_table_shows_dice_refusals_and_runs_that_broke_down(tmp_path) -> None:
    common = {"seed": 1, "federation": config(), "cohorts": "", "software": "", "rounds": 2, "seconds": 1.0}
    good = Cell(attack="none", defence="default", ended="", dice=dict.fromkeys(Region, 0.6), bad_refused=0, good_refused=1, **common)
    broken = Cell(
        attack="nan", defence="no checks", ended="ModelError: x", dice=dict.fromkeys(Region, 0), bad_refused=0, good_refused=0, **common
    )
    table = write_table([good, broken])
    assert "| none |  | 0.600 (0/1) |" in table
    assert "| nan | 0.000 (0/0) |  |" in table
    assert "- nan, no checks, seed 1: after round 2, ModelError: x" in table


@pytest.mark.parametrize("arguments", [["--attacks", "sign_flip"], ["--defences", "none"], ["--quick", "--final"]])
def test_what_would_run_for_hours_as_something_else_is_refused(tmp_path, capsys, arguments) -> None:
    """An attack of another name would be an honest site; a quick table is no result."""
    with pytest.raises(SystemExit):
        main(["--report", "--out", str(tmp_path), *arguments])
    assert "known are" in (error := capsys.readouterr().err) or "no final table" in error


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return a working folder with its patients."""
    folder = tmp_path_factory.mktemp("bench")
    Bench(folder, QUICK, 1).prepare(processes=1)
    return folder


@pytest.mark.slow  # its patients take longest
@pytest.mark.parametrize(("attack", "error"), [("nan", FederationError("full", code=ReasonCode.DISK)), ("none", ValueError("x"))])
def test_what_no_attack_did_is_no_result(prepared, monkeypatch, attack, error) -> None:
    bench = Bench(prepared, QUICK, 1)
    begun = RunFolder.finished_rounds

    def fail(folder, *_, **__):
        monkeypatch.setattr(RunFolder, "finished_rounds", lambda self: begun(self) or (0,))
        raise error

    monkeypatch.setattr("benchmarks.attacks.simulate", fail)
    with pytest.raises(type(error)):
        bench.run(attack, "no checks", software="")
    assert bench.read(attack, "no checks") is None


@pytest.mark.slow
def test_it_runs_from_end_to_end_and_goes_on_where_it_was(tmp_path) -> None:
    arguments = ["--quick", "--out", str(tmp_path), "--attacks", "nan", "--defences", "no checks,default"]
    assert main(arguments) == 0
    first = json.loads((tmp_path / "attacks.json").read_text())["cells"]
    found = {cell["defence"]: (cell["rounds"], bool(cell["ended"]), cell["bad_refused"]) for cell in first}
    assert found == {"no checks": (0, True, 0), "default": (2, False, 2)}
    (tmp_path / "201" / "nan--no-checks.json").unlink()
    made = (tmp_path / "201" / "nan--default.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (tmp_path / "201" / "nan--default.json").stat().st_mtime_ns == made
    assert len(json.loads((tmp_path / "attacks.json").read_text())["cells"]) == 2
