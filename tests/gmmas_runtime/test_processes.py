import errno
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from gmmas_runtime import processes, supervised
from gmmas_runtime.process_state import (
    ProcessState,
    SupervisorLock,
    SupervisorState,
    create_time_of,
    is_supervised,
    launch_in_background,
    live_state,
    process_of,
    read_state,
    stop_supervisor,
    write_state,
)
from gmmas_runtime.processes import ProcessEvent, ProcessEventKind, ProcessSpec, Supervisor
from gmmas_schema.errors import FederationError, GmmasError, TrustError
from tests.gmmas_runtime.waiting import wait_until

SLEEPER = ("sleep", "1000")


def spec(folder: Path, name: str = "sleeper", argv: tuple[str, ...] = SLEEPER, **changes: object) -> ProcessSpec:
    settings: dict[str, object] = {"environment": {}, "folder": folder, "log_file": folder / f"{name}.log", "back_off_s": (0.05, 0.4)}
    return ProcessSpec(name, argv, **{**settings, **changes})  # type: ignore[arg-type]


def shell(folder: Path, name: str, script: str, **changes: object) -> ProcessSpec:
    return spec(folder, name, ("/bin/sh", "-c", script), **changes)


class Recorder:
    """Collects events from the supervisor's thread."""

    def __init__(self) -> None:
        self.events: queue.Queue[ProcessEvent] = queue.Queue()
        self.seen: list[ProcessEvent] = []

    def __call__(self, event: ProcessEvent) -> None:
        self.events.put(event)

    def wait_for(self, kind: ProcessEventKind, name: str | None = None) -> ProcessEvent:
        while True:
            event = self.events.get(timeout=20)
            self.seen.append(event)
            if event.kind is kind and name in (None, event.name):
                return event

    def drain(self) -> list[ProcessEvent]:
        while not self.events.empty():
            self.seen.append(self.events.get())
        return self.seen


def test_starts_in_order_after_readiness_and_stops_in_reverse(tmp_path: Path) -> None:
    record = Recorder()
    first = shell(tmp_path, "first", "touch ready; exec sleep 1000", ready=(tmp_path / "ready").exists)
    second = shell(tmp_path, "second", "test -e ready && touch second && exec sleep 1000", ready=(tmp_path / "second").exists)
    with Supervisor([first, second], record) as supervisor:
        assert [status.state for status in supervisor.status()] == [ProcessState.RUNNING] * 2
        pids = [status.pid for status in supervisor.status()]
        assert all(pid and psutil.pid_exists(pid) for pid in pids)
    kinds = [(event.kind.value, event.name) for event in record.drain()]
    assert kinds == [
        ("started", "first"),
        ("ready", "first"),
        ("started", "second"),
        ("ready", "second"),
        ("stopped", "second"),
        ("stopped", "first"),
    ]
    assert not any(psutil.pid_exists(pid) for pid in pids if pid)


def test_environment_folder_and_log_are_the_specs_own(tmp_path: Path) -> None:
    argv = (sys.executable, "-c", "import os, sys; print(os.getcwd(), os.environ['WORD']); print('problem', file=sys.stderr)")
    supervisor = Supervisor([spec(tmp_path, "speaker", argv, environment={"WORD": "glioma"}, restart=False)])
    supervisor.start()
    assert supervisor.wait(20)
    supervisor.stop()
    assert (tmp_path / "speaker.log").read_text() == f"{tmp_path} glioma\nproblem\n"
    assert (tmp_path / "speaker.log").stat().st_mode & 0o777 == 0o600


def test_a_killed_process_comes_back_with_growing_waits(tmp_path: Path) -> None:
    record = Recorder()
    with Supervisor([spec(tmp_path)], record) as supervisor:
        for _ in range(5):
            pid = record.wait_for(ProcessEventKind.READY).pid
            assert pid
            os.kill(pid, signal.SIGKILL)
            assert record.wait_for(ProcessEventKind.EXITED).exit_code == -signal.SIGKILL
        record.wait_for(ProcessEventKind.READY)
        wait_until(lambda: supervisor.status()[0].restarts == 5)
    waits = [event.wait_s for event in record.seen if event.kind is ProcessEventKind.BACK_OFF]
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.4]


