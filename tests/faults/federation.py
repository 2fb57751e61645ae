"""A coordinator and two hospitals of real processes, runs on them, and something that happens at a chosen moment of a run.

Every run has the same configuration, seed and identifier, so every run must end in the same weights, bit for bit.
"""

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from client.folder import NodeFolder
from client.trainer_channel import TrainerChannel
from client.trainer_service_pb2 import Progress, State
from gmmas_cli.demo_deployment import DemoFolder, prepare_deployment, running_deployment
from gmmas_data.phantom import make_cohorts
from gmmas_runtime.process_state import ProcessState, live_state
from gmmas_schema.errors import FederationError
from gmmas_schema.events import Event, EventKind
from gmmas_schema.federation import FederationConfig
from gmmas_schema.phantom import PhantomSpec
from gmmas_schema.site import SiteConfig
from server.checkpoint import RunFolder
from server.deployment import online_nodes
from server.events import events_after
from server.folder import CoordinatorFolder
from server.launching import resume_run
from server.records import Outcome
from server.submission import find_run_state, is_at_work, read_submission, submit_run
from tests.faults.line import Line

SITES = ("north", "south")
VICTIM = "south"
ROUNDS = 2
FAULT_ROUND = 2
RUN = "faults"
LOOK_S = 0.05
SILENCE_S = 8.0
CELL_S = 900.0

SPEC = PhantomSpec.model_validate(
    {
        "seed": 3,
        "spacing_mm": 4.0,
        "sites": [
            {"name": "north", "cases": 5, "scanner": "research-3t"},
            {"name": VICTIM, "cases": 5, "scanner": "clinical-1.5t", "modalities": ["t1", "t2", "flair"]},
        ],
    }
)

CONFIG = {
    "name": "faults",
    "seed": 5,
    "rounds": ROUNDS,
    "model": {
        "network": {"channels": [4, 8], "blocks": [1, 1], "transformer_heads": 2},
        "grid": {"spacing_mm": 8.0, "shape": [24, 24, 24]},
    },
    "training": {"local_steps": 6, "precision": "fp32"},
    "wire": {"up": "int8"},
    "quorum": {"sites": 2, "replies": 2, "join_deadline_s": 400, "round_deadline_s": 300, "round_attempts": 5},
}
"""Both replies are needed, so a round that lacks one is tried again and nothing but waiting is lost."""

Fault = Callable[["Federation"], None]
Moment = Callable[["Federation", "Story"], bool]


@dataclass
class Story:
    """What a run has told so far, and what came of it."""

    events: list[Event] = field(default_factory=list)
    seconds: float = 0.0
    resumes: int = 0
    struck: bool = False
    tasks_done_before: int = 0

    def has(self, kind: EventKind, *, number: int | None = None, site: str | None = None, action: str | None = None) -> bool:
        """Return whether an event has come."""
        return any(
            event.kind is kind
            and number in {None, event.round}
            and site in {None, event.site}
            and action in {None, event.detail.get("action")}
            for event in self.events
        )


class Federation:
    """A deployment that is up; runs follow one another."""

    def __init__(self, path: Path) -> None:
        self.folder = DemoFolder(path)
        self._runs = 0
        self._pool = ThreadPoolExecutor(max_workers=1)
        self.line: Line | None = None

    @contextmanager
    def up(self) -> Iterator["Federation"]:
        """Make it, start it, and stop it in the end."""
        make_cohorts(SPEC, self.folder.cohorts, processes=2)
        prepare_deployment(self.folder, SPEC)
        settings = self.folder.site_yaml(VICTIM)
        address = CoordinatorFolder.open(self.folder.coordinator).config.local_address
        self.line = Line(int(address.rpartition(":")[2]))
        settings.write_text(settings.read_text().replace(address, f"127.0.0.1:{self.line.port}"))
        try:
            with running_deployment(self.folder, SPEC, on_wait=lambda _text: None):
                yield self
        finally:
            self.line.close()

    def node(self, site: str = VICTIM) -> NodeFolder:
        """Return a site's state folder."""
        return NodeFolder(SiteConfig.from_yaml(self.folder.site_yaml(site)).node.state)

    def progress(self) -> Progress | None:
        """Return what the victim's trainer is doing, if it answers."""
        with contextlib.suppress(FederationError), TrainerChannel(self.node().socket) as trainer:
            return trainer.status()
        return None

    def pid_of(self, victim: str) -> int | None:
        """Return the process to kill: one of the coordinator's, the run's own, or one of the victim site's."""
        coordinator = live_state(CoordinatorFolder.open(self.folder.coordinator).state_file)
        node = live_state(self.node().state_file)
        assert coordinator is not None
        assert node is not None
        for process in (*coordinator.processes, *node.processes):
            if process.name == victim and process.state is ProcessState.RUNNING:
                return process.pid
        if victim == "serverapp":
            executor = next(process.pid for process in coordinator.processes if process.name == "superexec")
            children = psutil.Process(executor).children(recursive=True)
            return next((child.pid for child in children if _is_running(child, "flwr-serverapp")), None)
        return None

    def is_whole(self) -> bool:
        """Return whether every process runs and every node is connected."""
        states = [CoordinatorFolder.open(self.folder.coordinator).state_file, *(self.node(site).state_file for site in SITES)]
        for path in states:
            state = live_state(path)
            if state is None or any(process.state is not ProcessState.RUNNING for process in state.processes):
                return False
        with contextlib.suppress(FederationError):
            return len(online_nodes(self.folder.coordinator)) == len(SITES)
        return False

    def wait_whole(self) -> None:
        """Wait until everything is back."""
        _wait(self.is_whole, "the whole federation")

    def begin(self, *, changes: dict[str, object] | None = None) -> Path:
        """Submit a run; returns its folder."""
        self.wait_whole()
        self._runs += 1
        path = self.folder.path / "runs" / f"{self._runs:02d}"
        RunFolder.create(path, FederationConfig.model_validate(CONFIG | (changes or {})), run=RUN)
        submit_run(self.folder.coordinator, path)
        return path

    def run(
        self, *, moment: Moment | None = None, fault: Fault | None = None, changes: dict[str, object] | None = None
    ) -> tuple[RunFolder, Story]:
        """Do one run to its end; at `moment`, `fault` happens. A run that stops is resumed, as a person would."""
        self.wait_whole()
        story, start = Story(), time.monotonic()
        before = self.progress()
        story.tasks_done_before = before.tasks_done if before is not None else 0
        path = self.begin(changes=changes)
        last, silent_since = 0, 0.0
        blow: Future[None] | None = None
        while not story.has(EventKind.RUN_FINISHED):
            assert time.monotonic() - start < CELL_S, f"no end; events: {[event.kind.value for event in story.events]}"
            new = events_after(path / "events.db", last)
            last = new[-1][0] if new else last
            story.events += [event for _, event in new]
            if not story.struck and moment is not None and fault is not None and moment(self, story):
                story.struck = True
                blow = self._pool.submit(fault, self)
            silent_since = 0.0 if self._works(path) else silent_since or time.monotonic()
            if silent_since and time.monotonic() - silent_since > SILENCE_S and not story.has(EventKind.RUN_FINISHED):
                with contextlib.suppress(FederationError):
                    resume_run(path, self.folder.coordinator)
                    story.resumes, silent_since = story.resumes + 1, 0.0
            time.sleep(LOOK_S)
        story.seconds = time.monotonic() - start
        if blow is not None:
            blow.result()
        assert story.struck or moment is None, "the moment never came"
        return RunFolder.open(path), story

    def _works(self, path: Path) -> bool:
        """Return whether a process works on a run, or may be about to."""
        if is_at_work(path):
            return True
        submission = read_submission(path)
        assert submission is not None
        if len(events_after(path / "events.db", submission.events_before)) > 0:
            return False
        with contextlib.suppress(FederationError):
            state = find_run_state(submission.coordinator, submission.flower_run)
            return state is None or not state.ended
        return True


