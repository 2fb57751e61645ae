"""Flower's own HttpGrid over a client that has the replies at hand: what is asked, and when."""

import gc
import inspect
import json
import weakref

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, ObjectTree, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects, get_object_id, get_object_tree
from flwr.supercore.inflatable.inflatable_utils import validate_object_content
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from gmmas_schema.errors import ReasonCode
from gmmas_schema.messages import Action, TaskRequest
from server import arrivals
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
    first = next(arrived)[1]
    assert client.asked[0] == ["a", "b", "c"]
    objects = client.asked.count("object")
    assert client.asked.count("confirm") == 1
    second = next(arrived)[1]
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


def made(kind, body, *children):
    """Return an object as a node may put it together, by its name."""
    content = f"{kind} {','.join(children)} {len(body)}".encode() + b"\x00" + body
    validate_object_content(content)
    return get_object_id(content), content


def array_of(piece, times):
    facts = {"dtype": "uint8", "shape": [1], "stype": "numpy.ndarray", "arraychunk_ids": [0] * times}
    return made("Array", json.dumps(facts).encode(), piece)


def message_of(client, child):
    """Return a message whose outside is a good one's."""
    client.put("a", content(1))
    whole = client.objects[client.replies["a"][0].metadata.message_id]
    return made("Message", whole.partition(b"\x00")[2], child)


def spoilt(client, *objects):
    """Put a good reply, and other objects in the place of it: the last is what the SuperLink calls the message."""
    client.put("a", content(1))
    name = objects[-1][0]
    message, _ = client.replies["a"]
    message.metadata.message_id = name
    client.objects |= dict(objects)
    client.replies["a"] = message, ObjectTree(object_id=name, children=[ObjectTree(object_id=each) for each, _ in objects[:-1]])


NOTHING = made("ConfigRecord", b"")


@pytest.mark.parametrize(
    "objects",
    [
        [made("Message", b"\xff\xff")],
        [made("Message", b"")],
        [NOTHING],
        [made("RecordDict", b"no JSON")],
        [made("ConfigRecord", b"\xff\xff")],
        [made("Array", b"{}")],
    ],
)
def test_what_is_no_message_is_its_senders_fault_alone(grid, client, objects):
    spoilt(client, *objects)
    client.put("b", content(2))
    replies = {reply.letter.message_id: reply for reply in Courier(grid, Clock().timing()).gather(letters("a", "b"), timeout_s=5)}
    assert (replies["a"].content, replies["a"].code) == (None, ReasonCode.PROTOCOL)
    assert read_request(replies["b"].content)[0].seed == 2


def test_a_message_of_something_else_than_records_is_none(grid, client):
    spoilt(client, NOTHING, message_of(client, NOTHING[0]))
    (reply,) = Courier(grid, Clock().timing()).gather(letters("a"), timeout_s=5)
    assert reply.code is ReasonCode.PROTOCOL


def test_a_reply_is_not_put_together_beyond_what_any_can_hold(grid, client, monkeypatch):
    """A hundred bytes that name one piece a million times would fill the memory."""
    piece = made("ArrayChunk", bytes(1000))
    for times, code in ((10, None), (11, ReasonCode.PROTOCOL)):
        array = array_of(piece[0], times)
        arrays = made("ArrayRecord", json.dumps({"tensors": array[0]}).encode(), array[0])
        records = made("RecordDict", json.dumps({"arrays": arrays[0]}).encode(), arrays[0])
        spoilt(client, piece, array, arrays, records, message_of(client, records[0]))
        monkeypatch.setattr(arrivals, "LARGEST_REPLY_BYTES", 10 * len(piece[1]))
        (reply,) = Courier(grid, Clock().timing()).gather(letters("a"), timeout_s=5)
        assert reply.code is code
        assert client.asked.count("confirm") == times - 9, "the SuperLink may forget it"
    monkeypatch.setattr(arrivals, "LARGEST_REPLY_BYTES", 10)
    client.put("a", content(1))
    (reply,) = Courier(grid, Clock().timing()).gather(letters("a"), timeout_s=5)
    assert reply.code is ReasonCode.PROTOCOL


def test_a_reply_answers_what_the_superlink_says_and_not_what_it_says_itself(grid, client):
    client.put("a", content(1))
    message, tree = client.replies.pop("a")
    message.metadata.reply_to_message_id = "b"
    client.replies["b"] = message, tree
    replies = {reply.letter.message_id: reply for reply in Courier(grid, Clock().timing()).gather(letters("a", "b"), timeout_s=1)}
    assert replies["a"].code is ReasonCode.DEADLINE
    assert read_request(replies["b"].content)[0].seed == 1


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
