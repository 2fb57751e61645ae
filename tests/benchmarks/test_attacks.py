import json

import numpy as np
import pytest

from benchmarks import attacks as command
from benchmarks.attack_runs import DEFENCES, FULL, QUICK, Bench, pairs
from benchmarks.attacks import count_cells, main
from benchmarks.hostile_sites import ATTACKS, FACTORS, flip_labels, make_site
from gmmas_schema.errors import FederationError, ReasonCode
from gmmas_schema.federation import FederationConfig, HoldersStrategy
from gmmas_schema.vocabulary import Region, Split
from server.checkpoint import RunFolder
from server.events import EventLog
from server.local_grid import LocalGrid
from server.records import Outcome
from server.rounds import run_federation
from tests.benchmarks.test_attack_table import make_cell
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

    monkeypatch.setattr("benchmarks.attack_runs.simulate", fail)
    with pytest.raises(type(error)):
        bench.run(attack, "no checks", software="")
    assert bench.read(attack, "no checks") is None
    assert bench.why_not(attack, "no checks") == "not run"
    assert not bench.try_to_run(attack, "no checks", software="")
    assert bench.why_not(attack, "no checks") == f"failed: {type(error).__name__}: {error.brief() if attack == 'nan' else 'x'}"


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["nan", "shape"])
def test_what_no_model_can_be_made_of_breaks_a_run_without_checks_and_no_dice_is_told(prepared, attack) -> None:
    cell = Bench(prepared, QUICK, 1).run(attack, "no checks", software="c")
    assert cell.broke_down
    assert (cell.rounds, cell.dice) == (0, {})
    assert cell.ended


@pytest.mark.slow
def test_a_finished_run_is_scored_on_the_patients_who_have_the_region(prepared) -> None:
    cell = Bench(prepared, QUICK, 1).run("none", "default", software="c")
    assert not cell.broke_down
    assert set(cell.dice) == set(Region)
    assert set(cell.dice[Region.WT]) == set(cell.patients)
    assert len(cell.patients) == QUICK.unseen
    assert cell.precision in {"bf16", "fp32"}
    assert 0 <= cell.outlined <= len(cell.patients)


@pytest.mark.slow
def test_it_runs_from_end_to_end_and_goes_on_where_it_was(tmp_path, monkeypatch) -> None:
    arguments = ["--quick", "--out", str(tmp_path), "--attacks", "nan", "--defences", "no checks,default"]
    assert main(arguments) == 0
    summary = json.loads((tmp_path / "attacks.json").read_text())
    found = {cell["defence"]: (cell["rounds"], bool(cell["ended"]), cell["bad_refused"]) for cell in summary["cells"]}
    assert found == {"no checks": (0, True, 0), "default": (2, False, 2)}
    assert summary["software"]
    assert "| nan | broke down in round 1 (0/0) |" in (tmp_path / "attacks.md").read_text()
    (tmp_path / "201" / "nan--no-checks.json").unlink()
    made = (tmp_path / "201" / "nan--default.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (tmp_path / "201" / "nan--default.json").stat().st_mtime_ns == made
    assert len(json.loads((tmp_path / "attacks.json").read_text())["cells"]) == 2
    (tmp_path / "201" / "nan--no-checks.json").unlink()
    monkeypatch.setattr("benchmarks.attack_runs.simulate", lambda *_, **__: 1 / 0)
    assert main(arguments) == 1
    assert "- nan, no checks, seed 201: failed: ZeroDivisionError: division by zero" in (tmp_path / "attacks.md").read_text()
    assert json.loads((tmp_path / "attacks.json").read_text())["missing"]


def test_a_part_does_not_take_the_place_of_the_whole_committed_table(tmp_path, monkeypatch) -> None:
    committed, out = tmp_path / "results", tmp_path / "out"
    committed.mkdir()
    monkeypatch.setattr(command, "COMMITTED", committed)
    bench = Bench(out, FULL, 201)
    for attack in ("none", "sign-flip"):
        cell = make_cell(attack, "default", seed=201, federation=bench.config("default"), cohorts=FULL.phantoms(201).digest())
        (out / "201").mkdir(parents=True, exist_ok=True)
        (out / "201" / f"{attack}--default.json").write_text(cell.model_dump_json())
    common = ["--report", "--final", "--out", str(out), "--defences", "default"]
    assert main([*common, "--attacks", "none,sign-flip,replay"]) == 0
    whole = (committed / "attacks.md").read_text()
    assert "- replay, default, seed 201: not run" in whole
    assert main([*common, "--attacks", "none"]) == 1
    assert (committed / "attacks.md").read_text() == whole
    assert main([*common, "--attacks", "none", "--replace"]) == 0
    assert count_cells(json.loads((committed / "attacks.json").read_text())) == {"none, default, seed 201": 1}
    assert main(["--report", "--out", str(tmp_path / "nothing"), "--attacks", "replay"]) == 1


def test_a_cell_of_the_committed_table_counts_until_it_would_be_done_otherwise(tmp_path, monkeypatch) -> None:
    """On another machine, or with the working folder gone, hours are not spent again."""
    bench = Bench(tmp_path, FULL, 201)
    cells = [
        make_cell(attack, "default", seed=201, federation=bench.config(defence), cohorts=FULL.phantoms(201).digest())
        for attack, defence in (("none", "default"), ("labels", "clipped"))
    ]
    raw = [cell.model_dump(mode="json") for cell in cells]
    (tmp_path / "attacks.json").write_text(json.dumps({"cells": [*raw, raw[0] | {"attack": "replay", "rounds": "many"}]}))
    monkeypatch.setattr(command, "COMMITTED", tmp_path)
    assert main(["--report", "--out", str(tmp_path / "out"), "--defences", "default"]) == 0
    summary = json.loads((tmp_path / "out" / "attacks.json").read_text())
    assert count_cells(summary) == {"none, default, seed 201": 1}
    assert {"labels, default, seed 201", "replay, default, seed 201"} <= set(summary["missing"])


@pytest.mark.slow
def test_a_fresh_cell_is_done_whatever_was_done_before(prepared, monkeypatch) -> None:
    arguments = ["--quick", "--out", str(prepared), "--attacks", "shape", "--defences", "no checks", "--seeds", "1"]
    assert main(arguments) == 0
    monkeypatch.setattr("benchmarks.attack_runs.simulate", lambda *_, **__: 1 / 0)
    assert main(arguments) == 0
    assert main([*arguments, "--fresh"]) == 1
