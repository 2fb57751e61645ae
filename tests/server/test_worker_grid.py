"""Sites in worker processes: every message is answered once, few at a time, and a worker that dies costs its site one answer."""

import os
import signal
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.common.constant import ErrorCode

from server.worker_grid import WorkerGrid


class Echo:
    """Answers with its own name and process, and leaves a mark on disk that it was asked."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder

    def __call__(self, message, context):
        (self.folder / self.name).write_text(str(context.node_id))
        return Message(RecordDict({"a": ConfigRecord({"name": self.name, "pid": os.getpid()})}), reply_to=message)


class Dies(Echo):
    def __call__(self, message, context):
        if not (self.folder / self.name).exists():
            (self.folder / self.name).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(message, context)


class Fails(Echo):
    def __call__(self, message, context):
        raise RuntimeError("planted")


def request(node):
    return Message(RecordDict({"q": ConfigRecord({"x": 1})}), node, "query")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("marks")


def test_replies_come_from_workers_and_memory_holds_few_of_them(folder):
    clients = {node: Echo(f"site{node}", folder) for node in range(100, 112)}
    with WorkerGrid(clients, processes=2) as grid:
        identifiers = grid.push_messages([request(node) for node in clients])
        while not grid._at_work or not all(future.done() for _, future in grid._at_work.values()):
            grid.sleep(1.0)
        # Nobody has pulled: three answers wait, and nobody else has been asked.
        assert len(list(folder.iterdir())) == 3
        replies = []
        while len(replies) < 12:
            replies += grid.pull_messages(identifiers)
            assert len(grid._at_work) <= 3
            grid.sleep(1.0)
        assert grid.pull_messages(identifiers) == []
    assert {reply.metadata.reply_to_message_id for reply in replies} == set(identifiers)
    assert {reply.content["a"]["name"] for reply in replies} == {client.name for client in clients.values()}
    assert os.getpid() not in {reply.content["a"]["pid"] for reply in replies}


def test_faults_of_a_site_and_of_a_worker_are_answered_for(folder):
    clients = {5: Dies("dies", folder), 6: Fails("fails", folder), 7: Echo("good", folder)}
    with WorkerGrid(clients, processes=1) as grid:
        replies = {reply.metadata.src_node_id: reply for reply in grid.send_and_receive([request(6)])}
        replies |= {reply.metadata.src_node_id: reply for reply in grid.send_and_receive([request(5)])}
        assert replies[6].error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
        assert "planted" in replies[6].error.reason
        assert replies[5].error.code == ErrorCode.CLIENT_APP_CRASHED
        (again,) = grid.send_and_receive([request(5)])
        assert again.has_content()
        grid.take_offline(7)
        (gone,) = grid.send_and_receive([request(7)])
        assert gone.error.code == ErrorCode.NODE_UNAVAILABLE


def test_an_interruption_does_not_wait_for_the_workers(folder):
    class Interruption(BaseException):
        pass

    def work():
        with WorkerGrid({5: Sleeps("sleeps", folder)}, processes=1) as grid:
            grid.push_messages([request(5)])
            while not (folder / "sleeps").exists():
                grid.sleep(0.05)
            raise Interruption

    with pytest.raises(Interruption):
        work()


class Sleeps(Echo):
    def __call__(self, message, context):
        reply = super().__call__(message, context)
        signal.pause()
        return reply
