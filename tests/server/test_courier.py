from dataclasses import replace
from itertools import pairwise

import pytest
from flwr.app import Error, Message
from flwr.common.constant import ErrorCode

from gmmas_schema.errors import ReasonCode
from gmmas_schema.messages import Action, TaskRequest
from server.courier import Courier, reason_of
from server.local_grid import LocalGrid
from tests.server.simulated_sites import TINY, Clock, make_grid

REQUEST = TaskRequest(action=Action.TRAIN, run="r", round=4, rounds=9, seed=0, model=TINY)


def echo(message, context):
    return Message(message.content, reply_to=message)


def silent(message, context):
    return None


def send_all(courier, *, ttl_s=100.0):
    return {str(node.identifier): courier.send(node, REQUEST, ttl_s=ttl_s) for node in courier.online_nodes()}


def test_replies_are_matched_to_their_letters():
    seen = []
    courier = Courier(make_grid(echo, echo, echo, watch=seen.append), Clock().timing())
    letters = send_all(courier)
    replies = list(courier.gather(letters, timeout_s=10))
    assert {reply.letter.message_id for reply in replies} == {letter.message_id for letter in letters.values()}
    assert all(reply.content is not None and reply.code is None for reply in replies)
    asked = seen[0]
    assert (asked.metadata.message_type, asked.metadata.group_id, asked.metadata.ttl) == ("train", "4", 100.0)
    assert letters["100"].bytes_down > 0


def test_what_is_missing_by_the_deadline_is_said_so():
    clock = Clock()
    courier = Courier(make_grid(echo, silent), clock.timing())
    replies = {reply.letter.node.identifier: reply for reply in courier.gather(send_all(courier), timeout_s=30)}
    assert replies[100].code is None
    assert (replies[101].content, replies[101].code) == (None, ReasonCode.DEADLINE)
    assert clock.now == pytest.approx(30, abs=1)


def test_looks_get_rarer_the_longer_the_wait():
    looks = []
    clock = Clock()

    class CountingGrid(LocalGrid):
        def pull_messages(self, message_ids):
            looks.append(clock.now)
            return []

    courier = Courier(CountingGrid({1: echo}), clock.timing())
    list(courier.gather(send_all(courier), timeout_s=600))
    pauses = [later - earlier for earlier, later in pairwise(looks)]
    assert pauses[0] == 0.5
    assert max(pauses) == 3.0
    assert len(looks) < 300
    assert clock.now == pytest.approx(600)


def test_a_node_that_died_before_it_answered_is_answered_for():
    clock = Clock()
    grid = make_grid(echo, echo)
    courier = Courier(grid, clock.timing())
    letters = send_all(courier)
    grid.take_offline(101)
    replies = {reply.letter.node.identifier: reply for reply in courier.gather(letters, timeout_s=1000)}
    assert replies[101].code is ReasonCode.PROCESS
    assert clock.now == 0


def test_a_node_that_was_killed_and_is_back_has_lost_its_letter():
    clock = Clock()
    grid = make_grid(echo, silent)
    clock.at[8.0] = lambda: (grid.take_offline(101), grid.bring_online(101))
    courier = Courier(grid, clock.timing())
    replies = {reply.letter.node.identifier: reply for reply in courier.gather(send_all(courier), timeout_s=1000)}
    assert replies[101].code is ReasonCode.PROCESS
    assert clock.now < 20


class RefusingGrid(LocalGrid):
    """A SuperLink that stores no message, as for a node that has just left."""

    def push_messages(self, messages):
        return ["" for _ in messages]


def test_a_refused_message_is_reported_lost_at_once():
    clock = Clock()
    courier = Courier(RefusingGrid({1: echo}), clock.timing())
    (reply,) = courier.gather(send_all(courier), timeout_s=1000)
    assert reply.code is ReasonCode.PROCESS
    assert clock.now == 0


class ForeignGrid(LocalGrid):
    """Answers every question with the reply to another one."""

    def pull_messages(self, message_ids):
        replies = super().pull_messages(message_ids)
        for reply in replies:
            reply.metadata.__dict__["_reply_to_message_id"] = "another"
        return replies


def test_a_reply_to_another_message_is_not_taken():
    courier = Courier(ForeignGrid({1: echo}), Clock().timing())
    (reply,) = courier.gather(send_all(courier), timeout_s=5)
    assert reply.code is ReasonCode.DEADLINE


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, ReasonCode.PAUSED.value), ReasonCode.PAUSED),
        (Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, "KeyError: 'Jane Doe'"), ReasonCode.INTERNAL),
        (Error(ErrorCode.NODE_UNAVAILABLE, "offline"), ReasonCode.PROCESS),
        (Error(ErrorCode.CLIENT_APP_CRASHED, None), ReasonCode.PROCESS),
        (Error(ErrorCode.MESSAGE_UNAVAILABLE, "expired"), ReasonCode.DEADLINE),
        (Error(ErrorCode.REPLY_MESSAGE_UNAVAILABLE, "expired"), ReasonCode.DEADLINE),
        (Error(ErrorCode.INVALID_FAB, ""), ReasonCode.INTERNAL),
    ],
)
def test_only_reason_codes_are_read_from_an_error(error, code):
    assert reason_of(error) is code


def test_without_deadlines_no_reply_is_late():
    clock, calls = Clock(), []

    def slow(message, context):
        calls.append(clock.now)
        return echo(message, context) if clock.now > 1000 else None

    class PatientGrid(LocalGrid):
        def pull_messages(self, message_ids):
            identifiers = list(message_ids)
            waiting = {identifier: self._waiting[identifier] for identifier in identifiers if identifier in self._waiting}
            replies = super().pull_messages(identifiers)
            self._waiting |= {} if replies else waiting
            return replies

    timing = replace(clock.timing(), deadlines=False)
    courier = Courier(PatientGrid({1: slow}), timing)
    (reply,) = courier.gather(send_all(courier), timeout_s=30)
    assert reply.code is None
    assert clock.now > 1000
