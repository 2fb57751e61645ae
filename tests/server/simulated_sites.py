"""Sites for tests of the coordinator: deterministic stand-ins for training behind the real codec, and a clock that only tests move."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context, Error, Message

from gmmas_model.calibration import likelihood_curve, reliability_sums
from gmmas_schema.calibration import CalibrationStatistics, HeadStatistics, Reliability, ReliabilityPair
from gmmas_schema.errors import ProtocolError
from gmmas_schema.federation import FederationConfig, QuorumConfig
from gmmas_schema.groups import groups_sent
from gmmas_schema.messages import Action, Evaluation, Interval, SiteDescription, SiteReport, TaskRequest
from gmmas_schema.model import GridConfig, ModelDefinition, NetworkConfig
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Modality, Region, Split, Task
from gmmas_workflows.site_state import SiteState
from server.checkpoint import RunFolder
from server.courier import Timing
from server.events import EventLog
from server.local_grid import LocalGrid
from server.records import RoundRecord, RunResult
from server.rounds import run_federation
from strategies.codec import write_report
from strategies.exchange import select_groups
from strategies.wire import FEEDBACK, SiteWire

TINY = ModelDefinition(
    network=NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_layers=1, transformer_heads=2), grid=GridConfig(shape=(8, 8, 8))
)
ALL_TASKS = {Task.SEGMENTATION: 20, Task.IDH: 20, Task.CODELETION: 12}


def make_config(*, rounds: int = 3, sites: int = 2, replies: int = 2, attempts: int = 1, deadline_s: float = 60.0) -> FederationConfig:
    return FederationConfig(
        name="test",
        seed=7,
        rounds=rounds,
        model=TINY,
        quorum=QuorumConfig(sites=sites, replies=replies, join_deadline_s=60.0, round_deadline_s=deadline_s, round_attempts=attempts),
    )


@dataclass
class Clock:
    """Moves only when somebody sleeps; `at` holds what happens at a time."""

    now: float = 0.0
    at: dict[float, Callable[[], None]] = field(default_factory=dict)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for moment in [moment for moment in self.at if moment <= self.now]:
            self.at.pop(moment)()

    def timing(self) -> Timing:
        return Timing(clock=lambda: self.now, sleep=self.sleep)


@dataclass
class SimulatedSite:
    """Answers like a site. Its update is drawn from (seed, site, round) and nudged by what it received, so order and state show.

    Attributes:
        alter: changes (report, tensors) before they are sent.
        patients: patients of every split whose IDH status is known; the model is twice too sure of them. 0: no sums for calibration.
    """

    site: str
    modalities: tuple[Modality, ...] = MODALITIES
    labelled: Mapping[Task, int] = field(default_factory=lambda: dict(ALL_TASKS))
    cases: int = 20
    alter: Callable[[SiteReport, dict[str, np.ndarray]], tuple[SiteReport, dict[str, np.ndarray]]] = lambda report, tensors: (
        report,
        tensors,
    )
    patients: int = 0
    seen: list[TaskRequest] = field(default_factory=list)
    wire: SiteWire = field(default_factory=lambda: SiteWire(SiteState(kind=FEEDBACK)))

    def __call__(self, message: Message, context: Context) -> Message | None:
        try:
            request, tensors = self.wire.open(message.content)
        except ProtocolError as error:
            return Message(Error(2, error.code.value), reply_to=message)
        self.seen.append(request)
        if request.action is Action.DESCRIBE:
            return Message(write_report(self.describe(request)), reply_to=message)
        report, trained = self.alter(self.report(request), self.train(request, tensors))
        return Message(self.wire.answer(request, report, received=tensors, trained=trained), reply_to=message)

    def describe(self, request: TaskRequest) -> SiteDescription:
        return SiteDescription(
            site=self.site,
            model_digest=request.model.digest(),
            software="test",
            modalities=self.modalities,
            cases=self.cases,
            labelled=dict(self.labelled),
        )

    def train(self, request: TaskRequest, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if request.action is not Action.TRAIN:
            return {}
        generator = self.generator(request)
        mine = select_groups(tensors, groups_sent(self.modalities, self.labelled))
        # Within the reach of an optimiser in any round, whose checks judge these updates too.
        return {
            name: (0.999 * value + generator.uniform(0.004, 0.005, value.shape) * generator.choice((-1, 1), value.shape)).astype(np.float32)
            for name, value in mine.items()
        }

    def report(self, request: TaskRequest) -> SiteReport:
        dice = {region: Interval(value=float(self.generator(request).uniform(0, 1)), n=4) for region in REGIONS}
        return SiteReport(
            site=self.site,
            run=request.run,
            round=request.round,
            model_digest=request.model.digest(),
            modalities=self.modalities,
            cases=self.cases,
            labelled=dict(self.labelled),
            losses=dict.fromkeys(self.labelled, 0.5),
            steps=3,
            evaluation=Evaluation(split=request.evaluate, cases=max(4, self.patients), dice=dice) if request.evaluate else None,
            calibration=self.calibration(request, request.evaluate) if request.calibrate and self.patients else None,
        )

    def calibration(self, request: TaskRequest, split: Split) -> CalibrationStatistics:
        query = request.calibrate
        generator = self.generator(request)
        right_N = generator.normal(0, 1.5, self.patients)
        truth_N = torch.from_numpy(generator.random(self.patients) < 1 / (1 + np.exp(-right_N)))
        logit_N = torch.from_numpy(right_N * 2).float()
        nll = likelihood_curve(logit_N, truth_N, query.grid) * self.patients if query.grid else ()
        pair = None
        if query.temperatures is not None:
            temperatures = (1.0, query.temperatures.get(Task.IDH, 1.0))
            sums = [reliability_sums((logit_N / t).sigmoid(), truth_N) * self.patients for t in temperatures]
            names = ("patients", "confidence", "correct")
            before, after = (Reliability(**{name: tuple(row) for name, row in zip(names, each.tolist(), strict=True)}) for each in sums)
            pair = ReliabilityPair(before=before, after=after)
        head = HeadStatistics(patients=self.patients if query.grid else 0, nll=tuple(nll), reliability=pair)
        source = Split.VALIDATION if split is Split.CALIBRATION else split
        return CalibrationStatistics(split=source, patients=self.patients, heads={Task.IDH: head})

    def generator(self, request: TaskRequest) -> np.random.Generator:
        key = f"{request.seed}/{self.site}/{request.round}".encode()
        return np.random.default_rng(int.from_bytes(hashlib.sha256(key).digest()[:8]))


@dataclass
class RecordingTracker:
    """Remembers what it is told. `before_round` may raise, as a kill would."""

    rounds: list[RoundRecord] = field(default_factory=list)
    registered: dict[str, int] = field(default_factory=dict)
    result: RunResult | None = None
    status: str = ""
    before_round: Callable[[RoundRecord], None] = lambda record: None

    def start(self, resolved: Mapping[str, object]) -> None:
        assert resolved["run"]

    def log_round(self, record: RoundRecord) -> None:
        self.before_round(record)
        self.rounds.append(record)

    def register(self, kind: str, weights_folder: Path, *, round: int, metrics: Mapping[str, float]) -> str:  # noqa: A002
        assert (weights_folder / "model.safetensors").exists()
        self.registered[kind] = round
        return f"models:/test/{round}"

    def log_result(self, result: RunResult) -> None:
        self.result = result

    def finish(self, status: str) -> None:
        self.status = status


def make_grid(*sites: Callable[[Message, Context], Message | None], watch: Callable[[Message], None] | None = None) -> LocalGrid:
    return LocalGrid(dict(enumerate(sites, start=100)), watch=watch)


def run(
    grid: LocalGrid,
    folder: RunFolder,
    *,
    tracker: RecordingTracker | None = None,
    clock: Clock | None = None,
    events: EventLog | None = None,
) -> RunResult:
    return run_federation(
        grid,
        folder,
        tracker=tracker or RecordingTracker(),
        events=events or EventLog(folder.events_path),
        timing=(clock or Clock()).timing(),
    )


def dice_of(report: SiteReport, value: float) -> SiteReport:
    """Return the report with one Dice value for every region."""
    assert report.evaluation is not None
    dice = {region: Interval(value=value, n=4) for region in Region}
    return report.model_copy(update={"evaluation": report.evaluation.model_copy(update={"dice": dice})})
