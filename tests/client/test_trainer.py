import json
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import client.trainer
import client.trainer_servicer
from client.cohort import SiteCohort, describe_cohort, open_cohort
from client.folder import NodeFolder
from client.trainer import serve
from client.trainer_channel import LARGEST_MESSAGE_BYTES, OPTIONS, TrainerChannel, pack_tensors
from client.trainer_service_pb2 import State, TaskCall
from client.trainer_service_pb2_grpc import TrainerStub
from client.trainer_servicer import parse_request
from gmmas_data.cache import SampleCache
from gmmas_schema.errors import FederationError, GmmasError, ProtocolError, ReasonCode
from gmmas_schema.groups import group_of, groups_sent
from gmmas_schema.messages import PROTOCOL_VERSION, Action
from gmmas_schema.model import NetworkConfig
from gmmas_schema.site import SiteConfig
from gmmas_schema.vocabulary import MODALITIES, REQUIRED_TASKS, TASKS, Modality, Task
from gmmas_workflows.training import LocalTrainer
from tests.client.serving import TIMEOUT_S, make_tensors, serving
from tests.client.sites import CASES, PATIENT, TINY, make_request, read_site
from tests.gmmas_runtime.waiting import wait_until

TWO = (Modality.T2, Modality.FLAIR)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> SiteConfig:
    return read_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def trainer(config: SiteConfig) -> Iterator[TrainerChannel]:
    with serving(config) as channel:
        yield channel


@pytest.fixture
def stub(config: SiteConfig, trainer: TrainerChannel) -> Iterator[TrainerStub]:
    with grpc.insecure_channel(f"unix:{NodeFolder(config.node.state).socket}", options=OPTIONS) as channel:
        yield TrainerStub(channel)


def test_the_socket_is_for_its_owner_only(config: SiteConfig, trainer: TrainerChannel) -> None:
    assert stat.S_IMODE(NodeFolder(config.node.state).socket.stat().st_mode) == 0o600


def test_describe_counts_training_cases(trainer: TrainerChannel) -> None:
    description = trainer.describe(make_request(Action.DESCRIBE), timeout_s=TIMEOUT_S)
    assert description.site == "north"
    assert description.model_digest == TINY.digest()
    assert description.modalities == MODALITIES
    assert 0 < description.cases < CASES
    assert description.labelled[Task.SEGMENTATION] == description.labelled[Task.IDH] == description.cases


def test_a_round_trains_and_evaluates(trainer: TrainerChannel) -> None:
    tensors = make_tensors()
    report, trained = trainer.train(make_request(steps=2), tensors, timeout_s=TIMEOUT_S)
    sent = groups_sent(report.modalities, report.labelled)
    assert set(trained) == {name for name in tensors if group_of(name) in sent}
    assert any(not np.array_equal(trained[name], tensors[name]) for name in trained)
    assert (report.site, report.run, report.round, report.steps) == ("north", "run-1", 1, 2)
    assert report.evaluation is not None
    progress = trainer.status()
    assert (progress.state, progress.step, progress.steps, progress.last_error) == (State.IDLE, 2, 2, "")
    assert progress.cases_cached == CASES
    assert progress.HasField("loss")


def test_a_round_is_the_same_when_it_is_repeated(trainer: TrainerChannel) -> None:
    first = trainer.train(make_request(), make_tensors(), timeout_s=TIMEOUT_S)[1]
    second = trainer.train(make_request(), make_tensors(), timeout_s=TIMEOUT_S)[1]
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_evaluate_reports_accuracy(trainer: TrainerChannel) -> None:
    report = trainer.evaluate(make_request(Action.EVALUATE, number=2), make_tensors(), timeout_s=TIMEOUT_S)
    assert report.evaluation is not None
    assert report.round == 2
    assert report.seconds["evaluate"] > 0


def test_a_site_without_t1ce_serves_its_own_network(tmp_path: Path) -> None:
    with serving(read_site(tmp_path, modalities=TWO, cases=4)) as trainer:
        report, trained = trainer.train(make_request(), make_tensors(TWO), timeout_s=TIMEOUT_S)
        assert report.modalities == TWO
        assert not any("t1ce" in name for name in trained)
        with pytest.raises(FederationError) as caught:
            trainer.train(make_request(), make_tensors(MODALITIES), timeout_s=TIMEOUT_S)
        assert caught.value.code is ReasonCode.MODEL


