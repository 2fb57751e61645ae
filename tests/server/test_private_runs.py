"""A run with a privacy budget: planned, spent, stopped, resumed."""

import json

import numpy as np
import pytest

from gmmas_schema.errors import ConfigError, FederationError
from gmmas_schema.events import EventKind
from gmmas_schema.privacy import PrivacyConfig
from gmmas_schema.robustness import RobustnessConfig
from gmmas_schema.vocabulary import MODALITIES, Modality
from server.checkpoint import RunFolder
from server.events import EventLog, read_events
from server.privacy_ledger import LEDGER_FILE
from server.tracking import round_metrics
from strategies.accountant import affordable_releases, epsilon_of
from tests.server.kills import Killed, kill_at
from tests.server.simulated_sites import RecordingTracker, SimulatedSite, make_config, make_grid, run

NO_T1CE = tuple(m for m in MODALITIES if m is not Modality.T1CE)
PRIVACY = PrivacyConfig(clip_norm=1.0, noise_multiplier=2.0, epsilon=4.0)
"""Affords three rounds."""
UNCHECKED = RobustnessConfig(norm_limit=None)
"""A simulated site moves by a share of the values it receives, which are mostly noise here."""


def make_folder(path, *, rounds=5, privacy=PRIVACY):
    return RunFolder.create(path, make_config(rounds=rounds).model_copy(update={"privacy": privacy, "robustness": UNCHECKED}), run="r1")


def sites():
    return make_grid(SimulatedSite("a"), SimulatedSite("b", NO_T1CE))


def booked(folder):
    return json.loads((folder.path / LEDGER_FILE).read_text())["rounds"]


def test_a_run_makes_the_rounds_that_its_budget_affords_and_says_so(tmp_path):
    assert affordable_releases(noise_multiplier=2.0, delta=1e-5, epsilon=4.0) == 3
    folder, tracker = make_folder(tmp_path / "run"), RecordingTracker()
    grid = sites()
    result = run(grid, folder, tracker=tracker)
    spent = [record.privacy.epsilon for record in tracker.rounds]
    assert spent == [epsilon_of(number, noise_multiplier=2.0, delta=1e-5) for number in (1, 2, 3)]
    assert result.rounds == 3
    assert tracker.registered["last"] == 3
    assert (result.privacy.epsilon, result.privacy.releases, result.privacy.affordable) == (spent[-1], 3, 3)
    assert result.privacy.epsilon <= 4.0 < epsilon_of(4, noise_multiplier=2.0, delta=1e-5)
    started = read_events(folder.events_path)[0]
    assert started.detail["rounds"] == 3
    assert started.detail["privacy"]["affordable"] == 3
    assert round_metrics(tracker.rounds[1])["privacy/epsilon"] == spent[1]
    # The learning rate's schedule is that of the rounds there will be.
    assert {record.rounds for record in tracker.rounds} == {3}


def test_a_budget_for_more_than_the_rounds_leaves_them_as_they_are(tmp_path):
    folder = make_folder(tmp_path / "run", rounds=2)
    result = run(sites(), folder)
    assert (result.rounds, result.privacy.releases) == (2, 2)
    assert not [event for event in read_events(folder.events_path) if event.kind is EventKind.BUDGET_SPENT]


def test_a_budget_for_no_round_is_refused_before_anybody_trains(tmp_path):
    site = SimulatedSite("a")
    folder = make_folder(tmp_path / "run", privacy=PRIVACY.model_copy(update={"noise_multiplier": 0.1}))
    with pytest.raises(ConfigError, match=r"privacy\.epsilon"):
        run(make_grid(site, SimulatedSite("b")), folder)
    assert site.seen == []
    assert folder.finished_rounds() == ()