def test_a_long_life_forgets_the_waits(tmp_path: Path) -> None:
    """Lives longer than the longest wait (none at all here) start over with the shortest."""
    record = Recorder()
    with Supervisor([spec(tmp_path, back_off_s=(0.01, 0.0))], record):
        for _ in range(3):
            pid = record.wait_for(ProcessEventKind.READY).pid
            assert pid
            os.kill(pid, signal.SIGKILL)
            assert record.wait_for(ProcessEventKind.BACK_OFF).wait_s == 0.01


def test_never_ready_stops_everything_and_quotes_the_log(tmp_path: Path) -> None:
    record = Recorder()
    quick = spec(tmp_path, "quick")
    stuck = shell(tmp_path, "stuck", "echo 'cannot find the scanner'; exec sleep 1000", ready=lambda: False, ready_timeout_s=0.5)
    supervisor = Supervisor([quick, stuck], record)
    with pytest.raises(FederationError, match="cannot find the scanner") as caught:
        supervisor.start()
    assert caught.value.where == str(tmp_path / "stuck.log")
    pids = [event.pid for event in record.drain() if event.pid]
    assert len(pids) >= 2
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_an_exit_before_readiness_is_tried_again_until_the_timeout(tmp_path: Path) -> None:
    second_time = shell(
        tmp_path, "late", "test -e tried || { touch tried; exit 7; }; touch up; exec sleep 1000", ready=(tmp_path / "up").exists
    )
    with Supervisor([second_time]) as supervisor:
        assert supervisor.status()[0].restarts == 1
    hopeless = shell(tmp_path, "hopeless", "echo no luck; exit 7", ready=lambda: True, ready_timeout_s=0.3, restart=False)
    hopeless_supervisor = Supervisor([hopeless])
    hopeless_supervisor.start()  # ready at once, then gone for good
    assert hopeless_supervisor.wait(20)
    hopeless_supervisor.stop()
    never = shell(tmp_path, "never", "echo no luck; exit 7", ready=lambda: False, ready_timeout_s=0.3)
    with pytest.raises(FederationError, match=r"exit code 7.*no luck"):
        Supervisor([never]).start()


def test_a_permanent_exit_ends_the_restarts_with_its_own_words(tmp_path: Path) -> None:
    def explain(exit_code: int, log_tail: str) -> GmmasError | None:
        return TrustError("key not enrolled", got=log_tail.strip()) if exit_code == 3 else None

    record = Recorder()
    refused = shell(tmp_path, "refused", "echo unknown key; exit 3", ready=lambda: False, permanent_exit=explain)
    with pytest.raises(TrustError, match="unknown key"):
        Supervisor([refused], record).start()
    assert [event.kind for event in record.drain()][:3] == [ProcessEventKind.STARTED, ProcessEventKind.EXITED, ProcessEventKind.FAILED]

    later = shell(tmp_path, "later", "sleep 0.3; exit 3", permanent_exit=explain)
    supervisor = Supervisor([later])
    supervisor.start()
    assert supervisor.wait(20)
    assert isinstance(supervisor.failure(), TrustError)
    supervisor.stop()
    assert supervisor.status()[0].state is ProcessState.FAILED
    assert "key not enrolled" in supervisor.status()[0].error


def test_a_readiness_function_that_raises_is_told_to_the_caller(tmp_path: Path) -> None:
    def broken() -> bool:
        raise ZeroDivisionError("our own mistake")

    record = Recorder()
    with pytest.raises(ZeroDivisionError):
        Supervisor([spec(tmp_path, ready=broken)], record).start()
    assert not any(psutil.pid_exists(event.pid) for event in record.drain() if event.pid)


def test_deaf_processes_and_their_detached_children_are_gone_after_stop(tmp_path: Path) -> None:
    script = """
import os, signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
detached = subprocess.Popen(["sleep", "1000"], start_new_session=True)
open("pid", "w").write(str(detached.pid))
os.rename("pid", "child")
signal.pause()
"""
    deaf = spec(tmp_path, "deaf", (sys.executable, "-c", script), ready=(tmp_path / "child").exists)
    supervisor = Supervisor([deaf], stop_grace_s=0.2)
    supervisor.start()
    grandchild = int((tmp_path / "child").read_text())
    assert psutil.pid_exists(grandchild)
    supervisor.stop()
    assert not psutil.pid_exists(grandchild)


