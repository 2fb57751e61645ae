"""What is read of a run, and what its state is said to be."""

import shutil
from pathlib import Path

import pytest

from gmmas_schema.coordinator import DashboardConfig
from gmmas_schema.events import EventKind
from gmmas_schema.federation import FederationConfig
from server.checkpoint import RunFolder
from server.dashboard import watched_run
from server.dashboard.desk import Desk, NoSuchRunError
from server.dashboard.watched_run import Asked, WatchedRun
from server.events import EventLog
from server.submission import RunState, Submission
from tests.gmmas_cli.events import event, finished, joined, whole_run
from tests.server.dashboard.conftest import DeskUnderTest


@pytest.fixture
def run(tmp_path: Path) -> WatchedRun:
    folder = RunFolder.create(tmp_path / "run", FederationConfig(name="demo", rounds=9))
    return WatchedRun("key", folder.path, folder.config)


def write(run: WatchedRun, *events: object) -> None:
    log = EventLog(run.path / "events.db")
    for each in events:
        log.append(each)  # type: ignore[arg-type]
    log.close()


def submit(run: WatchedRun, *, at: float, events_before: int) -> None:
    record = Submission(flower_run="7", coordinator=run.path, submitted=at, events_before=events_before)
    (run.path / "submission.json").write_text(record.model_dump_json())


def test_the_list_of_runs_reads_nothing_of_single_hospitals(run: WatchedRun) -> None:
    write(run, *whole_run())
    run.refresh()
    told = run.summary()
    assert (told.finished, told.rounds, told.metrics["dice_wt"]) == (2, 3, 0.6)
    assert run.outline.sites.keys() == {"north", "east"}, "they are named by the rounds"
    assert run.outline.sites["north"].bytes_up == 0
    assert (run.last, run.view.sites) == (0, {})
    run.look()
    assert run.view.sites["north"].bytes_up == 7_000_000


def test_records_of_long_ago_are_not_read(run: WatchedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(watched_run.RoundReader, "__call__", lambda self, number: asked.append(number))
    write(run, joined("north", "t1"), *(finished(number, 10.0 * number, dice_wt=0.5) for number in range(1, 9)))
    run.look()
    assert asked == [4, 5, 6, 7, 8]
    write(run, finished(9, 100, dice_wt=0.5))
    run.look()
    run.look()
    assert asked[5:] == [9]


def test_states_from_the_first_submission_to_the_end(run: WatchedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    flower = {"status": "running"}
    monkeypatch.setattr(watched_run, "find_run_state", lambda _folder, number: RunState(flower_run=number, status=flower["status"]))
    now = [1_800_000_000.0]
    monkeypatch.setattr("server.dashboard.watched_run.time.time", lambda: now[0])

    def state() -> str:
        run.forget()
        run.refresh()
        return run.state

    assert state() == "never started"
    submit(run, at=now[0], events_before=0)
    assert state() == "submitted"
    now[0] += 61
    assert state() == "never started", "nothing has come of it"
    write(run, event(EventKind.RUN_STARTED, 0, number=0, run="r", name="demo", rounds=9))
    assert state() == "stopped"
    with RunFolder.open(run.path).hold():
        assert state() == "at work"
        flower["status"] = "finished:stopped"
        assert state() == "stopping"
    assert state() == "stopped"
    write(run, event(EventKind.RUN_FAILED, 9, message="too few"))
    assert state() == "failed"
    submit(run, at=now[0], events_before=2)
    flower["status"] = "pending"
    assert state() == "submitted", "the failure is that of the time before"
    with RunFolder.open(run.path).hold():
        assert state() == "at work"
    write(run, event(EventKind.RUN_RESUMED, 10, number=0, rounds=9), event(EventKind.RUN_FINISHED, 20, number=9))
    assert state() == "finished"


def test_another_run_in_a_folder_of_the_same_name_is_not_taken_for_the_one_before(desk: DeskUnderTest) -> None:
    known = Desk(desk.folder, DashboardConfig())
    assert known.run(desk.key).view.finished == 2
    shutil.rmtree(desk.run_dir)
    with pytest.raises(NoSuchRunError):
        known.run(desk.key)
    RunFolder.create(desk.run_dir, FederationConfig(name="second", rounds=7))
    assert known.run(desk.key).summary().state == "never started"
    log = EventLog(desk.run_dir / "events.db")
    log.append(event(EventKind.RUN_STARTED, 0, number=0, run="s", name="second", rounds=7))
    log.close()
    again = known.run(desk.key)
    assert (again.config.name, again.view.run, again.view.finished, again.last) == ("second", "s", 0, 1)
    assert known.run(desk.key) is again


def test_an_answer_is_kept_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now, asked = [0.0], [0]
    monkeypatch.setattr("server.dashboard.watched_run.time.monotonic", lambda: now[0])

    def ask() -> int:
        asked[0] += 1
        return asked[0]

    answer = Asked(ask, for_s=3)
    assert [answer.get(), answer.get()] == [1, 1]
    now[0] = 3.1
    assert answer.get() == 2
    answer.forget()
    assert answer.get() == 3
