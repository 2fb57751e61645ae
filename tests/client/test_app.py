import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.app.metadata import Metadata

from client.app import AUDIT_VARIABLE, KEY_VARIABLE, SOCKET_VARIABLE, STATE_VARIABLE, app, site_wire
from client.audit_line import AuditKind
from client.audit_verification import read_lines
from client.folder import NodeFolder
from client.trainer_channel import TrainerChannel
from client.trainer_service_pb2 import State
from gmmas_schema.errors import ReasonCode
from gmmas_schema.messages import DOCUMENT, TASK, Action, TaskRequest
from gmmas_schema.policy import SitePolicy
from gmmas_schema.secure import SECURE_MESSAGE, PhaseReply, PhaseRequest, SecureTask
from gmmas_schema.site import SiteConfig
from gmmas_schema.strategy import HoldersStrategy
from gmmas_schema.vocabulary import Split
from gmmas_schema.wire import WireConfig
from gmmas_workflows.training import LocalTrainer
from strategies.codec import Float32, Parcel, pack_tensors, read_description, read_report, write_request
from strategies.content_hash import hash_tensors
from strategies.encoding import Bytes, Precision, Segment, decode
from strategies.secure.documents import Advertisement
from strategies.secure.vectors import group_hashes, group_sizes
from strategies.secure_letters import write_phase
from strategies.weighting import as_averaged
from tests.client.serving import make_tensors, serving
from tests.client.sites import PATIENT, make_request, read_site
from tests.gmmas_runtime.waiting import wait_until
from tests.strategies.secure.attempts import make_terms

CONTEXT = Context(run_id=1, node_id=2, node_config={}, state=RecordDict(), run_config={})


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteConfig]:
    site = read_site(tmp_path_factory.mktemp("site"))
    with serving(site):
        yield site


@pytest.fixture
def site(config: SiteConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SiteConfig:
    monkeypatch.setenv(SOCKET_VARIABLE, str(NodeFolder(config.node.state).socket))
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "training"))
    site_wire.cache_clear()
    return config


def send(content: RecordDict | None, *, message_type: str, age_s: float = 0.0, ttl_s: float = 30.0) -> Message:
    """Hand a message to the app as an executor does."""
    metadata = Metadata(
        run_id=1,
        message_id="message",
        src_node_id=1,
        dst_node_id=2,
        reply_to_message_id="",
        group_id="1",
        created_at=time.time() - age_s,
        ttl=ttl_s,
        message_type=message_type,
    )
    message = Message.__new__(Message)
    message.__dict__.update({"_metadata": metadata, "_content": content, "_error": None})
    return app(message, CONTEXT)


def test_query_answers_with_counts(site: SiteConfig) -> None:
    reply = send(write_request(make_request(Action.DESCRIBE)), message_type="query")
    assert read_description(reply.content).site == "north"
    assert reply.metadata.reply_to_message_id == "message"


def test_train_answers_with_tensors_and_report(site: SiteConfig) -> None:
    tensors = make_tensors()
    reply = send(write_request(make_request(), pack_tensors(tensors)), message_type="train")
    report, trained = read_report(reply.content)
    assert report.steps == 2
    assert report.evaluation is not None
    assert trained
    assert all(trained[name].shape == tensors[name].shape for name in trained)


def test_evaluate_answers_with_accuracy_and_no_tensors(site: SiteConfig) -> None:
    reply = send(write_request(make_request(Action.EVALUATE), pack_tensors(make_tensors())), message_type="evaluate")
    report, tensors = read_report(reply.content)
    assert report.evaluation is not None
    assert report.evaluation.split is Split.VALIDATION
    assert tensors == {}


def named(request: TaskRequest, digest: str) -> Message:
    return send(write_request(request, digest=digest), message_type=request.action.value)


