import json

import numpy as np
import pytest

from gmmas_model.temperature_fit import PRIOR, fit_temperature
from gmmas_model.weights import load_weights
from gmmas_schema.calibration import TEMPERATURES, CalibrationPlan
from gmmas_schema.events import EventKind
from gmmas_schema.messages import Action
from gmmas_schema.vocabulary import Split, Task
from server.checkpoint import RunFolder
from server.events import read_events
from server.records import Outcome
from tests.server.simulated_sites import SimulatedSite, dice_of, make_config, make_grid, run

PLAN = CalibrationPlan()


def run_with(path, *sites, plan=PLAN, rounds=2):
    folder = RunFolder.create(path / "run", make_config(rounds=rounds).model_copy(update={"calibration": plan}), run="r1")
    return folder, run(make_grid(*sites), folder)


def published(folder, kind="best"):
    return load_weights(folder.model_path(kind)).calibration


def questions(site):
    """What a site was asked after the last round: split, grid of temperatures, fitted temperatures."""
    asked = [request for request in site.seen if request.action is Action.EVALUATE]
    return [(r.evaluate, len(r.calibrate.grid) if r.calibrate else 0, bool(r.calibrate and r.calibrate.temperatures)) for r in asked]


def best_at(number):
    """Return an `alter` that makes one model the best."""
    return lambda report, tensors: (dice_of(report, 0.9 if report.round == number else 0.1), tensors)


def test_best_and_last_are_calibrated_and_the_best_is_tested_with_its_temperatures(tmp_path):
    sites = [SimulatedSite(name, patients=8, alter=best_at(2)) for name in ("north", "south")]
    folder, result = run_with(tmp_path, *sites)
    assert (result.best_round, result.rounds) == (1, 2)
    calibrating = [(Split.CALIBRATION, 41, False), (Split.CALIBRATION, 0, True)]
    assert questions(sites[0]) == [(Split.VALIDATION, 0, False), *calibrating, (Split.TEST, 0, True), *calibrating]
    best, last = published(folder), published(folder, "last")
    assert best.weights_sha256 == result.best_sha256
    assert last.weights_sha256 == result.last_sha256
    assert best.patients == {Split.VALIDATION: 16}
    idh = best.heads[Task.IDH]
    assert (idh.fitted, idh.patients, round(idh.reliability.after.total), round(idh.test.after.total)) == (True, 16, 16, 16)
    assert idh.temperature > 1.5
    assert idh.reliability.after.ece < idh.reliability.before.ece
    assert last.heads[Task.IDH].test is None
    assert last.heads[Task.IDH].temperature != idh.temperature


def test_the_same_model_is_calibrated_once(tmp_path):
    sites = [SimulatedSite(name, patients=8, alter=best_at(2)) for name in ("north", "south")]
    folder, result = run_with(tmp_path, *sites, rounds=1)
    assert result.best_round == 1
    assert len(questions(sites[0])) == 4
    assert published(folder) == published(folder, "last")


def test_the_temperature_is_that_of_the_sites_curves_added_up(tmp_path):
    apart = [SimulatedSite(name, patients=n) for name, n in (("north", 9), ("south", 5))]
    folder, _ = run_with(tmp_path, *apart, rounds=1, plan=CalibrationPlan(minimum_patients=14))
    asked = next(request for request in apart[0].seen if request.calibrate and request.calibrate.grid)
    curves = [site.calibration(asked, Split.CALIBRATION).heads[Task.IDH].nll for site in apart]
    expected = fit_temperature(np.sum(curves, axis=0), TEMPERATURES, prior=PRIOR)
    assert published(folder).heads[Task.IDH].temperature == pytest.approx(expected, rel=1e-6)


def test_too_few_patients_leave_the_model_as_it_is_and_the_record_says_why(tmp_path):
    folder, _ = run_with(tmp_path, SimulatedSite("north", patients=4), SimulatedSite("south"))
    found = published(folder)
    assert found.temperatures == {Task.IDH: 1.0}
    assert found.heads[Task.IDH].note == "not fitted: 4 labelled patients, fewer than 10"
    assert found.heads[Task.IDH].abstention.rule == "never"


def test_sites_that_say_nothing_are_asked_once_and_do_not_stop_the_run(tmp_path):
    sites = [SimulatedSite(name, alter=best_at(2)) for name in ("north", "south")]
    folder, _ = run_with(tmp_path, *sites)
    assert len(questions(sites[0])) == 4
    assert published(folder).heads == {}


def test_without_a_plan_nobody_is_asked(tmp_path):
    sites = [SimulatedSite(name, patients=8) for name in ("north", "south")]
    folder, _ = run_with(tmp_path, *sites, plan=None)
    assert [split for split, _, _ in questions(sites[0])] == [Split.VALIDATION, Split.TEST]
    assert published(folder) is None


def test_a_site_with_impossible_sums_is_refused_and_the_others_count(tmp_path):
    def boast(report, tensors):
        found = report.calibration
        return report if found is None else report.model_copy(update={"calibration": found.model_copy(update={"patients": 10**6})}), tensors

    sites = [SimulatedSite(name, patients=6) for name in ("a", "b")]
    folder, result = run_with(tmp_path, *sites, SimulatedSite("liar", patients=6, alter=boast))
    assert published(folder).heads[Task.IDH].patients == 12
    outcomes = {record.site: set() for record in result.ledger}
    for record in result.ledger:
        outcomes[record.site].add(record.outcome)
    assert outcomes["liar"] == {Outcome.ACCEPTED, Outcome.REFUSED}
    assert outcomes["a"] == {Outcome.ACCEPTED}


def test_no_sites_sums_are_kept_and_the_event_log_tells_the_temperatures(tmp_path):
    folder, result = run_with(tmp_path, *(SimulatedSite(name, patients=8) for name in ("north", "south")))
    assert all(record.calibration is None for record in result.ledger)
    assert "nll" not in folder.result_path.read_text()
    (first, *_) = [event for event in read_events(folder.events_path) if event.kind is EventKind.MODEL_REGISTERED]
    told = first.detail["calibration"]["idh"]
    assert told["temperature"] == pytest.approx(published(folder).heads[Task.IDH].temperature)
    assert np.isfinite([told["ece_before"], told["ece_after"]]).all()
    assert json.loads((folder.model_path("best") / "calibration.json").read_text())["heads"]["idh"]["fitted"]
