"""Flower's own HttpGrid over a client that has the replies at hand: what is asked, and when."""

import gc
import inspect
import weakref

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_tree
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from gmmas_schema.errors import ReasonCode
from gmmas_schema.messages import Action, TaskRequest
from server.arrivals import pull_ready
from server.courier import Courier, Letter, Node
from strategies.codec import pack_tensors, read_request, write_request
from tests.server.simulated_sites import TINY, Clock

REQUEST = TaskRequest(action=Action.TRAIN, run="r", round=1, rounds=2, seed=0, model=TINY)


class Client:
    """Has the reply to some requests; notes what it is asked."""

    def __init__(self):
        self.replies, self.objects, self.asked = {}, {}, []

    def put(self, request_id, content):
        message = Message(content, 7, "train")
        message.metadata.__dict__["_reply_to_message_id"] = request_id
        message.metadata.__dict__["_message_id"] = message.object_id
        self.objects |= {key: each.deflate() for key, each in get_all_nested_objects(message).items()}
        self.replies[request_id] = (message_to_proto(remove_content_from_message(message)), get_object_tree(message))

    def PullMessages(self, request):
        self.asked.append(sorted(request.message_ids))
        found = [self.replies.pop(each) for each in request.message_ids if each in self.replies]
        return PullAppMessagesResponse(messages_list=[m for m, _ in found], message_object_trees=[t for _, t in found])

    def PullObject(self, request):
        self.asked.append("object")
        content = self.objects.get(request.object_id)
        return PullObjectResponse(object_found=content is not None, object_available=bool(content), object_content=content or b"")

    def ConfirmMessageReceived(self, request):
        self.asked.append("confirm")
        return ConfirmMessageReceivedResponse()


@pytest.fixture
def client(monkeypatch):
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1, raising=False)
    return Client()


@pytest.fixture
def grid(client):
    grid = HttpGrid(token="t")
    grid._client = client
    grid.set_run(Run.create_empty(1))
    return grid


def content(seed):
    tensors = {"fusion.0": np.full(1000, seed, np.float32)}
    return write_request(REQUEST.model_copy(update={"seed": seed}), pack_tensors(tensors))


def letters(*names):
    return {name: Letter(Node(index, ""), name, 0.0, 0) for index, name in enumerate(names)}


def test_one_question_for_all_and_contents_in_turn(grid, client):
    client.put("a", content(1))
    client.put("b", content(2))
    arrived = pull_ready(grid, ["a", "b", "c"])
    first = next(arrived)
    assert client.asked[0] == ["a", "b", "c"]
    objects = client.asked.count("object")
    assert client.asked.count("confirm") == 1
    second = next(arrived)
    assert client.asked.count("object") == 2 * objects
    assert client.asked.count("confirm") == 2
    assert {read_request(m.content)[0].seed for m in (first, second)} == {1, 2}
    assert next(arrived, None) is None
    assert sum(isinstance(each, list) for each in client.asked) == 1
    assert grid._client is client


def test_no_reply_is_held_while_the_next_one_is_fetched(grid, client):
    client.put("a", content(1))
    client.put("b", content(2))
    courier = Courier(grid, Clock().timing())
    seen = []
    for reply in courier.gather(letters("a", "b"), timeout_s=5):
        gc.collect()
        assert all(earlier() is None for earlier in seen)
        seen.append(weakref.ref(reply.content))
        del reply
    assert len(seen) == 2


def test_a_reply_whose_objects_are_gone_is_a_code(grid, client):
    client.put("a", content(1))
    client.objects.clear()
    courier = Courier(grid, Clock().timing())
    (reply,) = courier.gather(letters("a"), timeout_s=5)
    assert reply.content is None
    assert reply.code is ReasonCode.DEADLINE


def test_replies_to_nobodys_letter_are_dropped(grid, client):
    class Confused(Client):
        def PullMessages(self, request):
            request.message_ids.append("other")
            return super().PullMessages(request)

    confused = Confused()
    grid._client = confused
    confused.put("other", content(1))
    (reply,) = Courier(grid, Clock().timing()).gather(letters("a"), timeout_s=1)
    assert reply.code is ReasonCode.DEADLINE


def test_other_grids_are_asked_one_by_one(client):
    asked = []

    class Grid:
        def pull_messages(self, identifiers):
            asked.append(list(identifiers))
            return [Message(RecordDict(), 7, "train")] if identifiers == ["b"] else []

    assert len(list(pull_ready(Grid(), ["a", "b"]))) == 1
    assert asked == [["a"], ["b"]]


def test_flowers_grid_still_asks_as_this_relies_upon():
    source = inspect.getsource(HttpGrid.pull_messages)
    assert source.count("self._runtime_client.PullMessages(") == 1
    assert isinstance(HttpGrid._runtime_client, property)
    assert "self._client" in inspect.getsource(HttpGrid._runtime_client.fget)
