import inspect
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.interceptors import RuntimeTokenHttpInterceptor, RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.retry import RetryInvoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime import run_clientapp

import client.executor
from client.executor import Executor, main
from gmmas_schema.errors import ReasonCode
from tests.client.sites import PATIENT
from tests.client.supernode_api import SuperNode

CONTENT = RecordDict({"task": ConfigRecord({"document": "hello"})})


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SuperNode:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    monkeypatch.setattr(client.executor, "POLL_S", 0.02)
    monkeypatch.setattr(client.executor, "LONGEST_BACK_OFF_S", 0.1)
    return SuperNode(tmp_path)


@contextmanager
def running(node: SuperNode, app: ClientApp, *, cancel_task: Callable[[], None] = lambda: None) -> Iterator[Executor]:
    executor = Executor(node.address, app, cancel_task=cancel_task)
    thread = threading.Thread(target=executor.run)
    thread.start()
    try:
        yield executor
    finally:
        executor.stop()
        thread.join(15)
        assert not thread.is_alive()


def app_that(work: Callable[[Message], Message]) -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return work(message)

    return app


def echo(message: Message) -> Message:
    return Message(message.content, reply_to=message)


def test_a_task_is_answered_by_the_local_app_and_the_shipped_bundle_is_not_touched(node: SuperNode) -> None:
    with node.serve(), running(node, app_that(echo)):
        first = node.put(CONTENT, message_type="train")
        assert node.wait_for_reply().metadata.reply_to_message_id == first.metadata.message_id
        second = node.put(CONTENT, message_type="train")
        reply = node.wait_for_reply()
    assert reply.metadata.reply_to_message_id == second.metadata.message_id
    assert not reply.has_error()
    assert b"hello" in node.stored_bytes()
    assert not (node.folder / "flower").exists()


def test_what_an_app_raises_stays_here(node: SuperNode) -> None:
    def fail(message: Message) -> Message:
        raise RuntimeError(f"{PATIENT} in /data/{PATIENT}.nii.gz")

    with node.serve(), running(node, app_that(fail)):
        node.put(CONTENT, message_type="train")
        reply = node.wait_for_reply()
        node.wait_for_end_of_task()
        details = [task.status.details for task in node.state.get_tasks()]
    assert reply.error.reason == ReasonCode.PROTOCOL.value
    assert details == [ReasonCode.PROTOCOL.value]
    assert PATIENT.encode() not in node.stored_bytes()


def test_a_message_type_without_a_handler_gets_a_reason_code(node: SuperNode) -> None:
    with node.serve(), running(node, app_that(echo)):
        node.put(CONTENT, message_type="train.something")
        assert node.wait_for_reply().error.reason == ReasonCode.PROTOCOL.value


def test_an_absent_supernode_is_waited_for(node: SuperNode) -> None:
    node.put(CONTENT, message_type="train")
    with running(node, app_that(echo)):
        for _ in range(2):
            with node.serve():
                node.wait_for_reply()
                node.wait_for_end_of_task()
            node.put(CONTENT, message_type="train")


def test_a_stop_cancels_the_running_task_and_answers_it(node: SuperNode) -> None:
    begun, cancelled = threading.Event(), threading.Event()

    def wait(message: Message) -> Message:
        begun.set()
        assert cancelled.wait(10)
        return client.executor.refuse(message, ReasonCode.CANCELLED)

    with node.serve():
        with running(node, app_that(wait), cancel_task=cancelled.set):
            node.put(CONTENT, message_type="train")
            assert begun.wait(10)
        assert node.wait_for_reply().error.reason == ReasonCode.CANCELLED.value


def test_a_task_the_supernode_has_given_up_is_cancelled(node: SuperNode, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, cancelled = threading.Event(), threading.Event()
    monkeypatch.setattr(client.executor, "HeartbeatSender", EagerHeartbeat)

    def wait(message: Message) -> Message:
        begun.set()
        assert cancelled.wait(10)
        return client.executor.refuse(message, ReasonCode.CANCELLED)

    with node.serve(), running(node, app_that(wait), cancel_task=cancelled.set):
        node.put(CONTENT, message_type="train")
        assert begun.wait(10)
        task = node.state.get_tasks()[0]
        node.state.finish_task(task.task_id, "stopped", "")
        assert cancelled.wait(10)


def test_a_wrong_secret_gets_no_task(node: SuperNode) -> None:
    node.put(CONTENT, message_type="train")
    with node.serve(secret=b"another secret"), running(node, app_that(echo)):
        threading.Event().wait(0.3)
        assert [task.status.status for task in node.state.get_tasks()] == ["pending"]


class EagerHeartbeat(HeartbeatSender):
    """Beats every 50 ms."""

    def _run(self) -> None:
        while not self._stop_event.wait(0.05):
            self._heartbeat()


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (run_clientapp.pull_task_input, ["client"]),
        (run_clientapp.push_message, ["client", "message", "context"]),
        (run_clientapp.push_task_output, ["client", "context", "sub_status", "details"]),
        (HeartbeatSender, ["heartbeat_fn"]),
        (RuntimeTokenHttpInterceptor, ["token"]),
        (RuntimeVersionHttpInterceptor, ["component_name"]),
        (SuperExecAuthHttpInterceptor, ["master_secret", "protected_methods"]),
        (
            RuntimeHttpClient.from_server_address,
            ["server_address", "insecure", "root_certificates", "interceptors", "retry_invoker"],
        ),
        (RuntimeHttpClient.AcquireTask, ["self", "request"]),
        (RuntimeHttpClient.SendTaskHeartbeat, ["self", "request"]),
    ],
)
def test_flower_still_has_what_the_executor_uses(function: Callable[..., object], parameters: list[str]) -> None:
    assert list(inspect.signature(function).parameters) == parameters


def test_flower_still_retries_as_configured() -> None:
    needed = {"wait_gen_factory", "recoverable_exceptions", "max_tries", "max_time", "should_giveup"}
    assert needed <= set(inspect.signature(RetryInvoker).parameters)
    assert TaskType.CLIENT_APP == "flwr-clientapp"


def test_missing_files_end_the_process_with_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GMMAS_SITE_SOCKET", str(tmp_path / "trainer.sock"))
    missing = str(tmp_path / "missing")
    code = main(["--runtime-api-address", "127.0.0.1:1", "--root-certificates", missing, "--superexec-auth-secret-file", missing])
    assert code == 78
    assert missing in caplog.text


def test_no_socket_in_the_environment_ends_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("GMMAS_SITE_SOCKET", raising=False)
    code = main(["--runtime-api-address", "127.0.0.1:1", "--root-certificates", "x", "--superexec-auth-secret-file", "x"])
    assert code == 78
    assert "GMMAS_SITE_SOCKET" in caplog.text