def test_memory_counts_the_descendants(tmp_path: Path) -> None:
    holder = f"{sys.executable} -c 'x = bytearray(60 * 2**20); import signal; signal.pause()' & wait"
    with Supervisor([shell(tmp_path, "holder", holder)]) as supervisor:
        wait_until(lambda: supervisor.status()[0].peak_mib > 60)
        assert 60 < supervisor.status()[0].peak_mib < 200


def test_a_second_supervisor_of_the_same_folder_is_refused(tmp_path: Path) -> None:
    state_file = tmp_path / "processes.json"
    with Supervisor([spec(tmp_path)], state_file=state_file):
        with pytest.raises(FederationError, match=f"running already.*\n.*\n.*pid {os.getpid()}"):
            Supervisor([spec(tmp_path)], state_file=state_file).start()
        state = live_state(state_file)
        assert state
        assert state.ready
        assert state.processes[0].state is ProcessState.RUNNING
    assert not is_supervised(state_file)
    assert live_state(state_file) is None
    stopped = read_state(state_file)
    assert stopped
    assert stopped.processes[0].state is ProcessState.STOPPED


PROGRAM = """
import sys
from pathlib import Path
from gmmas_runtime.processes import ProcessSpec, Supervisor
folder = Path(sys.argv[1])
Supervisor([ProcessSpec("sleeper", ("sleep", "1000"), {}, folder, folder / "sleeper.log")], state_file=folder / "processes.json").run()
"""


def test_background_supervisor_is_seen_and_stopped_from_outside(tmp_path: Path) -> None:
    state_file = tmp_path / "processes.json"
    argv = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    state = launch_in_background(argv, state_file=state_file, log_file=tmp_path / "supervisor.log", timeout_s=30)
    pid = state.processes[0].pid
    assert pid
    assert psutil.pid_exists(pid)
    assert stop_supervisor(state_file)
    assert not psutil.pid_exists(pid)
    assert not stop_supervisor(state_file)


def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    state_file = tmp_path / "processes.json"
    argv = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    state = launch_in_background(argv, state_file=state_file, log_file=tmp_path / "supervisor.log", timeout_s=30)
    status = state.processes[0]
    assert status.pid
    assert status.create_time
    os.kill(state.pid, signal.SIGKILL)
    wait_until(lambda: process_of(status.pid or 0, status.create_time or 0.0) is None, what="the child's end")
    # A child hears of its parent's death a moment before the parent is a zombie.
    wait_until(lambda: live_state(state_file) is None, what="the end of the supervisor")


def test_background_failure_quotes_the_log(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", "import sys; sys.exit('the database is locked')"]
    with pytest.raises(FederationError, match=r"exit code 1\n.*the database is locked"):
        launch_in_background(argv, state_file=tmp_path / "processes.json", log_file=tmp_path / "supervisor.log")


def test_a_recycled_pid_is_not_ours(tmp_path: Path) -> None:
    """The state of a dead supervisor names the pid of a living stranger: it is left alone."""
    stranger = subprocess.Popen(SLEEPER)
    try:
        status = {"name": "old", "state": "running", "pid": stranger.pid, "create_time": psutil.Process(stranger.pid).create_time() - 100}
        state = {"pid": stranger.pid, "create_time": 1.0, "ready": True, "written": 1.0, "processes": [status]}
        (tmp_path / "processes.json").write_text(json.dumps(state))
        assert not stop_supervisor(tmp_path / "processes.json")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_run_ends_on_sigterm_and_restores_the_handlers(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    record = Recorder()

    def end_it() -> None:
        record.wait_for(ProcessEventKind.READY)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_it).start()
    Supervisor([spec(tmp_path)], record).run()
    assert signal.getsignal(signal.SIGTERM) is before


def test_damaged_state_file_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "processes.json").write_text('{"pid": ')
    assert read_state(tmp_path / "processes.json") is None
    assert live_state(tmp_path / "absent.json") is None