@pytest.mark.parametrize("tasks", [REQUIRED_TASKS, TASKS])
def test_counts_before_preprocessing_are_those_after_it(config: SiteConfig, tmp_path: Path, tasks: tuple[Task, ...]) -> None:
    model = TINY.model_copy(update={"network": TINY.network.model_copy(update={"tasks": tasks})})
    cohort = open_cohort(config)
    cache = SampleCache(tmp_path, TINY.grid)
    samples = {split: [cache.get(case) for case in cases] for split, cases in cohort.cases.items()}
    after = LocalTrainer(model, samples, modalities=config.data.modalities, site="north", device="cpu", threads=1).describe()
    assert describe_cohort(cohort, site="north", model=model) == after
    assert tuple(after.labelled) == tasks


def document(**changes: object) -> str:
    return json.dumps({**make_request().model_dump(mode="json"), **changes})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("not json", ReasonCode.PROTOCOL),
        ("[]", ReasonCode.PROTOCOL),
        (document(protocol=PROTOCOL_VERSION + 1), ReasonCode.PROTOCOL_VERSION),
        (document(protocol=PROTOCOL_VERSION + 1, unknown=1), ReasonCode.PROTOCOL_VERSION),
        (document(model={"version": 2, "other": {}}), ReasonCode.MODEL_DEFINITION),
        (document(model=None), ReasonCode.MODEL_DEFINITION),
        (document(unknown=1), ReasonCode.PROTOCOL),
        (document(round=-1), ReasonCode.PROTOCOL),
        (document(action="evaluate"), ReasonCode.PROTOCOL),
        (document(round=2**31), ReasonCode.PROTOCOL),
        (document(run="\x1b[2J"), ReasonCode.PROTOCOL),
        (document(**{"\x1b[2J" * 1000: 1}), ReasonCode.PROTOCOL),
        (document(protocol=["Jane Doe"] * 1000), ReasonCode.PROTOCOL_VERSION),
        (document().ljust(2**19), ReasonCode.PROTOCOL),
        ('{"model":' * 10_000, ReasonCode.PROTOCOL),
    ],
)
def test_a_request_that_does_not_fit_is_refused_before_anything_else(stub: TrainerStub, text: str, code: ReasonCode) -> None:
    with pytest.raises(ProtocolError) as parsed:
        parse_request(text, action=Action.TRAIN)
    assert parsed.value.code is code
    assert len(parsed.value.explain()) < 500
    assert "\x1b" not in parsed.value.explain()
    with pytest.raises(grpc.RpcError) as caught:
        stub.Train(TaskCall(document=text, tensors=pack_tensors(make_tensors())), timeout=TIMEOUT_S)
    assert caught.value.details() == code.value


def test_a_definition_that_changes_within_a_run_is_refused(trainer: TrainerChannel) -> None:
    other = TINY.model_copy(update={"network": NetworkConfig(channels=(4, 8), blocks=(1, 1), transformer_layers=0)})
    trainer.train(make_request(run="run-2"), make_tensors(), timeout_s=TIMEOUT_S)
    with pytest.raises(FederationError) as caught:
        trainer.train(make_request(run="run-2", model=other), make_tensors(model=other), timeout_s=TIMEOUT_S)
    assert caught.value.code is ReasonCode.MODEL_DEFINITION
    trainer.train(make_request(run="run-3", model=other), make_tensors(model=other), timeout_s=TIMEOUT_S)


