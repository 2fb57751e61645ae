"""Training without a federation: what it validates, tests, keeps and stops at, and that no interruption changes its weights."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gmmas_model.weights import load_weights, make_network
from gmmas_schema.errors import ConfigError, DataError, FederationError
from gmmas_schema.federation import SemiSupervisedConfig, TrainingPlan
from gmmas_schema.messages import Action, Evaluation, SiteDescription, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.standalone import CohortConfig, EarlyStop, TrainConfig
from gmmas_schema.trained_parts import TrainedParts
from gmmas_schema.vocabulary import MODALITIES, REGIONS, Modality, Region, Split, Task
from gmmas_workflows import train_run, training
from gmmas_workflows.batches import restrict
from gmmas_workflows.cohorts import Cohort
from gmmas_workflows.evaluation import score_samples
from gmmas_workflows.inference import predict_case
from gmmas_workflows.run_folder import KEEP_LAST
from gmmas_workflows.scores import score_model
from gmmas_workflows.train_folder import TrainFolder, TrainResult, TrainRound, TrainTracker
from gmmas_workflows.train_run import run_training
from gmmas_workflows.train_watch import TrainWatch
from gmmas_workflows.training import LocalTrainer
from strategies.exchange import tensors_down
from tests.gmmas_workflows.predictions import CASE

ROUNDS = 3
PLAN = TrainingPlan(local_steps=2, batch_size=2, warmup_steps=1, precision="fp32")
EAST = (Modality.T2, Modality.FLAIR)
NO_T1CE = tuple(m for m in MODALITIES if m is not Modality.T1CE)
SIZES = {Split.TRAIN: 3, Split.VALIDATION: 2, Split.TEST: 2}


@pytest.fixture(scope="module")
def cohorts(make_sample) -> tuple[Cohort, ...]:
    """North has four sequences, east two, and only two cases to train on and validate."""

    def make(first: int, sizes: Mapping[Split, int], modalities: tuple[Modality, ...]) -> Mapping[Split, tuple]:
        numbers = iter(range(first, first + 100))
        return {split: tuple(make_sample(next(numbers), modalities=modalities) for _ in range(sizes.get(split, 0))) for split in Split}

    north = Cohort("north", MODALITIES, make(0, SIZES, MODALITIES))
    east = Cohort("east", EAST, make(100, {Split.TRAIN: 1, Split.VALIDATION: 1}, EAST))
    return north, east


@pytest.fixture
def make_config(definition: ModelDefinition, tmp_path: Path) -> Callable[..., TrainConfig]:
    def make(**changes: object) -> TrainConfig:
        options: dict[str, object] = {
            "cohorts": tuple(CohortConfig(name=name, root=tmp_path / name) for name in ("north", "east")),
            "seed": 5,
            "rounds": ROUNDS,
            "model": definition,
            "training": PLAN,
            "early_stop": None,
            "device": "cpu",
            "threads": 1,
            "tracking": None,
        }
        return TrainConfig.model_validate(options | changes)

    return make


class Recorder(TrainWatch):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self.evaluated: list[tuple[Split, int, int]] = []
        self.rounds: list[int] = []
        self.begun_with = -1

    def begin(self, description: SiteDescription, records: Sequence[TrainRound], *, device: str) -> None:
        self.begun_with = len(records)

    def step(self, done: int, total: int) -> None:
        self.steps.append((done, total))

    def evaluate(self, split: Split, done: int, total: int) -> None:
        self.evaluated.append((split, done, total))

    def round(self, record: TrainRound) -> None:
        self.rounds.append(record.round)


def outcome(folder: TrainFolder) -> tuple[object, ...]:
    """Return everything of a training that must not depend on interruptions."""
    files = ("model.safetensors", "model.json", "calibration.json")
    models = {(kind, name): (folder.model_path(kind) / name).read_bytes() for kind in ("best", "last") for name in files}
    records = [(record.model_sha256, record.training.losses, record.validation) for record in folder.read_records()]
    result = folder.read_result()
    assert result is not None
    return models, records, result.model_dump(exclude={"seconds"})


@pytest.fixture(scope="module")
def unbroken(definition: ModelDefinition, cohorts: tuple[Cohort, ...], tmp_path_factory: pytest.TempPathFactory) -> TrainFolder:
    """A training of three rounds without early stop, from beginning to end."""
    config = TrainConfig(
        cohorts=tuple(CohortConfig(name=cohort.name, root=Path("/data") / cohort.name) for cohort in cohorts),
        seed=5,
        rounds=ROUNDS,
        model=definition,
        training=PLAN,
        early_stop=None,
        device="cpu",
        threads=1,
        tracking=None,
    )
    folder = TrainFolder.prepare(tmp_path_factory.mktemp("unbroken") / "run", config, resume=False)
    run_training(folder, lambda: cohorts)
    return folder


def test_a_watcher_hears_every_step_round_and_case(make_config, cohorts, tmp_path) -> None:
    watch = Recorder()
    result = run_training(TrainFolder.prepare(tmp_path / "run", make_config(), resume=False), lambda: cohorts, watch=watch)
    assert watch.steps == [(done, 6) for done in range(1, 7)]
    assert watch.rounds == [1, 2, 3]
    validations = [(Split.VALIDATION, done, 3) for done in (1, 2, 3)]
    models = 1 if result.best_round == 3 else 2
    calibrations = [entry for entry in watch.evaluated if entry[0] is Split.CALIBRATION]
    # Two questions a model, on the validation cases, for nobody has set calibration cases aside.
    assert calibrations == 2 * models * [(Split.CALIBRATION, done, 3) for done in (1, 2, 3)]
    rest = [entry for entry in watch.evaluated if entry[0] is not Split.CALIBRATION]
    assert rest == 3 * validations + [(Split.TEST, 1, 2), (Split.TEST, 2, 2)]
    assert (result.rounds, result.steps, result.stopped_early, result.device) == (3, 6, False, "cpu")


def test_models_are_published_with_what_their_calibration_rests_on(unbroken) -> None:
    for kind in ("best", "last"):
        weights = load_weights(unbroken.model_path(kind))
        assert weights.calibration is not None
        assert weights.calibration.patients == {Split.VALIDATION: 3}
        assert set(weights.temperatures.values()) == {1.0}
        assert {found.note for found in weights.calibration.heads.values()} == {"not fitted: 2 labelled patients, fewer than 10"}


def test_a_round_learns_from_all_cohorts_and_reports_what_it_did(unbroken) -> None:
    for record in unbroken.read_records():
        assert record.training.site == "pooled"
        assert record.training.cases == SIZES[Split.TRAIN] + 1
        assert record.training.labelled[Task.SEGMENTATION] == SIZES[Split.TRAIN] + 1
        assert record.samples_per_s == pytest.approx(4 / record.training.seconds["train"])
        assert record.seconds >= record.training.seconds["train"]


def test_validation_is_what_the_hospitals_would_measure(unbroken, definition, cohorts) -> None:
    record = unbroken.read_record(2)
    assert record.validation is not None
    assert record.validation.model_round == 2
    evaluations: dict[str, Evaluation] = {}
    for cohort in cohorts:
        hospital = LocalTrainer(definition, cohort.samples, modalities=cohort.modalities, site=cohort.name, device="cpu", threads=1)
        request = TaskRequest(
            action=Action.EVALUATE, run="any", round=2, rounds=3, seed=5, model=definition, plan=PLAN, evaluate=Split.VALIDATION
        )
        evaluations[cohort.name] = hospital.evaluate(tensors_down(unbroken.load_round(2).tensors, modalities=cohort.modalities), request)
    assert record.validation == score_model(evaluations, model_round=2, split=Split.VALIDATION)
    assert evaluations["north"].dice[Region.WT].n == 2


def test_a_cohort_without_cases_of_a_split_has_no_say_in_it(unbroken) -> None:
    result = unbroken.read_result()
    assert set(result.validation.sites) == {"north", "east"}
    assert set(result.test.sites) == {"north"}


def test_the_best_model_by_validation_is_tested_and_kept(unbroken) -> None:
    result = unbroken.read_result()
    scores = {record.round: record.validation.score for record in unbroken.read_records()}
    assert scores[result.best_round] == max(scores.values())
    assert result.test.model_round == result.best_round
    assert result.best_sha256 == unbroken.read_record(result.best_round).model_sha256
    assert result.last_sha256 == unbroken.read_record(ROUNDS).model_sha256


def test_encoders_of_sequences_nobody_has_stay_in_the_model_as_they_began(make_config, cohorts, tmp_path) -> None:
    config = make_config(cohorts=(CohortConfig(name="east", root=tmp_path / "east", modalities=EAST),), rounds=1)
    folder = TrainFolder.prepare(tmp_path / "run", config, resume=False)
    result = run_training(folder, lambda: cohorts[1:])
    assert folder.read_record(1).training.site == "east"
    assert result.test is None
    before, after = folder.load_round(0).tensors, folder.load_round(1).tensors
    assert set(before) == set(after)
    changed = {name for name, value in before.items() if not np.array_equal(value, after[name])}
    assert any(name.startswith("encoders.t2.") for name in changed)
    assert not any(name.startswith(("encoders.t1.", "encoders.t1ce.")) for name in changed)


def test_what_no_training_case_has_is_never_read_nor_told(make_config, make_sample, tmp_path) -> None:
    cases = {split: tuple(make_sample(n, modalities=NO_T1CE, idh=math.nan) for n in range(2)) for split in (Split.TRAIN, Split.VALIDATION)}
    # The test cases have a T1ce, which the model has learned nothing of.
    cohort = Cohort("west", MODALITIES, dict.fromkeys(Split, ()) | cases | {Split.TEST: (make_sample(9), make_sample(8))})
    config = make_config(cohorts=(CohortConfig(name="west", root=tmp_path / "west"),), rounds=2)
    folder = TrainFolder.prepare(tmp_path / "run", config, resume=False)
    result = run_training(folder, lambda: (cohort,))
    weights = load_weights(folder.model_path("best"))
    assert weights.trained == TrainedParts(modalities=NO_T1CE, heads=REGIONS)
    assert load_weights(folder.round_path(2)).trained == weights.trained
    assert load_weights(folder.round_path(0)).trained == TrainedParts()

    spoilt = tmp_path / "case"
    shutil.copytree(CASE, spoilt)
    shutil.copy(spoilt / "BraTS2021_00006_flair.nii.gz", spoilt / "BraTS2021_00006_t1ce.nii.gz")
    first, second = predict_case(CASE, weights), predict_case(spoilt, weights)
    np.testing.assert_array_equal(first.probability_RIJK, second.probability_RIJK)
    for findings in (first.findings, second.findings):
        assert findings.modalities_used == NO_T1CE
        assert findings.modalities_unread == (Modality.T1CE,)
        assert findings.untrained == (Task.IDH, Task.CODELETION)
        assert (findings.probability, findings.subtype) == ({}, {})
    with pytest.raises(DataError, match="never trained on it"):
        predict_case(CASE, weights, modalities=MODALITIES)

    without = tuple(restrict(cohort.samples[Split.TEST], NO_T1CE))
    scores = score_samples(make_network(weights, modalities=NO_T1CE), without)
    assert result.test.sites["west"].dice[Region.WT].value == pytest.approx(np.mean([score.dice[Region.WT] for score in scores]))


def test_a_validation_comes_every_so_many_rounds_and_at_the_end(make_config, cohorts, tmp_path) -> None:
    folder = TrainFolder.prepare(tmp_path / "run", make_config(rounds=5, validate_every=2), resume=False)
    result = run_training(folder, lambda: cohorts)
    validated = [record.round for record in folder.read_records() if record.validation is not None]
    assert validated == [2, 4, 5]
    assert result.best_round in validated


def test_the_last_models_and_the_best_are_kept(make_config, cohorts, tmp_path) -> None:
    folder = TrainFolder.prepare(tmp_path / "run", make_config(rounds=6, training=PLAN.model_copy(update={"local_steps": 1})), resume=False)
    result = run_training(folder, lambda: cohorts)
    kept = {number for number in folder.finished_rounds() if (folder.round_path(number) / "model.safetensors").exists()}
    assert kept == {result.best_round} | set(range(7 - KEEP_LAST, 7))


def with_scores(monkeypatch: pytest.MonkeyPatch, validation: list[float], test: list[Split]) -> None:
    """Let the judges of the run answer with these validation scores, and note which splits they were asked for."""
    genuine, queue = train_run.score_model, iter(validation)

    def score(sites: Mapping[str, Evaluation], *, model_round: int, split: Split):
        test.append(split)
        found = genuine(sites, model_round=model_round, split=split)
        return found.model_copy(update={"score": next(queue)}) if split is Split.VALIDATION else found.model_copy(update={"score": 0.0})

    monkeypatch.setattr(train_run, "score_model", score)


def test_training_stops_when_the_validation_score_has_stalled_and_the_test_is_looked_at_once(
    make_config, cohorts, tmp_path, monkeypatch
) -> None:
    asked: list[Split] = []
    with_scores(monkeypatch, [0.3, 0.5, 0.4, 0.5, 0.9], asked)
    config = make_config(rounds=9, early_stop=EarlyStop(patience=2, min_delta=0.0))
    result = run_training(TrainFolder.prepare(tmp_path / "run", config, resume=False), lambda: cohorts)
    assert (result.rounds, result.planned_rounds, result.stopped_early, result.best_round) == (4, 9, True, 2)
    assert [split for split in asked if split is not Split.CALIBRATION] == [Split.VALIDATION] * 4 + [Split.TEST]


def test_without_validation_cases_nothing_stops_early_and_the_last_model_is_the_best(make_config, cohorts, tmp_path) -> None:
    north = Cohort("north", MODALITIES, {**cohorts[0].samples, Split.VALIDATION: ()})
    config = make_config(
        cohorts=(CohortConfig(name="north", root=tmp_path / "north"),), rounds=2, early_stop=EarlyStop(patience=1, min_delta=0.0)
    )
    result = run_training(TrainFolder.prepare(tmp_path / "run", config, resume=False), lambda: (north,))
    assert (result.best_round, result.rounds, result.validation) == (2, 2, None)
    assert result.test is not None


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def raise_killed(*_: object, **__: object) -> None:
    raise Killed


class Killer(TrainWatch):
    """Kills at the n-th call of one kind."""

    def __init__(self, kind: str, number: int) -> None:
        self._kind, self._left = kind, number

    def _count(self, kind: str) -> None:
        self._left -= kind == self._kind
        if self._left == 0:
            raise Killed

    def step(self, done: int, total: int) -> None:
        self._count("step")

    def evaluate(self, split: Split, done: int, total: int) -> None:
        self._count(split)

    def round(self, record: TrainRound) -> None:
        self._count("round")


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ("step", 4),
        *(pytest.param("step", n, marks=pytest.mark.slow) for n in (1, 2, 3, 5, 6)),
        (Split.VALIDATION, 3),
        *(pytest.param(Split.VALIDATION, n, marks=pytest.mark.slow) for n in (1, 9)),
        ("round", 3),
        pytest.param("round", 1, marks=pytest.mark.slow),
        (Split.TEST, 1),
    ],
)
def test_a_run_killed_anywhere_and_resumed_gives_the_same_weights(kind, number, unbroken, cohorts, tmp_path) -> None:
    folder = TrainFolder.prepare(tmp_path / "run", unbroken.config, resume=False)
    with pytest.raises(Killed):
        run_training(folder, lambda: cohorts, watch=Killer(kind, number))
    watch = Recorder()
    finished = len(folder.read_records())
    run_training(TrainFolder.prepare(folder.path, unbroken.config, resume=True), lambda: cohorts, watch=watch)
    assert watch.begun_with == finished
    assert watch.rounds == list(range(finished + 1, ROUNDS + 1))
    assert outcome(folder) == outcome(unbroken)


@pytest.mark.parametrize("name", ["write_round", "prune_models", "publish_model", "write_result"])
def test_a_kill_between_training_and_disk_is_no_harm(name, unbroken, cohorts, tmp_path, monkeypatch) -> None:
    folder = TrainFolder.prepare(tmp_path / "run", unbroken.config, resume=False)
    with monkeypatch.context() as patch:
        patch.setattr(TrainFolder, name, raise_killed)
        with pytest.raises(Killed):
            run_training(folder, lambda: cohorts)
    run_training(folder, lambda: cohorts)
    assert outcome(folder) == outcome(unbroken)


def test_a_finished_training_is_not_repeated(unbroken) -> None:
    def load() -> tuple[Cohort, ...]:
        raise AssertionError("nobody needs the cohorts")

    before = {path: path.stat().st_mtime_ns for path in unbroken.path.rglob("*") if path.is_file() and path.name != "lock"}
    for resume in (False, True):
        again = TrainFolder.prepare(unbroken.path, unbroken.config, resume=resume)
        assert run_training(again, load) == unbroken.read_result()
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_seed_gives_other_weights_and_the_place_of_the_data_does_not_matter(unbroken, make_config, cohorts, tmp_path) -> None:
    elsewhere = TrainFolder.prepare(tmp_path / "elsewhere", make_config(), resume=False)
    assert elsewhere.config.cohorts[0].root != unbroken.config.cohorts[0].root
    assert run_training(elsewhere, lambda: cohorts).last_sha256 == unbroken.read_result().last_sha256
    other = TrainFolder.prepare(tmp_path / "other", make_config(seed=6), resume=False)
    assert run_training(other, lambda: cohorts).last_sha256 != unbroken.read_result().last_sha256


def test_only_one_process_trains_in_a_folder(unbroken, cohorts) -> None:
    with unbroken.hold(), pytest.raises(FederationError, match="another process"):
        run_training(unbroken, lambda: cohorts)


def test_an_interruption_is_told_to_the_tracker(make_config, cohorts, tmp_path) -> None:
    told: list[object] = []

    class Tracker:
        def start(self, resolved: Mapping[str, object]) -> None:
            told.append(resolved["run"])

        def log_round(self, record: TrainRound) -> None:
            told.append(record.round)

        def register(self, kind: str, weights_folder: Path, *, round: int, metrics: Mapping[str, float]) -> str:  # noqa: A002
            told.append((kind, round))
            return ""

        def log_result(self, result: TrainResult) -> None:
            told.append("result")

        def finish(self, status: str) -> None:
            told.append(status)

    class Impatient(TrainWatch):
        def step(self, done: int, total: int) -> None:
            if done == 3:
                raise KeyboardInterrupt

    tracker: TrainTracker = Tracker()  # type: ignore[assignment]
    folder = TrainFolder.prepare(tmp_path / "run", make_config(), resume=False)
    with pytest.raises(KeyboardInterrupt):
        run_training(folder, lambda: cohorts, tracker=tracker, watch=Impatient())
    assert told == [folder.run, 1, "KILLED"]
    told.clear()
    result = run_training(folder, lambda: cohorts, tracker=tracker)
    assert told == [folder.run, 2, 3, ("best", result.best_round), ("last", 3), "result", "FINISHED"]
    told.clear()
    with pytest.raises(ConfigError):
        run_training(TrainFolder.prepare(tmp_path / "bad", make_config(), resume=False), raise_config_error, tracker=tracker)
    assert told == []


def raise_config_error() -> tuple[Cohort, ...]:
    raise ConfigError("the cohorts are wrong")


def test_hospitals_that_number_alike_are_pooled_with_all_their_cases(make_config, make_sample, tmp_path, monkeypatch) -> None:
    """A case that got a pseudo-label stands for itself alone, not for another hospital's of the same name."""

    def label(_, samples, *__, **___):
        guessed = [sample for sample in samples if sample.regions_RXYZ is None]
        masks = np.ones((3, *guessed[0].image_MXYZ.shape[1:]), np.uint8)
        return [replace(sample, regions_RXYZ=masks, weight_RXYZ=masks / np.float32(2)) for sample in guessed], {}

    monkeypatch.setattr(training, "make_pseudo_labels", label)
    monkeypatch.setattr(train_run, "targets_ready", lambda *_: {Region.WT: 1.0})
    cohorts = tuple(
        Cohort(name, MODALITIES, dict.fromkeys(Split, ()) | {Split.TRAIN: tuple(make_sample(n, segmentation=own) for n in range(3))})
        for name, own in (("north", True), ("east", False))
    )
    plan = PLAN.model_copy(update={"semi_supervised": SemiSupervisedConfig()})
    folder = TrainFolder.prepare(tmp_path / "run", make_config(rounds=1, training=plan, calibration=None), resume=False)
    run_training(folder, lambda: cohorts)
    assert folder.read_record(1).training.cases == 6
