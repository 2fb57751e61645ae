"""Following a run whose process is played by a thread that holds the run's folder and writes its events."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gmmas_runtime.process_state import SupervisorLock
from gmmas_schema.errors import FederationError
from gmmas_schema.events import Event, EventKind
from gmmas_schema.federation import FederationConfig
from server import following
from server.checkpoint import SIMULATION, RunFolder
from server.deployment import init_coordinator, prepare_run
from server.events import EventLog
from server.folder import CoordinatorFolder
from server.following import follow_run
from server.submission import RunState, Submission
from tests.server.ports import free_port


@pytest.fixture
def coordinator(tmp_path: Path) -> CoordinatorFolder:
    return init_coordinator(tmp_path / "coordinator", port=free_port())


@pytest.fixture
def run(tmp_path: Path, coordinator: CoordinatorFolder) -> RunFolder:
    folder = prepare_run(tmp_path / "run", FederationConfig(rounds=2))
    submit(folder, coordinator)
    return folder


def submit(run: RunFolder, coordinator: CoordinatorFolder, *, events_before: int = 0) -> None:
    # The coordinator's clock was set back by an hour afterwards.
    submission = Submission(flower_run="1", coordinator=coordinator.path, submitted=time.time() + 3600, events_before=events_before)
    (run.path / "submission.json").write_text(submission.model_dump_json())


@contextmanager
def serving(coordinator: CoordinatorFolder) -> Iterator[None]:
    """What a live supervisor of the coordinator looks like from outside."""
    lock = SupervisorLock.take(coordinator.state_file)
    yield
    lock.release()


@contextmanager
def process(run: RunFolder, work: Callable[[EventLog], None]) -> Iterator[None]:
    def live() -> None:
        with run.hold():
            work(EventLog(run.events_path))

    thread = threading.Thread(target=live)
    thread.start()
    yield
    thread.join()


def pause(_seconds: float) -> None:
    threading.Event().wait(0.02)


def test_events_come_in_order_until_the_end(run: RunFolder, coordinator: CoordinatorFolder) -> None:
    def work(log: EventLog) -> None:
        log.emit(EventKind.RUN_STARTED, round=0)
        log.emit(EventKind.ROUND_FINISHED, round=1)
        log.emit(EventKind.RUN_FINISHED, round=2)

    seen: list[Event] = []
    with serving(coordinator), process(run, work):
        end = follow_run(run.path, on_event=seen.append, sleep=pause)
    assert end.kind is EventKind.RUN_FINISHED
    assert [event.kind for event in seen] == [EventKind.RUN_STARTED, EventKind.ROUND_FINISHED, EventKind.RUN_FINISHED]


def test_the_failure_before_a_resume_is_not_the_end(run: RunFolder, coordinator: CoordinatorFolder) -> None:
    log = EventLog(run.events_path)
    log.append(Event(time=time.time(), kind=EventKind.RUN_FAILED))
    submit(run, coordinator, events_before=1)

    def work(log: EventLog) -> None:
        log.emit(EventKind.RUN_RESUMED, round=0)
        log.emit(EventKind.RUN_FINISHED, round=2)

    seen: list[Event] = []
    with serving(coordinator), process(run, work):
        follow_run(run.path, on_event=seen.append, sleep=pause)
    assert [event.kind for event in seen] == [EventKind.RUN_FAILED, EventKind.RUN_RESUMED, EventKind.RUN_FINISHED]


def test_a_process_that_dies_without_a_word_is_noticed(
    run: RunFolder, coordinator: CoordinatorFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "DEATH_GRACE_S", 0.1)
    dies = process(run, lambda log: log.emit(EventKind.RUN_STARTED, round=0))
    with serving(coordinator), dies, pytest.raises(FederationError, match="the run's process is gone") as caught:
        follow_run(run.path, on_event=lambda _: None, sleep=pause)
    assert f"gmmas run --resume --out {run.path} --server {coordinator.path}" in caught.value.remedy


def test_a_stopped_coordinator_is_noticed(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "COORDINATOR_GRACE_S", 0.1)
    with pytest.raises(FederationError, match="the coordinator's processes are not running"):
        follow_run(run.path, on_event=lambda _: None, sleep=pause)


def test_a_run_that_never_started_is_asked_about(run: RunFolder, coordinator: CoordinatorFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's answer is the one part that is not real here; test_coordinator_processes.py has it."""
    monkeypatch.setattr(following, "FIRST_QUESTION_S", 0.05)
    failed = RunState(flower_run="1", status="finished:failed", details="ServerApp failed with exception: no module")
    monkeypatch.setattr(following, "find_run_state", lambda *_: failed)
    monkeypatch.setattr(following, "run_log", lambda *_: "first line\nthe last words\n")
    with serving(coordinator), pytest.raises(FederationError, match=r"no module.*the last words"):
        follow_run(run.path, on_event=lambda _: None, sleep=pause)


def test_an_unsubmitted_folder_is_told_as_that(tmp_path: Path) -> None:
    prepare_run(tmp_path / "run", FederationConfig())
    with pytest.raises(FederationError, match="no run was submitted"):
        follow_run(tmp_path / "run", on_event=lambda _: None)


@pytest.fixture
def simulated(tmp_path: Path) -> RunFolder:
    folder = prepare_run(tmp_path / "simulated", FederationConfig(rounds=2))
    (folder.path / SIMULATION).write_text("{}")
    return folder


def test_a_simulation_is_followed_past_a_failure_before_its_resume(simulated: RunFolder) -> None:
    log = EventLog(simulated.events_path)
    for kind in (EventKind.RUN_STARTED, EventKind.RUN_FAILED, EventKind.RUN_RESUMED):
        log.emit(kind)
    seen: list[Event] = []
    with process(simulated, lambda own: own.emit(EventKind.RUN_FINISHED)):
        end = follow_run(simulated.path, on_event=seen.append, sleep=pause)
    assert end.kind is EventKind.RUN_FINISHED
    assert len(seen) == 4


def test_a_simulation_that_died_is_noticed(simulated: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "DEATH_GRACE_S", 0.05)
    EventLog(simulated.events_path).emit(EventKind.RUN_STARTED)
    with pytest.raises(FederationError, match="no process works on it") as caught:
        follow_run(simulated.path, on_event=lambda _: None, sleep=pause)
    assert caught.value.remedy == f"resume with: gmmas simulate --resume --out {simulated.path}"