def test_a_resident_process_evaluates_the_model_it_trained_from_by_its_hash(site: SiteConfig) -> None:
    tensors, evaluation = make_tensors(), make_request(Action.EVALUATE)
    send(write_request(make_request(), pack_tensors(tensors)), message_type="train")
    by_hash, _ = read_report(named(evaluation, hash_tensors(tensors)).content)
    in_full, _ = read_report(send(write_request(evaluation, pack_tensors(tensors)), message_type="evaluate").content)
    assert by_hash.evaluation == in_full.evaluation


def test_a_new_process_says_that_it_needs_the_model(site: SiteConfig) -> None:
    tensors = make_tensors()
    send(write_request(make_request(), pack_tensors(tensors)), message_type="train")
    site_wire.cache_clear()
    assert named(make_request(Action.EVALUATE), hash_tensors(tensors)).error.reason == ReasonCode.MODEL_NEEDED.value


def train_two_rounds(*, restart: bool) -> list[bytes]:
    """Return what a site with a lossy wire sends; its process may be a new one in round 2."""
    sent = []
    for number in (1, 2):
        if restart:
            site_wire.cache_clear()
        request = make_request(number=number).model_copy(update={"wire": WireConfig(up="int8", top_k=0.1)})
        reply = send(write_request(request, pack_tensors(make_tensors())), message_type="train")
        sent.append(reply.content["arrays"]["tensors"].data)
    return sent


