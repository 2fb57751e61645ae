"""What server.courier relies on in flwr 1.41, seen on Flower's own link state: it must fail here first when Flower changes."""

import secrets
import sys
from datetime import UTC, datetime, timedelta

import pytest
from flwr.app import Error, Message
from flwr.server.superlink.linkstate import LinkStateFactory, sql_linkstate, utils
from flwr.server.utils import validator
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.grid import InMemoryGrid

from gmmas_schema.errors import ReasonCode
from gmmas_schema.messages import Action, TaskRequest
from gmmas_schema.secure import SECURE_MESSAGE, PhaseReply, PhaseRequest
from server.courier import Courier
from strategies.codec import read_request, write_request
from strategies.secure_letters import read_phase_reply, read_phase_request, write_phase
from tests.server.simulated_sites import TINY, Clock

pytestmark = pytest.mark.filterwarnings("ignore:No path_separator found:DeprecationWarning")  # Flower's own Alembic set-up

REQUEST = TaskRequest(action=Action.TRAIN, run="r", round=1, rounds=2, seed=0, model=TINY)
HEARTBEAT_S = 30.0


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    """The state of a SuperLink with a database on disk, as deployed."""
    database = str(tmp_path_factory.mktemp("link") / "superlink.db")
    factory = LinkStateFactory(database, NoOpFederationManager(), ObjectStoreFactory(database))
    factory.state().federation_manager.linkstate = factory.state()
    return factory


class Link:
    """A SuperLink with two nodes, without its network; the wall clock is ours."""

    def __init__(self, factory, monkeypatch):
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        for module in (sql_linkstate, utils, validator, sys.modules["flwr.app.message.message"]):
            monkeypatch.setattr(module, "now", lambda: self.now)
        self.state = factory.state()
        run_id = self.state.create_run(None, None, "9f86d08", {}, NOOP_FEDERATION_ID, None, "", TaskType.SERVER_APP)
        self.keys = [secrets.token_bytes(8), secrets.token_bytes(8)]
        self.nodes = [self.state.create_node("", "", key, HEARTBEAT_S) for key in self.keys]
        for node in self.nodes:
            assert self.state.activate_node(node, HEARTBEAT_S)
        self.grid = InMemoryGrid(factory)
        (run,) = self.state.get_run_info(run_ids=[run_id])
        self.grid.set_run(run)
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, 1, 1

    def close(self):
        for node in self.state.get_nodes(self.grid.run.run_id):
            self.state.delete_node("", node)

    def wait(self, seconds):
        self.now += timedelta(seconds=seconds)

    def take(self, node):
        (message,) = self.state.get_message_ins(node, limit=1)
        return message

    def answer(self, message, content=None, error=None):
        reply = Message(content, reply_to=message) if content is not None else Message(error, reply_to=message)
        reply.metadata.__dict__["_message_id"] = f"reply to {message.metadata.message_id}"
        reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
        return self.state.store_message_res(reply)


@pytest.fixture
def link(factory, monkeypatch):
    link = Link(factory, monkeypatch)
    yield link
    link.close()


@pytest.fixture
def courier(link):
    return Courier(link.grid, Clock().timing())


def send(courier, *, ttl_s=1000.0):
    return {node.identifier: courier.send(node, REQUEST, ttl_s=ttl_s) for node in courier.online_nodes()}


def test_replies_come_back_to_their_letters(link, courier):
    letters = send(courier)
    for node in link.nodes:
        message = link.take(node)
        request, _ = read_request(message.content)
        assert request == REQUEST
        assert link.answer(message, write_request(REQUEST.model_copy(update={"seed": node})))
    for reply in courier.gather(letters, timeout_s=5):
        assert read_request(reply.content)[0].seed == reply.letter.node.identifier


def test_the_coordinator_sees_the_enrolled_keys(link, courier):
    assert {node.identifier: node.public_key for node in courier.online_nodes()} == dict(zip(link.nodes, link.keys, strict=True))


def test_bytes_of_a_secure_phase_come_through_under_their_own_message_type(link, courier):
    question = PhaseRequest(run="r", round=2, attempt="", phase=3)
    node = next(node for node in courier.online_nodes() if node.identifier == link.nodes[0])
    payload = bytes(range(256)) * 100
    letter = courier.post(node, write_phase(question, payload), kind=SECURE_MESSAGE, round=2, ttl_s=60)
    message = link.take(link.nodes[0])
    assert message.metadata.message_type == SECURE_MESSAGE
    assert read_phase_request(message.content) == (question, payload)
    answer = PhaseReply(site="north", run="r", round=2, phase=3)
    assert link.answer(message, write_phase(answer, payload))
    assert read_phase_reply(courier.pull(letter).content) == (answer, payload)


def test_a_reason_code_comes_through(link, courier):
    letters = send(courier)
    link.answer(link.take(link.nodes[0]), error=Error(2, ReasonCode.PAUSED.value))
    assert courier.pull(letters[link.nodes[0]]).code is ReasonCode.PAUSED


def test_a_silent_node_is_offline_after_two_heartbeats_and_answered_for(link, courier):
    letters = send(courier)
    link.take(link.nodes[0])
    link.wait(2 * HEARTBEAT_S - 1)
    link.state.acknowledge_node_heartbeat(link.nodes[1], HEARTBEAT_S)
    assert courier.pull(letters[link.nodes[0]]) is None
    link.wait(2)
    assert courier.pull(letters[link.nodes[0]]).code is ReasonCode.PROCESS
    assert courier.pull(letters[link.nodes[1]]) is None
    assert [node.identifier for node in courier.online_nodes()] == [link.nodes[1]]


def test_a_node_has_the_same_identifier_and_another_activation_when_it_is_back(link, courier):
    before = {node.identifier: node for node in courier.online_nodes()}
    assert not link.state.activate_node(link.nodes[0], HEARTBEAT_S), "an online node cannot be activated twice"
    link.wait(2 * HEARTBEAT_S + 1)
    assert link.state.activate_node(link.nodes[0], HEARTBEAT_S)
    (after,) = courier.online_nodes()
    assert after.identifier == link.nodes[0]
    assert after != before[after.identifier]


def test_a_heartbeat_leaves_the_activation_as_it_is(link, courier):
    before = courier.online_nodes()
    link.wait(HEARTBEAT_S)
    for node in link.nodes:
        link.state.acknowledge_node_heartbeat(node, HEARTBEAT_S)
    assert courier.online_nodes() == before


def test_a_request_whose_time_is_over_is_not_delivered(link, courier):
    letters = send(courier, ttl_s=10)
    link.wait(11)
    assert link.state.get_message_ins(link.nodes[0], limit=1) == []
    assert courier.pull(letters[link.nodes[0]]).code is ReasonCode.DEADLINE


def test_a_node_that_was_removed_refuses_the_message(link, courier):
    node = courier.online_nodes()[0]
    link.state.delete_node("", node.identifier)
    assert courier.pull(courier.send(node, REQUEST, ttl_s=10)).code is ReasonCode.PROCESS