def kill(victim: str) -> Fault:
    """Return a fault: SIGKILL for one process."""

    def strike(federation: Federation) -> None:
        pid = federation.pid_of(victim)
        assert pid is not None, f"no {victim} to kill"
        psutil.Process(pid).send_signal(signal.SIGKILL)

    return strike


def outcome(folder: RunFolder) -> dict[str, bytes | str]:
    """Return everything of a run that no fault may change: the models of all rounds, and what was published."""
    files = {
        f"{kind}/{name}": (folder.model_path(kind) / name).read_bytes()
        for kind in ("best", "last")
        for name in ("model.safetensors", "calibration.json")
    }
    return files | {f"round {number}": folder.read_record(number).model_sha256 for number in range(1, ROUNDS + 1)}


def missing_replies(folder: RunFolder) -> int:
    """Return how many replies the rounds that count went without."""
    return sum(site.outcome is not Outcome.ACCEPTED for number in range(1, ROUNDS + 1) for site in folder.read_record(number).sites)


def forget(folder: RunFolder) -> None:
    """Delete a run that was looked at."""
    shutil.rmtree(folder.path)


def _is_running(process: psutil.Process, program: str) -> bool:
    """Return whether a process runs a program; those that have ended stay zombies of Flower's executor."""
    with contextlib.suppress(psutil.Error):
        return process.status() != psutil.STATUS_ZOMBIE and any(program in part for part in process.cmdline())
    return False


def _wait(condition: Callable[[], bool], what: str, *, timeout_s: float = 400.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.3)


def waiting_for_sites(_federation: Federation, story: Story) -> bool:
    """The coordinator has begun and asks who is there."""
    return story.has(EventKind.RUN_STARTED)


def training(federation: Federation, story: Story) -> bool:
    """The victim site trains in the round of the fault."""
    if not story.has(EventKind.ROUND_STARTED, number=FAULT_ROUND):
        return False
    progress = federation.progress()
    return progress is not None and progress.state == State.TRAINING and progress.round == FAULT_ROUND and progress.step >= 1


def replying(federation: Federation, story: Story) -> bool:
    """The victim site has trained the round of the fault, and its reply is on the way."""
    if not story.has(EventKind.ROUND_STARTED, number=FAULT_ROUND):
        return False
    progress = federation.progress()
    # One task so far for the first round, one for this.
    return progress is not None and progress.state == State.IDLE and progress.tasks_done >= story.tasks_done_before + FAULT_ROUND


def checkpointing(_federation: Federation, story: Story) -> bool:
    """The last reply of the round of the fault is in: the coordinator makes and writes the next model."""
    return sum(event.kind is EventKind.REPLY_ACCEPTED and event.round == FAULT_ROUND for event in story.events) >= len(SITES)


def calibrating(_federation: Federation, story: Story) -> bool:
    """Training is over, and the first evaluation of the end is answered."""
    finished = [number for number, event in enumerate(story.events) if event.kind is EventKind.ROUND_FINISHED and event.round == ROUNDS]
    return bool(finished) and any(event.kind is EventKind.REPLY_ACCEPTED for event in story.events[finished[0] :])


STAGES: dict[str, Moment] = {
    "waiting for sites": waiting_for_sites,
    "training": training,
    "replying": replying,
    "checkpointing": checkpointing,
    "calibrating": calibrating,
}