def test_what_a_lossy_wire_owes_outlives_the_process(site: SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = train_two_rounds(restart=True)
    files = sorted((tmp_path / "training").iterdir())
    assert [file.name for file in files] == ["feedback-000001.safetensors", "feedback-000002.safetensors"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    monkeypatch.setenv(STATE_VARIABLE, str(tmp_path / "of-one-process"))
    assert train_two_rounds(restart=False) == sent
    monkeypatch.delenv(STATE_VARIABLE)
    site_wire.cache_clear()
    first, second = train_two_rounds(restart=True)
    assert first == sent[0]
    assert second != sent[1], "a process without a folder forgets"


def test_a_task_ends_when_nobody_has_use_for_its_answer_any_more(site: SiteConfig) -> None:
    request = make_request(steps=100_000)
    late = send(write_request(request, pack_tensors(make_tensors())), message_type="train", age_s=597.0, ttl_s=600.0)
    assert late.error.reason == ReasonCode.DEADLINE.value
    with TrainerChannel(NodeFolder(site.node.state).socket) as trainer:
        wait_until(lambda: trainer.status().state == State.IDLE, what="the end of the training")
        assert 0 < trainer.status().step < 100_000


def test_a_request_that_came_too_late_is_not_begun(site: SiteConfig) -> None:
    reply = send(write_request(make_request(), pack_tensors(make_tensors())), message_type="train", age_s=31.0)
    assert reply.error.reason == ReasonCode.DEADLINE.value


def test_a_clock_that_is_behind_gives_no_more_than_the_time_to_live(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    describe = TrainerChannel.describe
    monkeypatch.setattr(
        TrainerChannel,
        "describe",
        lambda own, request, *, timeout_s: asked.append(timeout_s) or describe(own, request, timeout_s=timeout_s),
    )
    send(write_request(make_request(Action.DESCRIBE)), message_type="query", age_s=-200.0)
    assert asked == [30.0]


def spoilt(**changes: object) -> RecordDict:
    text = make_request().model_copy(update=changes).model_dump_json()
    return RecordDict({TASK: ConfigRecord({DOCUMENT: text})})


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (RecordDict(), ReasonCode.PROTOCOL),
        (RecordDict({"code": ConfigRecord({"python": "print(1)"})}), ReasonCode.PROTOCOL),
        (spoilt(protocol=99), ReasonCode.PROTOCOL_VERSION),
        (spoilt(action=Action.EVALUATE), ReasonCode.PROTOCOL),
        (RecordDict({"arrays": ArrayRecord([np.zeros(1, np.float32)])}), ReasonCode.PROTOCOL),
        (None, ReasonCode.PROTOCOL),
    ],
)
def test_a_message_that_does_not_fit_is_answered_with_a_reason_code(site: SiteConfig, content: RecordDict | None, code: ReasonCode) -> None:
    reply = send(content, message_type="train")
    assert reply.has_error()
    assert reply.error.reason == code.value


@contextmanager
def nothing_unpacked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Count the tensors of messages that are unpacked inside: there must be none. (The trainer has a format of its own.)"""
    unpacked: list[str] = []

    def count(segment: Segment, data: Bytes) -> Float32:
        unpacked.append(segment.name)
        return decode(segment, data)

    with monkeypatch.context() as patch:
        patch.setattr("strategies.codec.decode", count)
        yield
    assert unpacked == []


def code_of(content: RecordDict, action: Action) -> str:
    return str(send(content, message_type=action.value).error.reason)


def contents(parcel: Parcel) -> list[tuple[Action, RecordDict]]:
    return [(action, write_request(make_request(action), parcel)) for action in (Action.TRAIN, Action.EVALUATE)]


def test_a_paused_site_unpacks_nothing(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    messages = contents(pack_tensors(make_tensors()))
    with TrainerChannel(NodeFolder(site.node.state).socket) as trainer, nothing_unpacked(monkeypatch):
        trainer.pause()
        try:
            assert [code_of(content, action) for action, content in messages] == [ReasonCode.PAUSED.value] * 2
        finally:
            trainer.resume()
    for action, content in messages:
        assert not send(content, message_type=action.value).has_error()


def test_what_the_policy_refuses_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = read_site(tmp_path, cases=4).model_copy(update={"policy": SitePolicy(tasks=())})
    messages = contents(pack_tensors(make_tensors()))
    monkeypatch.setenv(SOCKET_VARIABLE, str(NodeFolder(config.node.state).socket))
    site_wire.cache_clear()
    with serving(config), nothing_unpacked(monkeypatch):
        assert [code_of(content, action) for action, content in messages] == [ReasonCode.POLICY_TASK.value] * 2
    refusals = list(read_lines(NodeFolder(config.node.state).audit_log))[-2:]
    assert [(line.kind, line.verdict) for line in refusals] == [(AuditKind.TRAIN, "E_POLICY_TASK"), (AuditKind.EVALUATE, "E_POLICY_TASK")]


@pytest.mark.parametrize("precision", [Precision(), Precision("f2")])
def test_tensors_beyond_the_network_of_their_request_are_not_unpacked(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    tensors = make_tensors()
    values = sum(value.size for value in tensors.values())
    larger = tensors | {"fusion.more": np.zeros(1, np.float32)}
    assert write_request(make_request(), pack_tensors(tensors))
    for spoilt in (larger, {"fusion.more": np.zeros(values + 1, np.float32)}):
        messages = contents(pack_tensors(spoilt, precision_of=lambda _: precision))
        with nothing_unpacked(monkeypatch):
            assert [code_of(content, action) for action, content in messages] == [ReasonCode.PROTOCOL.value] * 2


@pytest.mark.parametrize("top_k", [None, 0.01])
def test_changes_do_not_come_down_for_a_few_bytes_of_them_stand_for_much_memory(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch, top_k: float | None
) -> None:
    messages = contents(pack_tensors(make_tensors(), precision_of=lambda _: Precision("i1", top_k=top_k)))
    with nothing_unpacked(monkeypatch):
        assert [code_of(content, action) for action, content in messages] == [ReasonCode.PROTOCOL.value] * 2


def test_tensors_that_come_with_a_question_are_not_looked_at(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write_request(make_request(Action.DESCRIBE), pack_tensors(make_tensors()))
    with nothing_unpacked(monkeypatch):
        assert read_description(send(content, message_type="query").content).site == "north"


def test_a_planted_patient_name_does_not_leave(site: SiteConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"{PATIENT} in /data/{PATIENT}_t1.nii.gz")

    monkeypatch.setattr(LocalTrainer, "train", fail)
    reply = send(write_request(make_request(), pack_tensors(make_tensors())), message_type="train")
    assert reply.error.reason == ReasonCode.TRAINER.value
    assert PATIENT not in repr(reply.error) + repr(reply.metadata)
    assert PATIENT in caplog.text


def test_a_failure_of_the_app_itself_does_not_leave(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError(PATIENT)

    monkeypatch.setattr("client.app.site_wire", fail)
    assert send(write_request(make_request()), message_type="train").error.reason == ReasonCode.TRAINER.value


def test_no_trainer_is_a_reason_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SOCKET_VARIABLE, str(tmp_path / "trainer.sock"))
    reply = send(write_request(make_request(Action.DESCRIBE)), message_type="query")
    assert reply.error.reason == ReasonCode.TRAINER_UNREACHABLE.value
    monkeypatch.delenv(SOCKET_VARIABLE)
    assert send(write_request(make_request(Action.DESCRIBE)), message_type="query").error.reason == ReasonCode.CONFIG.value


def test_the_executor_side_is_free_of_torch() -> None:
    program = "import client.app, client.executor, sys; sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, timeout=60).returncode == 0


def make_secure_request(tensors: dict[str, np.ndarray]) -> TaskRequest:
    request = make_request()
    task = SecureTask(terms="", strategy=HoldersStrategy())
    averaged = as_averaged(tensors, task.strategy)
    model = {"sizes": group_sizes(averaged), "model": group_hashes(averaged)}
    terms = make_terms(invited=("east", "north", "south"), run=request.run, number=request.round, **model)
    terms = terms.model_copy(update={"subject": task.subject(request.subject())})
    return request.model_copy(update={"secure": task.model_copy(update={"terms": terms.model_dump_json()})})


def test_in_a_secure_round_keys_leave_in_place_of_tensors(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, str(site.node.private_key))
    tensors = make_tensors()
    content = send(write_request(make_secure_request(tensors), pack_tensors(tensors)), message_type="train").content
    report, trained = read_report(content)
    assert trained == {}
    keys = Advertisement.model_validate_json(report.secure)
    assert keys.site == "north"
    assert "encoder.flair" in keys.seeds
    phase = write_phase(PhaseRequest(run=report.run, round=report.round, attempt="", phase=2), b"{}")
    assert send(phase, message_type=SECURE_MESSAGE).error.reason == ReasonCode.PROTOCOL.value


def test_a_paused_site_lets_no_masked_update_leave_either(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = NodeFolder(site.node.state)
    monkeypatch.setenv(KEY_VARIABLE, str(site.node.private_key))
    monkeypatch.setenv(AUDIT_VARIABLE, str(folder.audit_log))
    monkeypatch.setattr("client.app.SecureSite.answer", lambda *_: write_phase(PhaseReply(site="north", run="r", round=1, phase=2), b"m"))
    question = write_phase(PhaseRequest(run="r", round=1, attempt="", phase=2), b"{}")
    folder.paused.touch()
    try:
        assert send(question, message_type=SECURE_MESSAGE).error.reason == ReasonCode.PAUSED.value
    finally:
        folder.paused.unlink()
    assert not send(question, message_type=SECURE_MESSAGE).has_error()
    refused, answered = list(read_lines(folder.audit_log))[-2:]
    assert (refused.code, answered.code) == (ReasonCode.PAUSED, None)


def test_a_process_without_the_key_refuses_a_secure_round_before_it_trains(site: SiteConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalTrainer, "train", lambda *_, **__: pytest.fail("it trained"))
    tensors = make_tensors()
    reply = send(write_request(make_secure_request(tensors), pack_tensors(tensors)), message_type="train")
    assert reply.error.reason == ReasonCode.CONFIG.value
