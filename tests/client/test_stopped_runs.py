import inspect
import threading
from pathlib import Path

import httpx
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import start_client_internal
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

import client.executor
from client.stopped_runs import CHECK_S, StoppedRuns
from gmmas_schema.errors import ReasonCode
from tests.client.supernode_api import RUN_ID, SuperNode
from tests.client.test_executor import EagerHeartbeat, app_that, running

CONTENT = RecordDict({"task": ConfigRecord({"document": "hello"})})


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SuperNode:
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "flower"))
    monkeypatch.setattr(client.executor, "POLL_S", 0.02)
    monkeypatch.setattr(client.executor, "HeartbeatSender", EagerHeartbeat)
    return SuperNode(tmp_path)


class Coordinator:
    """Says of a run that it runs, that it was stopped, or nothing."""

    def __init__(self) -> None:
        self.asked, self.fault = [], None

    def get_run(self, run_id: int) -> object:
        self.asked.append(run_id)
        if self.fault is not None:
            raise self.fault
        return object()


def test_the_task_of_a_stopped_run_is_cancelled_at_the_trainer(node: SuperNode) -> None:
    begun, cancelled = threading.Event(), threading.Event()
    now, coordinator = [0.0], Coordinator()
    watch = StoppedRuns(clock=lambda: now[0])
    pull = watch.pulling(lambda **_: RUN_ID)

    def wait(message: Message) -> Message:
        begun.set()
        assert cancelled.wait(20)
        return client.executor.refuse(message, ReasonCode.CANCELLED)

    with node.serve(), running(node, app_that(wait), cancel_task=cancelled.set):
        node.put(CONTENT, message_type="train")
        assert pull(state=node.state, get_run=coordinator.get_run, object_store=None) == RUN_ID
        assert begun.wait(20)
        watch.look()
        assert coordinator.asked == [], "not before its time"
        for fault in (None, httpx.ConnectError("away")):
            now[0] += CHECK_S
            coordinator.fault = fault
            watch.look()
            assert not cancelled.is_set()
        now[0] += CHECK_S
        coordinator.fault = RunNotRunningException()
        watch.look()
        assert cancelled.wait(20)
        assert node.wait_for_reply().has_error(), "Flower's loop waits for a reply"
        assert coordinator.asked == [RUN_ID] * 3


def unfinished(node: SuperNode) -> int:
    return sum(task.status.status != "finished" for task in node.state.get_tasks())


def test_the_task_of_a_message_that_was_given_up_does_not_stand_in_the_way_of_the_next(node: SuperNode) -> None:
    watch = StoppedRuns()
    options = {"state": node.state, "get_run": Coordinator().get_run}

    def give_up(**_: object) -> None:
        node.put(CONTENT, message_type="train")

    assert watch.pulling(give_up)(**options) is None
    assert unfinished(node) == 0
    assert watch.pulling(lambda **_: node.put(CONTENT, message_type="train") and RUN_ID)(**options) == RUN_ID
    assert unfinished(node) == 1
    assert watch.pulling(lambda **_: None)(**options) is None
    assert unfinished(node) == 1, "the executor may be about to finish what it has answered"
    assert node.replies() == []


def test_of_another_run_than_that_of_the_message_in_hand_no_reply_is_made_up(node: SuperNode) -> None:
    now, coordinator = [0.0], Coordinator()
    watch = StoppedRuns(clock=lambda: now[0])
    begun, cancelled = threading.Event(), threading.Event()

    def wait(message: Message) -> Message:
        begun.set()
        assert cancelled.wait(20)
        return client.executor.refuse(message, ReasonCode.CANCELLED)

    with node.serve(), running(node, app_that(wait), cancel_task=cancelled.set):
        node.put(CONTENT, message_type="train")
        watch.pulling(lambda **_: RUN_ID + 1)(state=node.state, get_run=coordinator.get_run)
        assert begun.wait(20)
        now[0], coordinator.fault = CHECK_S, RunNotRunningException()
        watch.look()
        assert cancelled.wait(20)
        assert node.replies() == []


def test_nothing_is_asked_before_the_first_message() -> None:
    StoppedRuns(clock=lambda: 1e9).look()


def test_flower_still_works_as_this_relies_upon() -> None:
    loop = inspect.getsource(start_client_internal.start_client_internal)
    assert "_pull_and_store_message(\n                state=state," in loop
    assert "get_run=get_run," in loop
    assert "error_reply" in inspect.getsource(InMemoryNodeState._store_error_replies)
    assert list(inspect.signature(InMemoryNodeState._on_task_tokens_expired).parameters) == ["self", "tasks"]
