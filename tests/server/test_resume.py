"""A run that is killed anywhere and started again ends in the weights of an unbroken one, bit for bit."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gmmas_schema.events import Event, EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_schema.vocabulary import MODALITIES, Modality, Task
from server.checkpoint import RunFolder
from server.events import EventLog, read_events
from tests.server.kills import Killed, kill_at
from tests.server.simulated_sites import RecordingTracker, SimulatedSite, make_config, make_grid, run

ROUNDS = 4


def sites():
    return (
        SimulatedSite("north", patients=8),
        SimulatedSite("south", tuple(m for m in MODALITIES if m is not Modality.T1CE), {Task.SEGMENTATION: 8, Task.IDH: 3}),
        SimulatedSite("west", labelled={Task.IDH: 7, Task.CODELETION: 7}, patients=5),
    )


def new_folder(path, **changes):
    config = make_config(rounds=ROUNDS, sites=3, replies=2)
    return RunFolder.create(path, FederationConfig.parse(config.model_dump() | changes, where="test"), run="r1")


def outcome(folder):
    """Return everything of a run that must not depend on interruptions."""
    files = ("model.safetensors", "model.json", "calibration.json")
    models = {(kind, name): (folder.model_path(kind) / name).read_bytes() for kind in ("best", "last") for name in files}
    digests = [folder.read_record(number).model_sha256 for number in range(1, ROUNDS + 1)]
    scores = [folder.read_record(number).validation for number in range(1, ROUNDS + 1)]
    result = folder.read_result().model_dump(exclude={"ledger"})
    return models, digests, scores, result


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = new_folder(tmp_path_factory.mktemp("unbroken") / "run")
    run(make_grid(*sites()), folder)
    return outcome(folder)


def resume(folder, unbroken):
    tracker = RecordingTracker()
    run(make_grid(*sites()), folder, tracker=tracker)
    assert outcome(folder) == unbroken
    kinds = [event.kind for event in read_events(folder.events_path)]
    assert kinds.count(EventKind.ROUND_FINISHED) == ROUNDS
    assert kinds.count(EventKind.RUN_FINISHED) == 1
    return tracker


@pytest.mark.parametrize("number", range(1, ROUNDS + 1))
@pytest.mark.parametrize(
    ("kind", "site"),
    [(EventKind.ROUND_STARTED, None), (EventKind.REPLY_ACCEPTED, "south"), (EventKind.ROUND_FINISHED, None)],
)
def test_killed_in_or_between_any_two_rounds(tmp_path, unbroken, number, kind, site):
    folder = new_folder(tmp_path / "run")
    with pytest.raises(Killed):
        run(make_grid(*sites()), folder, events=EventLog(folder.events_path, on_event=kill_at(kind, number, site)))
    assert folder.read_result() is None
    resume(folder, unbroken)


@pytest.mark.parametrize("step", [{"kind": "momentum"}, {"kind": "adam"}, {"kind": "yogi"}], ids=lambda step: step["kind"])
def test_a_server_step_with_a_memory_goes_on_from_it(tmp_path, unbroken, step):
    whole, broken = (new_folder(tmp_path / name, server_step=step) for name in ("whole", "broken"))
    run(make_grid(*sites()), whole)
    for kind, number in [(EventKind.ROUND_FINISHED, 1), (EventKind.REPLY_ACCEPTED, 2), (EventKind.ROUND_STARTED, 4)]:
        with pytest.raises(Killed):
            run(make_grid(*sites()), broken, events=EventLog(broken.events_path, on_event=kill_at(kind, number)))
    resume(broken, outcome(whole))
    assert outcome(whole)[1] != unbroken[1]
    paths = [folder.round_path(ROUNDS) / "state.safetensors" for folder in (whole, broken)]
    assert [path.exists() for path in paths] == [step["kind"] != "momentum"] * 2
    assert not paths[0].exists() or paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("number", range(1, ROUNDS + 1))
def test_killed_before_the_tracker_heard_of_a_round(tmp_path, unbroken, number):
    def die(record):
        if record.round == number:
            raise Killed

    folder = new_folder(tmp_path / "run")
    with pytest.raises(Killed):
        run(make_grid(*sites()), folder, tracker=RecordingTracker(before_round=die))
    assert folder.finished_rounds()[-1] == number
    tracker = resume(folder, unbroken)
    assert [record.round for record in tracker.rounds] == list(range(1, ROUNDS + 1))


@pytest.mark.parametrize("number", range(ROUNDS + 1))
def test_killed_right_after_a_checkpoint(tmp_path, unbroken, number, monkeypatch):
    write = RunFolder.write_round

    def write_and_die(self, tensors, *, record, **rest):
        written = write(self, tensors, record=record, **rest)
        if (record.round if record else 0) == number:
            raise Killed
        return written

    folder = new_folder(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_round", write_and_die)
        with pytest.raises(Killed):
            run(make_grid(*sites()), folder)
    resume(folder, unbroken)


def test_killed_in_every_round_of_one_run(tmp_path, unbroken):
    folder = new_folder(tmp_path / "run")
    for number in range(1, ROUNDS + 1):
        with pytest.raises(Killed):
            run(make_grid(*sites()), folder, events=EventLog(folder.events_path, on_event=kill_at(EventKind.ROUND_FINISHED, number)))
    resume(folder, unbroken)


@pytest.mark.parametrize("kind", [EventKind.MODEL_REGISTERED, EventKind.RUN_FINISHED])
def test_killed_at_the_end(tmp_path, unbroken, kind):
    folder = new_folder(tmp_path / "run")

    def hook(event):
        if event.kind is kind:
            raise Killed

    with pytest.raises(Killed):
        run(make_grid(*sites()), folder, events=EventLog(folder.events_path, on_event=hook))
    resume(folder, unbroken)


def test_the_last_checkpoint_lost_costs_one_round(tmp_path, unbroken):
    """The remedy that the error about a damaged checkpoint names."""
    import shutil

    folder = new_folder(tmp_path / "run")
    with pytest.raises(Killed):
        run(make_grid(*sites()), folder, events=EventLog(folder.events_path, on_event=kill_at(EventKind.ROUND_FINISHED, 3)))
    shutil.rmtree(folder.round_path(3))
    run(make_grid(*sites()), folder)
    assert outcome(folder) == unbroken


def killed_process(path: str, kind: str, number: str) -> None:
    """Run in a process of its own, which kills itself."""
    folder = RunFolder.open(Path(path))

    def hook(event: Event) -> None:
        if (event.kind, event.round) == (kind, int(number)):
            os.kill(os.getpid(), signal.SIGKILL)

    run(make_grid(*sites()), folder, events=EventLog(folder.events_path, on_event=hook))


def test_a_process_killed_by_sigkill(tmp_path, unbroken):
    folder = new_folder(tmp_path / "run")
    program = "import sys; from tests.server.test_resume import killed_process; killed_process(*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder.path), EventKind.REPLY_ACCEPTED, "2"],
        cwd=Path(__file__).parents[2],
        check=False,
        capture_output=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert folder.finished_rounds() == (0, 1)
    resume(folder, unbroken)
