import numpy as np
import pytest
from flwr.app import Message

from client.in_process import InProcessSite
from gmmas_model.temperature_fit import calibrate_weights
from gmmas_model.weights import load_weights
from gmmas_schema.calibration import CalibrationPlan
from gmmas_schema.errors import ReasonCode
from gmmas_schema.groups import group_of
from gmmas_schema.messages import Action, TaskRequest
from gmmas_schema.model import ModelDefinition
from gmmas_schema.vocabulary import MODALITIES, REGIONS, REQUIRED_TASKS, Split, Task
from gmmas_schema.wire import WireConfig
from gmmas_workflows.local_rounds import local_rounds
from gmmas_workflows.training import LocalTrainer
from server.checkpoint import RunFolder
from server.events import EventLog
from server.initial_model import make_initial_model
from server.local_grid import LocalGrid
from server.rounds import run_federation
from strategies.codec import Parcel, read_report, unpack_tensors, write_request
from tests.client.tiny_sites import FLAIR_ONLY, TINY, make_config, make_sample, make_trainer, run
from tests.server.simulated_sites import RecordingTracker

UNROUNDED = WireConfig(down="fp32", up="fp32")


def calibrating_trainer(site: str, numbers) -> LocalTrainer:
    """A trainer whose calibration patients have these numbers."""
    samples = {Split.TRAIN: [make_sample(0)], Split.VALIDATION: [make_sample(1)], Split.TEST: [make_sample(n + 50) for n in (2, 3)]}
    samples[Split.CALIBRATION] = [make_sample(n) for n in numbers]
    return LocalTrainer(TINY, samples, modalities=MODALITIES, site=site, device="cpu", threads=1)


def test_two_hospitals_calibrate_as_one_place_with_all_their_patients(tmp_path) -> None:
    north, south = calibrating_trainer("north", range(100, 107)), calibrating_trainer("south", range(200, 205))
    folder = RunFolder.create(tmp_path / "run", make_config(2).model_copy(update={"wire": UNROUNDED}))
    run([north, south], folder)
    best = load_weights(folder.model_path("best"))
    pooled = calibrating_trainer("pooled", [*range(100, 107), *range(200, 205)])

    def ask(split, query):
        request = TaskRequest(action=Action.EVALUATE, run="r", round=1, rounds=1, seed=0, model=TINY, evaluate=split, calibrate=query)
        return [pooled.measure(best.tensors, request)[1]]

    expected = calibrate_weights(ask, weights_sha256=best.sha256, plan=CalibrationPlan())
    assert best.calibration.patients == expected.patients == {Split.CALIBRATION: 12}
    assert set(best.calibration.heads) == set(expected.heads) == {*REGIONS, Task.IDH}
    for head, found in best.calibration.heads.items():
        assert found.fitted
        assert found.temperature == pytest.approx(expected.heads[head].temperature, rel=1e-6)
        assert found.reliability.after.ece == pytest.approx(expected.heads[head].reliability.after.ece, rel=1e-6)
        assert found.abstention == pytest.approx(expected.heads[head].abstention)
        assert found.test.before.total == pytest.approx(4)


def test_a_federation_of_one_site_is_training_without_a_federation(tmp_path) -> None:
    trainer, config = make_trainer("north"), make_config(1).model_copy(update={"wire": UNROUNDED})
    folder = RunFolder.create(tmp_path / "run", config, run="r")
    result = run([trainer], folder)
    *_, alone = local_rounds(trainer, make_initial_model(config), config.training, rounds=2, seed=3, run="r")
    federated = folder.load_round(2).tensors
    assert set(federated) == set(alone.tensors)
    for name, value in alone.tensors.items():
        np.testing.assert_array_equal(federated[name], value)
    assert result.test is not None
    assert result.test.sites["north"].dice


def test_sites_keep_to_the_groups_they_hold(tmp_path) -> None:
    folder = RunFolder.create(tmp_path / "run", make_config(2), run="r")
    run([make_trainer("north"), make_trainer("flair", FLAIR_ONLY, first=10)], folder)
    north, flair = sorted(folder.read_record(1).sites, key=lambda record: -record.bytes_up)
    assert (north.site, flair.site) == ("north", "flair")
    assert flair.bytes_down < north.bytes_down
    assert flair.labelled[Task.SEGMENTATION] == 3
    assert "encoder.t1ce" not in flair.shares
    assert north.shares["encoder.t1ce"] == 1.0


