"""Requests out and replies in over a Flower Grid: one message at a time, so that memory does not grow with the number of sites.

What flwr 1.41 gives and what is made of it:
- A reply names its request in `reply_to_message_id`; nothing else tells replies apart.
- A node that stops sending heartbeats (every 30 s) counts as offline after 30 to 60 s; its requests are then answered with
  NODE_UNAVAILABLE, so a killed node costs a round that long and not the whole deadline.
- A node killed and back before anybody looked has forgotten its request. Its `last_activated_at` has changed then, and only then.
- A request whose time to live is over is not delivered any more, so a returning node starts no work for a round that is past.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from flwr.app import Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from gmmas_schema.errors import ReasonCode
from gmmas_schema.messages import TaskRequest
from server.arrivals import pull_ready
from strategies.codec import Parcel, size_bytes, write_request

_RESTART_CHECK_S = 5.0

_FLOWER_CODES = {
    ErrorCode.MESSAGE_UNAVAILABLE: ReasonCode.DEADLINE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: ReasonCode.DEADLINE,
    ErrorCode.NODE_UNAVAILABLE: ReasonCode.PROCESS,
    ErrorCode.CLIENT_APP_CRASHED: ReasonCode.PROCESS,
}


@dataclass(frozen=True)
class Timing:
    """Clock and patience of the coordinator; tests put in their own clock.

    Attributes:
        clock: monotonic seconds.
        sleep: waits seconds.
        shortest_s: first pause between two looks for replies.
        longest_s: longest pause.
        share: a pause is this share of the time waited so far: every look costs the SuperLink about 20 ms of a core for each
            reply that is missing, and a round that takes minutes need not be noticed within half a second.
        deadlines: whether a reply can be late. Off for simulations, whose sites wait for their turn on one machine.
    """

    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    shortest_s: float = 0.5
    longest_s: float = 3.0
    share: float = 0.05
    deadlines: bool = True

    def pause(self, *, since: float, until: float) -> None:
        """Sleep before the next look of a wait that began at `since` and ends at `until`, both on the clock."""
        now = self.clock()
        self.sleep(max(0.0, min(until - now, self.longest_s, max(self.shortest_s, self.share * (now - since)))))


@dataclass(frozen=True)
class Node:
    """A connected Flower node.

    Attributes:
        activation: changes when it comes back after having been away.
        name: the one it was enrolled under.
        public_key: enrolled, PEM; empty where nobody is (a simulation).
    """

    identifier: int
    activation: str
    name: str = ""
    public_key: bytes = b""


@dataclass(frozen=True)
class Letter:
    """A request on its way."""

    node: Node
    message_id: str
    sent_at: float
    bytes_down: int


@dataclass(frozen=True)
class Reply:
    """What came back for a letter: a content, or the reason why there is none."""

    letter: Letter
    content: RecordDict | None
    code: ReasonCode | None = None


class Courier:
    """Sends requests and gathers replies over one Grid."""

    def __init__(self, grid: Grid, timing: Timing) -> None:
        self._grid = grid
        self.timing = timing

    def online_nodes(self) -> tuple[Node, ...]:
        """Return the nodes that are connected, by identifier."""
        return tuple(
            sorted(
                (Node(info.node_id, info.last_activated_at, info.name, info.public_key) for info in self._grid.get_nodes()),
                key=lambda n: n.identifier,
            )
        )

    def send(self, node: Node, request: TaskRequest, parcel: Parcel | None = None, *, ttl_s: float, digest: str = "") -> Letter:
        """Push one request; a parcel that several letters share is uploaded once while the SuperLink still holds it.

        Args:
            node: to whom.
            request: what is asked.
            parcel: the tensors it is about.
            ttl_s: seconds after which the message is not delivered any more.
            digest: names the tensors instead, where the node holds them.
        """
        return self.post(node, write_request(request, parcel, digest=digest), kind=request.action.value, round=request.round, ttl_s=ttl_s)

    def post(self, node: Node, content: RecordDict, *, kind: str, round: int, ttl_s: float) -> Letter:  # noqa: A002 - the field's word
        """Push one message of a Flower message type (`query`, `train`, `evaluate`, with or without an action of ours after a dot)."""
        message = Message(content, node.identifier, kind, ttl=ttl_s, group_id=str(round))
        # No identifier, or an empty one, is how a SuperLink refuses a message (the node has just left): the letter counts as lost.
        identifiers = [identifier for identifier in self._grid.push_messages([message]) if identifier]
        return Letter(node, identifiers[0] if identifiers else "", self.timing.clock(), size_bytes(content))

    def pull(self, letter: Letter) -> Reply | None:
        """Return the reply to a letter, or None while there is none."""
        return next((reply for _, reply in self._look({"": letter})), None)

    def _look(self, waiting: Mapping[str, Letter]) -> Iterator[tuple[str, Reply]]:
        """Yield the replies that are there with the keys of their letters; each must be dropped before the next is asked for."""
        for key in [key for key, letter in waiting.items() if not letter.message_id]:
            yield key, Reply(waiting[key], None, ReasonCode.PROCESS)
        letters = {letter.message_id: (key, letter) for key, letter in waiting.items() if letter.message_id}
        arrived = pull_ready(self._grid, list(letters))
        while letters and (arrival := next(arrived, None)) is not None:
            key, letter = letters.pop(arrival[0], ("", None))
            reply = None if letter is None else _reply(letter, arrival[1])
            del arrival
            if reply is not None:
                yield key, reply
            del reply

    def gather(
        self, letters: Mapping[str, Letter], *, timeout_s: float, again: Callable[[str, Reply], Letter | None] = lambda *_: None
    ) -> Iterator[Reply]:
        """Yield one reply per letter as they come; by the deadline what is missing is yielded with code DEADLINE.

        The caller must drop each reply before it asks for the next one.

        Args:
            letters: what was sent, by any key.
            timeout_s: deadline for all.
            again: is shown each reply that came with its key; where it returns another letter, the reply to that is waited for instead.
        """
        waiting = dict(letters)
        start = self.timing.clock()
        end, next_check = start + (timeout_s if self.timing.deadlines else math.inf), start + _RESTART_CHECK_S
        while waiting:
            for key, reply in self._look(waiting):
                letter = again(key, reply)
                if letter is not None:
                    waiting[key] = letter
                    continue
                del waiting[key]
                yield reply
                del reply
            if waiting and self.timing.clock() >= next_check:
                next_check = self.timing.clock() + _RESTART_CHECK_S
                yield from (Reply(waiting.pop(key), None, ReasonCode.PROCESS) for key in self._restarted(waiting))
            if waiting and self.timing.clock() >= end:
                yield from (Reply(letter, None, ReasonCode.DEADLINE) for letter in waiting.values())
                return
            if waiting:
                self.timing.pause(since=start, until=end)

    def _restarted(self, waiting: Mapping[str, Letter]) -> list[str]:
        """Return the keys of letters whose node was activated anew after they were sent: they are lost."""
        online = {node.identifier: node for node in self.online_nodes()}
        return [key for key, letter in waiting.items() if online.get(letter.node.identifier, letter.node) != letter.node]


def _reply(letter: Letter, message: Message | None) -> Reply:
    if message is None:
        return Reply(letter, None, ReasonCode.PROTOCOL)
    return Reply(letter, None, reason_of(message.error)) if message.has_error() else Reply(letter, message.content)


def reason_of(error: Error) -> ReasonCode:
    """Return the reason code of an error reply; any text that is not one of the codes is dropped unread."""
    if error.reason in set(ReasonCode):
        return ReasonCode(error.reason)
    return _FLOWER_CODES.get(error.code, ReasonCode.INTERNAL)
