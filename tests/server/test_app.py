from contextlib import nullcontext

import pytest
from flwr.app import Context, RecordDict
from flwr.serverapp import ServerApp

import server.app
from gmmas_schema.errors import ConfigError, FederationError, ReasonCode
from gmmas_schema.events import EventKind
from server.checkpoint import RunFolder
from server.events import read_events
from tests.server.simulated_sites import RecordingTracker, SimulatedSite, make_config, make_grid


def context_of(**run_config):
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config=run_config)


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", make_config(rounds=1), run="r1")


def test_flower_finds_a_server_app():
    assert isinstance(server.app.app, ServerApp)


@pytest.mark.parametrize("value", [None, "", "runs/here"])
def test_a_run_without_an_absolute_folder_is_refused(value):
    with pytest.raises(ConfigError, match="run-dir"):
        server.app.open_run_folder(context_of(**({} if value is None else {"run-dir": value})))


def test_the_run_of_the_named_folder_is_opened(folder):
    assert server.app.open_run_folder(context_of(**{"run-dir": str(folder.path)})).run == "r1"


def test_a_whole_run(folder):
    grid, tracker = make_grid(SimulatedSite("a"), SimulatedSite("b")), RecordingTracker()
    assert server.app.run_in_folder(grid, folder, tracker=tracker).best_round == 1
    assert tracker.status == "FINISHED"


@pytest.mark.parametrize("fails", [False, True], ids=["finished", "failed"])
def test_the_end_is_told_to_the_tracker_before_it_is_an_event(folder, monkeypatch, fails):
    """Whoever reads the last event may stop the process."""
    if fails:
        monkeypatch.setattr(server.app, "run_federation", lambda *args, **kwargs: (_ for _ in ()).throw(FederationError("planted")))
    tracker, told = RecordingTracker(), {}
    grid = make_grid(SimulatedSite("a"), SimulatedSite("b"))
    with pytest.raises(FederationError) if fails else nullcontext():
        server.app.run_in_folder(grid, folder, tracker=tracker, on_event=lambda event: told.update({event.kind: tracker.status}))
    assert told[EventKind.RUN_FAILED if fails else EventKind.RUN_FINISHED] == ("FAILED" if fails else "FINISHED")


def test_a_failure_is_told_everywhere_and_raised(folder, monkeypatch):
    def fail(*args, **kwargs):
        raise FederationError("too few good replies", code=ReasonCode.QUORUM)

    tracker = RecordingTracker()
    monkeypatch.setattr(server.app, "run_federation", fail)
    with pytest.raises(FederationError):
        server.app.run_in_folder(make_grid(), folder, tracker=tracker)
    (event,) = read_events(folder.events_path)
    assert (event.kind, event.code) == (EventKind.RUN_FAILED, ReasonCode.QUORUM)
    assert "too few good replies" in event.message
    assert tracker.status == "FAILED"


def test_an_unforeseen_failure_is_internal_and_a_broken_tracker_hides_nothing(folder, monkeypatch):
    class Broken(RecordingTracker):
        def start(self, resolved):
            raise RuntimeError("planted")

        def finish(self, status):
            raise OSError("store gone")

    with pytest.raises(RuntimeError, match="planted"):
        server.app.run_in_folder(make_grid(), folder, tracker=Broken())
    assert read_events(folder.events_path)[0].code is ReasonCode.INTERNAL


def test_a_folder_in_use_is_left_alone(folder):
    with folder.hold(), pytest.raises(FederationError, match="another process"):
        server.app.run_in_folder(make_grid(), folder, tracker=RecordingTracker())
    assert read_events(folder.events_path) == ()