def test_optional_heads_are_trained_where_their_labels_are(tmp_path) -> None:
    """North knows the grade of its mutants (one of three in training), south knows MGMT; the model has a head for grade alone."""
    model = TINY.model_copy(update={"network": TINY.network.model_copy(update={"tasks": (*REQUIRED_TASKS, Task.GRADE)})})
    config = make_config(2, model)
    folder = RunFolder.create(tmp_path / "run", config, run="r")
    trainers = [make_trainer("north", model=model, grade=0.0), make_trainer("south", first=10, model=model, mgmt=1.0)]
    result = run(trainers, folder)
    north, south = sorted(folder.read_record(1).sites, key=lambda record: record.site)
    assert (north.labelled[Task.GRADE], south.labelled[Task.GRADE]) == (1, 0)
    assert Task.MGMT not in south.labelled
    assert {"head.grade", "uncertainty.grade"} <= north.shares.keys() - south.shares.keys()
    start, end = folder.load_round(0).tensors, folder.load_round(2).tensors
    assert not np.array_equal(start["heads.grade.hidden.weight"], end["heads.grade.hidden.weight"])
    assert not any("mgmt" in name for name in end)
    assert result.test is not None
    assert Task.GRADE in result.test.sites["north"].auc
    assert Task.GRADE not in result.test.sites["south"].auc


def test_labels_without_a_head_change_nothing(tmp_path) -> None:
    models = []
    for labels in ({}, {"grade": 1.0, "mgmt": 0.0}):
        folder = RunFolder.create(tmp_path / str(len(models)), make_config(1), run="r")
        run([make_trainer("north", **labels)], folder)
        models.append(folder.load_round(2).tensors)
    plain, labelled = models
    assert plain.keys() == labelled.keys()
    assert all(np.array_equal(value, labelled[name]) for name, value in plain.items())


@pytest.fixture
def grid() -> LocalGrid:
    return LocalGrid({10: InProcessSite(make_trainer("north"))})


def ask(grid: LocalGrid, request: TaskRequest) -> Message:
    (reply,) = grid.send_and_receive([grid.create_message(write_request(request), request.action.value, 10, "")])
    return reply


def request(action: Action, *, model: ModelDefinition = TINY, split: Split | None = None) -> TaskRequest:
    return TaskRequest(action=action, run="r", round=1, rounds=2, seed=0, model=model, evaluate=split)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (request(Action.EVALUATE, model=ModelDefinition(), split=Split.TEST), ReasonCode.MODEL_DEFINITION),
        (request(Action.TRAIN), ReasonCode.PROTOCOL),
    ],
)
def test_a_failure_leaves_as_its_reason_code_alone(grid, asked, code) -> None:
    reply = ask(grid, asked)
    assert reply.error.reason == code.value


def test_tensors_travel_with_training_alone_and_only_those_of_its_groups(tmp_path) -> None:
    seen: list[Message] = []
    folder = RunFolder.create(tmp_path / "run", make_config(1), run="r")
    grid = LocalGrid({10: InProcessSite(make_trainer("flair", FLAIR_ONLY))}, watch=seen.append)
    run_federation(grid, folder, tracker=RecordingTracker(), events=EventLog(folder.events_path))
    replies = [m for m in seen if m.metadata.reply_to_message_id and m.metadata.message_type == Action.EVALUATE.value]
    reports = [read_report(m.content) for m in replies]
    splits = [report.evaluation.split for report, _ in reports]
    assert splits[0] is Split.VALIDATION
    assert splits.count(Split.TEST) == 1
    assert set(splits) == {Split.VALIDATION, Split.CALIBRATION, Split.TEST}
    assert all(report.seconds["evaluate"] > 0 and not tensors for report, tensors in reports)
    trained = [m for m in seen if m.metadata.reply_to_message_id and "arrays" in m.content]
    assert trained
    for message in trained:
        names = unpack_tensors(Parcel(message.content["arrays"], str(message.content["report"]["index"])))
        assert not {group_of(name) for name in names} & {"encoder.t1ce", "gate.flair"}