def test_tensors_that_do_not_fit_are_refused(stub: TrainerStub, trainer: TrainerChannel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.Train(TaskCall(document=document(), tensors=b"no safetensors"), timeout=TIMEOUT_S)
    assert caught.value.details() == ReasonCode.PROTOCOL.value
    with pytest.raises(FederationError) as refused:
        trainer.train(make_request(), {"decoder.x": np.zeros(1, np.float32)}, timeout_s=TIMEOUT_S)
    assert refused.value.code is ReasonCode.MODEL


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError(f"case {PATIENT} in /data/{PATIENT}"), ReasonCode.TRAINER),
        (MemoryError(PATIENT), ReasonCode.OUT_OF_MEMORY),
        (GmmasError(PATIENT, where=f"/data/{PATIENT}", code=ReasonCode.DATA_GRID), ReasonCode.DATA_GRID),
    ],
)
def test_only_a_reason_code_leaves_the_trainer(
    stub: TrainerStub,
    trainer: TrainerChannel,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    code: ReasonCode,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(LocalTrainer, "train", fail)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Train(TaskCall(document=document(), tensors=pack_tensors(make_tensors())), timeout=TIMEOUT_S)
    answer = caught.value
    assert answer.details() == code.value
    assert PATIENT not in repr(answer) + str(answer.initial_metadata()) + str(answer.trailing_metadata())
    assert PATIENT in caplog.text
    assert trainer.status().last_error == code.value
    assert PATIENT not in str(trainer.status())


@contextmanager
def long_task(trainer: TrainerChannel) -> Iterator[ThreadPoolExecutor]:
    """Run a task of very many steps, which only an end from outside can finish."""
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(trainer.train, make_request(steps=10**5), make_tensors(), timeout_s=TIMEOUT_S)
        wait_until(lambda: trainer.status().state == State.TRAINING and trainer.status().step > 0, what="training")
        yield task
        wait_until(lambda: trainer.status().state != State.TRAINING, what="the end of the task")


def test_cancel_ends_the_running_task(trainer: TrainerChannel) -> None:
    with long_task(trainer) as task:
        trainer.cancel()
        with pytest.raises(FederationError) as caught:
            task.result(TIMEOUT_S)
        assert caught.value.code is ReasonCode.CANCELLED
    trainer.train(make_request(), make_tensors(), timeout_s=TIMEOUT_S)


def test_a_task_ends_with_its_caller(config: SiteConfig, trainer: TrainerChannel) -> None:
    with TrainerChannel(NodeFolder(config.node.state).socket) as caller, ThreadPoolExecutor(1) as pool:
        task = pool.submit(caller.train, make_request(steps=10**5), make_tensors(), timeout_s=TIMEOUT_S)
        wait_until(lambda: trainer.status().step > 0 and trainer.status().state == State.TRAINING, what="training")
        caller.close()
        with pytest.raises(FederationError):
            task.result(TIMEOUT_S)
        wait_until(lambda: trainer.status().state == State.IDLE, what="the end of the task")


@contextmanager
def reading(config: SiteConfig, monkeypatch: pytest.MonkeyPatch, *, calls: int) -> Iterator[threading.Event]:
    """Serve a site whose cohort is read until the event is set, with so many threads for calls."""
    read, read_on, stop = client.trainer_servicer.open_cohort, threading.Event(), threading.Event()

    def wait(config: SiteConfig, **options: Any) -> SiteCohort:
        assert read_on.wait(TIMEOUT_S)
        return read(config, **options)

    monkeypatch.setattr(client.trainer_servicer, "open_cohort", wait)
    monkeypatch.setattr(client.trainer, "CALLS", calls)
    NodeFolder(config.node.state).make()
    with ThreadPoolExecutor(1) as pool:
        served = pool.submit(serve, config, stop=stop)
        try:
            wait_until(NodeFolder(config.node.state).socket.exists, what="the socket")
            yield read_on
        finally:
            read_on.set()
            stop.set()
            served.result(20)


def test_who_waits_for_the_cohort_and_goes_away_keeps_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where reading takes an hour, the coordinator asks every two minutes; the hospital must be answered all the same."""
    config = read_site(tmp_path, cases=2)
    with reading(config, monkeypatch, calls=3) as read_on, TrainerChannel(NodeFolder(config.node.state).socket) as trainer:
        question = make_request(Action.DESCRIBE)
        for ask, request in ((trainer.describe, question), (trainer.admit, make_request()), (trainer.admit, make_request(Action.EVALUATE))):
            for _ in range(2):
                with pytest.raises(FederationError) as caught:
                    ask(request, timeout_s=0.3)
                assert caught.value.code is ReasonCode.DEADLINE
        wait_until(lambda: trainer.status().last_error == ReasonCode.CANCELLED, what="the end of a call that nobody waits for")
        assert trainer.pause().state == State.PAUSED
        assert trainer.resume().state == State.PREPARING
        read_on.set()
        assert trainer.describe(question, timeout_s=TIMEOUT_S).cases > 0, "the cohort is read to its end"


@pytest.mark.parametrize("action", [Action.TRAIN, Action.EVALUATE])
def test_a_request_is_admitted_by_its_document_and_told_the_size_of_its_tensors(trainer: TrainerChannel, action: Action) -> None:
    before = trainer.status().tasks_done
    values = trainer.admit(make_request(action), timeout_s=TIMEOUT_S)
    assert values == sum(value.size for value in make_tensors().values())
    anchored = TINY.model_copy(update={"network": TINY.network.model_copy(update={"prototypes": 2})})
    more = trainer.admit(make_request(action, model=anchored), timeout_s=TIMEOUT_S)
    assert more == sum(value.size for value in make_tensors(model=anchored).values()) > values
    deep = TINY.model_copy(update={"network": NetworkConfig(channels=(2, 4), blocks=(1, 10**6), transformer_layers=0)})
    assert trainer.admit(make_request(action, model=deep), timeout_s=TIMEOUT_S) == LARGEST_MESSAGE_BYTES // 4
    assert trainer.status().tasks_done == before


def test_a_task_ends_with_its_time(trainer: TrainerChannel) -> None:
    with pytest.raises(FederationError) as caught:
        trainer.train(make_request(steps=10**5), make_tensors(), timeout_s=0.5)
    assert caught.value.code is ReasonCode.DEADLINE
    wait_until(lambda: trainer.status().state == State.IDLE, what="the end of the task")


def test_tasks_run_one_after_the_other(trainer: TrainerChannel) -> None:
    with ThreadPoolExecutor(3) as pool:
        tasks = [pool.submit(trainer.train, make_request(number=n), make_tensors(), timeout_s=TIMEOUT_S) for n in (1, 2, 3)]
        assert sorted(task.result(TIMEOUT_S)[0].round for task in tasks) == [1, 2, 3]


def test_pause_refuses_new_tasks_and_holds_the_running_one(trainer: TrainerChannel) -> None:
    with long_task(trainer) as task:
        assert trainer.pause().state == State.PAUSED
        held_at = trainer.status().step
        with pytest.raises(FederationError) as caught:
            trainer.train(make_request(), make_tensors(), timeout_s=TIMEOUT_S)
        assert caught.value.code is ReasonCode.PAUSED
        with pytest.raises(FederationError):
            trainer.describe(make_request(Action.DESCRIBE), timeout_s=TIMEOUT_S)
        assert trainer.status().step <= held_at + 1
        trainer.resume()
        wait_until(lambda: trainer.status().step > held_at + 1, what="further steps")
        trainer.pause(abandon=True)
        with pytest.raises(FederationError) as ended:
            task.result(TIMEOUT_S)
        assert ended.value.code is ReasonCode.PAUSED
    assert trainer.resume().state == State.IDLE


def test_a_pause_outlasts_the_trainer(tmp_path: Path) -> None:
    config = read_site(tmp_path, cases=2)
    with serving(config) as trainer:
        trainer.pause()
    with serving(config) as trainer:
        assert trainer.status().state == State.PAUSED
        assert trainer.resume().state == State.IDLE
    with serving(config) as trainer:
        assert trainer.status().state == State.IDLE


def test_status_streams_the_steps(config: SiteConfig, trainer: TrainerChannel) -> None:
    seen: list[tuple[int, int]] = []
    with TrainerChannel(NodeFolder(config.node.state).socket) as watcher, ThreadPoolExecutor(1) as pool:
        stream = watcher.follow(interval_s=0.02)
        assert next(stream).state == State.IDLE
        task = pool.submit(trainer.train, make_request(steps=20), make_tensors(), timeout_s=TIMEOUT_S)
        for progress in stream:
            seen.append((progress.state, progress.step))
            if task.done() and progress.state == State.IDLE:
                break
    assert any(state == State.TRAINING and 0 < step < 20 for state, step in seen)
    assert [step for _, step in seen if step] == sorted(step for _, step in seen if step)


def test_a_second_trainer_is_refused(config: SiteConfig, trainer: TrainerChannel) -> None:
    with pytest.raises(FederationError, match="already running"):
        serve(config, stop=threading.Event())
    assert trainer.is_ready()


def test_a_trainer_that_is_gone_is_called_unreachable(tmp_path: Path) -> None:
    with TrainerChannel(tmp_path / "trainer.sock") as channel:
        assert not channel.is_ready()
        with pytest.raises(FederationError, match="gmmas site start") as caught:
            channel.train(make_request(), {}, timeout_s=5)
        assert caught.value.code is ReasonCode.TRAINER_UNREACHABLE
