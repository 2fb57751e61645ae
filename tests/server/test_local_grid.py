from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from server.local_grid import LocalGrid


def request(node):
    return Message(RecordDict({"q": ConfigRecord({"x": 1})}), node, "query")


def echo(message, context):
    return Message(message.content, reply_to=message)


def test_a_reply_is_computed_when_it_is_pulled_and_comes_once():
    calls = []
    grid = LocalGrid({5: lambda message, context: calls.append(context.node_id) or echo(message, context)})
    (identifier,) = grid.push_messages([request(5)])
    assert calls == []
    (reply,) = grid.pull_messages([identifier])
    assert calls == [5]
    assert reply.metadata.reply_to_message_id == identifier
    assert reply.metadata.src_node_id == 5
    assert reply.content == RecordDict({"q": ConfigRecord({"x": 1})})
    assert grid.pull_messages([identifier]) == []


def test_an_exception_becomes_an_error_reply():
    def fail(message, context):
        raise RuntimeError("planted")

    (reply,) = LocalGrid({1: fail}).send_and_receive([request(1)])
    assert reply.error.code == ErrorCode.CLIENT_APP_RAISED_EXCEPTION
    assert "planted" in reply.error.reason


def test_a_reply_may_never_come():
    assert LocalGrid({1: lambda message, context: None}).send_and_receive([request(1)]) == []


def test_a_node_that_goes_offline_is_answered_for():
    grid = LocalGrid({1: echo, 2: echo})
    identifiers = grid.push_messages([request(1), request(2)])
    grid.take_offline(2)
    assert grid.get_node_ids() == [1]
    replies = {reply.metadata.reply_to_message_id: reply for reply in grid.pull_messages(identifiers)}
    assert replies[identifiers[0]].has_content()
    assert replies[identifiers[1]].error.code == ErrorCode.NODE_UNAVAILABLE


def test_a_returning_node_has_a_new_activation_and_may_be_another_program():
    grid = LocalGrid({1: echo})
    before = grid.get_nodes()[0].last_activated_at
    grid.take_offline(1)
    grid.bring_online(1, lambda message, context: Message(Error(0, "new"), reply_to=message))
    assert grid.get_nodes()[0].last_activated_at != before
    assert grid.send_and_receive([request(1)])[0].error.reason == "new"


def test_the_watcher_sees_both_ways():
    seen = []
    LocalGrid({1: echo}, watch=seen.append).send_and_receive([request(1)])
    assert [message.metadata.dst_node_id for message in seen] == [1, 1]
    assert [bool(message.metadata.reply_to_message_id) for message in seen] == [False, True]


def test_messages_of_the_grid_name_its_run():
    grid = LocalGrid({1: echo}, run_id=77)
    assert grid.create_message(RecordDict(), "train", 1, "3", ttl=5).metadata.run_id == 77
    assert grid.run.run_id == 77