@pytest.mark.parametrize(("kind", "number", "rounds"), [(EventKind.ROUND_FINISHED, 1, [1, 2, 3]), (EventKind.REPLY_ACCEPTED, 2, [1, 2, 3])])
def test_a_kill_that_drew_no_noise_costs_nothing(tmp_path, kind, number, rounds):
    folder = make_folder(tmp_path / "run")
    with pytest.raises(Killed):
        run(sites(), folder, events=EventLog(folder.events_path, on_event=kill_at(kind, number)))
    kept = {each: folder.read_record(each).model_sha256 for each in folder.finished_rounds() if each}
    result = run(sites(), folder)
    assert booked(folder) == rounds
    assert result.rounds == 3
    assert {each: folder.read_record(each).model_sha256 for each in kept} == kept


def test_a_draw_that_a_kill_lost_counts_and_the_run_ends_a_round_earlier(tmp_path, monkeypatch):
    """Between the noise and the checkpoint."""

    def die(self, tensors, *, record, state=None):
        if record is not None and record.round == 2:
            raise Killed
        return write(self, tensors, record=record, **({} if state is None else {"state": state}))

    folder, write = make_folder(tmp_path / "run"), RunFolder.write_round
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_round", die)
        with pytest.raises(Killed):
            run(sites(), folder)
    assert folder.finished_rounds() == (0, 1)
    result = run(sites(), folder)
    assert booked(folder) == [1, 2, 2]
    assert result.rounds == 2
    assert result.privacy.releases == 3
    (event,) = (event for event in read_events(folder.events_path) if event.kind is EventKind.BUDGET_SPENT)
    assert event.round == 2
    assert "exceed" in event.message


def test_a_budget_lost_to_kills_before_the_first_round_stops_the_run(tmp_path):
    folder = make_folder(tmp_path / "run")
    (folder.path / LEDGER_FILE).write_text('{"rounds": [1, 1, 1]}')
    with pytest.raises(FederationError, match="no round is finished"):
        run(sites(), folder)


def test_a_lost_or_damaged_record_of_releases_is_no_new_budget(tmp_path):
    folder = make_folder(tmp_path / "run")
    with pytest.raises(Killed):
        run(sites(), folder, events=EventLog(folder.events_path, on_event=kill_at(EventKind.ROUND_FINISHED, 2)))
    (folder.path / LEDGER_FILE).write_text("{")
    with pytest.raises(ConfigError, match="what was spent"):
        run(sites(), folder)
    (folder.path / LEDGER_FILE).unlink()
    assert run(sites(), folder).privacy.releases == 3


def test_the_same_run_twice_has_other_noise_and_untouched_encoders_of_nobody(tmp_path):
    models = []
    for name in ("first", "second"):
        folder = RunFolder.create(
            tmp_path / name, make_config(rounds=1).model_copy(update={"privacy": PRIVACY, "robustness": UNCHECKED}), run="r1"
        )
        run(make_grid(SimulatedSite("a", NO_T1CE), SimulatedSite("b", NO_T1CE)), folder)
        models.append((folder.load_round(0).tensors, folder.load_round(1).tensors))
    (start, first), (_, second) = models
    for name, value in start.items():
        if ".t1ce." in name:
            assert first[name].tobytes() == value.tobytes()
        elif value.size > 8 and not name.startswith("uncertainty"):
            assert not np.array_equal(first[name], second[name])


def test_one_hospitals_update_is_bounded_and_the_model_is_a_noisy_step(tmp_path):
    folder = make_folder(tmp_path / "run", rounds=1, privacy=PRIVACY.model_copy(update={"noise_multiplier": 0.75, "epsilon": 100.0}))
    run(sites(), folder)
    start, end = folder.load_round(0).tensors, folder.load_round(1).tensors
    change = np.concatenate([(end[name].astype(float) - start[name]).ravel() for name in start if name.startswith(("decoder", "fusion"))])
    # Two sites, both in the denominator: noise of 0.75 / 2 a value, beside which an update of length 1 over thousands of values is nothing.
    # Five standard errors of a standard deviation over so many values: one run in two million.
    assert change.std() == pytest.approx(0.375, rel=5 / np.sqrt(2 * change.size))
