"""A Flower Grid inside one process: no network, no SuperLink, no Ray. For tests and for simulation.

A message is handed to its node's function when its reply is pulled, so that no more than one reply exists at a time, as on the real
Grid when replies are pulled one by one. Messages that wait share the tensors they were sent with. So memory does not grow with the
number of nodes. Errors look as they do on a SuperLink of flwr 1.41: an exception at the node becomes an Error
with code CLIENT_APP_RAISED_EXCEPTION, and a node that went offline is answered for with NODE_UNAVAILABLE.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.constant import NodeStatus
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

Client = Callable[[Message, Context], Message | None]
"""A ClientApp or any function like it; None is a reply that never comes."""

_COORDINATOR_NODE = 1


def identify_process(run_id: int) -> None:
    """Give this process the identity without which Flower makes no messages."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run_id, _COORDINATOR_NODE, 1


class LocalGrid(Grid):
    """Grid over in-process nodes.

    Args:
        clients: the function behind each node, by node identifier; all start online.
        names: names that nodes were enrolled under; a node without one may call itself what it likes.
        keys: public keys (PEM) that nodes were enrolled with; secure aggregation needs them.
        watch: is given every message that is pushed and every reply that is pulled.
        run_id: the Flower run; also set as this process's task identity, which Flower needs to make messages.
    """

    def __init__(
        self,
        clients: Mapping[int, Client],
        *,
        names: Mapping[int, str] | None = None,
        keys: Mapping[int, bytes] | None = None,
        watch: Callable[[Message], None] | None = None,
        run_id: int = 1,
    ) -> None:
        self._clients = dict(clients)
        self._names, self._keys = dict(names or {}), dict(keys or {})
        self._activations = count(1)
        self._online = {node: next(self._activations) for node in self._clients}
        self._waiting: dict[str, Message] = {}
        self._watch = watch or (lambda _: None)
        self._run = Run.create_empty(run_id)
        identify_process(run_id)

    def bring_online(self, node: int, client: Client | None = None) -> None:
        """Connect a node, new or returning, optionally with another function behind it."""
        if client is not None:
            self._clients[node] = client
        self._online[node] = next(self._activations)

    def take_offline(self, node: int) -> None:
        """Disconnect a node; requests it has not answered are answered for it with an error."""
        self._online.pop(node, None)

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._run = run

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    def create_message(self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None) -> Message:
        """Return a new message."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the nodes that are online."""
        return list(self._online)

    def get_nodes(self) -> list[NodeInfo]:
        """Return the nodes that are online, with the moment of their last activation."""
        return [
            NodeInfo(
                node_id=node,
                status=NodeStatus.ONLINE,
                last_activated_at=str(activation),
                name=self._names.get(node, ""),
                public_key=self._keys.get(node, b""),
            )
            for node, activation in self._online.items()
        ]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Take messages; their nodes see them when the replies are pulled."""
        identifiers = []
        for message in messages:
            # A SuperLink names a message by the hash of its content; a thousand messages about one model need not be hashed each.
            identifier = message.metadata.__dict__["_message_id"] = uuid4().hex
            self._waiting[identifier] = message
            self._watch(message)
            identifiers.append(identifier)
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Compute and return the replies to these messages; a reply is returned once."""
        replies = [self._reply(self._waiting.pop(identifier)) for identifier in list(message_ids) if identifier in self._waiting]
        return [reply for reply in replies if reply is not None]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:  # noqa: ARG002
        """Push messages and return all their replies at once; nothing here takes time to arrive."""
        return self.pull_messages(self.push_messages(messages))

    def _reply(self, message: Message) -> Message | None:
        node = message.metadata.dst_node_id
        if node not in self._online:
            reply: Message | None = Message(Error(ErrorCode.NODE_UNAVAILABLE, "the node is offline"), reply_to=message)
        else:
            reply = answer(self._clients[node], message)
        if reply is not None:
            self._watch(reply)
        return reply


def answer(client: Client, message: Message) -> Message | None:
    """Return a client's reply to a message, or the error that the runtime gives in its place if it raises one."""
    node = message.metadata.dst_node_id
    context = Context(run_id=message.metadata.run_id, node_id=node, node_config={}, state=RecordDict(), run_config={})
    try:
        return client(message, context)
    except Exception as error:  # whatever a client raises, the runtime answers for it
        return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, repr(error)), reply_to=message)