def test_a_log_stays_small_while_its_process_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervised, "LOG_LIMIT_BYTES", 20_000)
    monkeypatch.setattr(processes, "LOOK_EVERY_S", 0.0)
    log, older = tmp_path / "talker.log", tmp_path / "talker.log.1"
    older.write_bytes(b"of before")
    with Supervisor([shell(tmp_path, "talker", "while :; do echo 'a stranger was refused'; done")]) as supervisor:
        wait_until(lambda: older.stat().st_size == 20_000)
        first = older.stat().st_ino
        wait_until(lambda: older.stat().st_ino != first, what="more in the same file, and again too much")
        assert supervisor.status()[0].restarts == 0
    assert set(older.read_bytes().splitlines()[1:-1]) == {b"a stranger was refused"}
    assert b"\0" not in log.read_bytes(), "it appends"
    assert [path.stat().st_mode & 0o777 for path in (log, older)] == [0o600, 0o600]


def test_a_supervisor_that_is_just_starting_is_stopped_too(tmp_path: Path) -> None:
    """It has the lock, and the state beside it is that of the one before."""
    state_file, written = tmp_path / "s.json", {"ready": False, "written": 0.0, "processes": ()}
    write_state(state_file, SupervisorState(pid=2**22 + 1, create_time=1.0, **written))
    lock = SupervisorLock.take(state_file)
    with pytest.raises(FederationError, match="has not written who it is"):
        stop_supervisor(state_file, timeout_s=0.1)
    starting = subprocess.Popen(SLEEPER)

    def start() -> None:
        write_state(state_file, SupervisorState(pid=starting.pid, create_time=create_time_of(starting.pid) or 0.0, **written))
        starting.wait()
        lock.release()

    beginning = threading.Timer(0.2, start)
    beginning.start()
    assert stop_supervisor(state_file)
    beginning.join()
    assert starting.returncode == -signal.SIGTERM
    assert stop_supervisor(state_file) is False


def test_asking_for_a_supervisor_neither_makes_one_nor_keeps_one_away(tmp_path: Path) -> None:
    state_file, over, found = tmp_path / "s.json", threading.Event(), [0, 0]
    SupervisorLock.take(state_file).release()

    def ask(place: int) -> None:
        while not over.is_set():
            found[place] += is_supervised(state_file)

    askers = [threading.Thread(target=ask, args=(place,)) for place in range(2)]
    for asker in askers:
        asker.start()
    over.wait(0.5)
    before = list(found)
    for _ in range(50):
        SupervisorLock.take(state_file).release()
    over.set()
    for asker in askers:
        asker.join()
    assert before == [0, 0]


def test_a_disk_that_takes_no_state_ends_no_process(tmp_path: Path) -> None:
    """A full disk, here a folder that is gone: what only displays read must not take a federation down."""
    state_file, told = tmp_path / "state" / "s.json", Recorder()

    def tell(event: ProcessEvent) -> None:
        told(event)
        raise OSError(errno.ENOSPC, "No space left on device")

    state_file.parent.mkdir()
    supervisor = Supervisor([spec(tmp_path)], tell, state_file=state_file)
    supervisor.start()
    pid = told.wait_for(ProcessEventKind.STARTED).pid
    assert pid is not None
    state_file.parent.rename(tmp_path / "elsewhere")
    os.kill(pid, signal.SIGKILL)
    told.wait_for(ProcessEventKind.BACK_OFF)
    again = told.wait_for(ProcessEventKind.STARTED).pid
    (tmp_path / "elsewhere").rename(state_file.parent)
    wait_until(lambda: (state := read_state(state_file)) is not None and state.processes[0].pid == again)
    supervisor.stop()
    assert told.wait_for(ProcessEventKind.STOPPED)


def test_a_fault_while_stopping_keeps_nobody_waiting(tmp_path: Path) -> None:
    def tell(event: ProcessEvent) -> None:
        raise ValueError(event.kind)

    with pytest.raises(ValueError, match="started"):
        Supervisor([spec(tmp_path)], tell).start()
