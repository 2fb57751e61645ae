"""Which replies are there: one question to the SuperLink for all of them, then their contents one after the other.

Grid.pull_messages of flwr 1.41, asked for many messages, holds all their contents at once; asked for each by itself, it costs the SuperLink
about 20 ms of a core at every look for every reply that is missing. Here the question is HttpGrid's own, and each message of the answer is
then fetched by HttpGrid as if it had been the only one. A grid of another kind costs nothing to ask and is asked for one after the other.

A SuperLink looks at the outside of what a node sends and not inside; HttpGrid takes it apart unseen. So here what stumbles on the way is
that node's fault and no other's, what a reply answers is what the SuperLink says, which has held it against the sender, and a message is
not put together where it would be larger than any can be: an array may name one piece as often as it likes.
"""

import copy
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any, Final

import httpx
from flwr.app import Message, RecordDict
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, ConfirmMessageReceivedResponse, PullObjectRequest, PullObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_object import get_object_head_values_from_object_content
from flwr.superlink.grid.http_grid import HttpGrid

logger = logging.getLogger(__name__)

LARGEST_REPLY_BYTES: Final = 2**31
"""What protobuf could carry, between executor and trainer of a node too."""
_DIVIDER: Final = b"\x00"


def pull_ready(grid: Grid, message_ids: Sequence[str]) -> Iterator[tuple[str, Message | None]]:
    """Yield the replies that are there, each fetched when it is asked for; the caller must drop it before it asks for the next.

    Args:
        grid: the way to the nodes.
        message_ids: of the requests.

    Yields:
        The request that is answered, and the reply: None where what a node sent is no message.
    """
    if isinstance(grid, HttpGrid):
        client = grid._runtime_client
        answer = client.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        for message, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            single: Any = copy.copy(grid)
            single._client = _Answered(client, PullAppMessagesResponse(messages_list=[message], message_object_trees=[tree]))
            fetched = _fetch(single, message.metadata.reply_to_message_id)
            while fetched:
                yield message.metadata.reply_to_message_id, fetched.pop()
        return
    for identifier in message_ids:
        found = list(grid.pull_messages([identifier]))
        while found:
            yield found[-1].metadata.reply_to_message_id, found.pop()


def _fetch(grid: Grid, request: str) -> list[Message | None]:
    """Return the reply to a request; None in its place where it cannot be taken apart."""
    try:
        return [found if _is_whole(found) else None for found in grid.pull_messages([request])]
    except httpx.HTTPError:
        raise
    except Exception as error:  # of whatever kind a node can bring about by the bytes that it sends
        logger.warning("a reply cannot be taken apart (%s)", type(error).__name__)
        return [None]


def _is_whole(found: object) -> bool:
    return isinstance(found, Message) and (found.has_error() or isinstance(found.content, RecordDict))


class _Answered:
    """A client of the Runtime API to which the question for messages has been answered already, with one; keeps count of its size."""

    def __init__(self, client: Any, answer: PullAppMessagesResponse) -> None:
        self._client, self._answer = client, answer
        self._sizes: dict[str, int] = {}
        self._arrays: list[bytes] = []

    def PullMessages(self, _: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802 - Flower's name
        """Return the answer."""
        return self._answer

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:  # noqa: N802
        """Return an object; several threads ask at once."""
        answer: PullObjectResponse = self._client.PullObject(request)
        content = answer.object_content
        self._sizes[request.object_id] = len(content)
        _refuse_beyond(sum(list(self._sizes.values())))
        if content.startswith(b"Array "):
            self._arrays.append(content)
        return answer

    def ConfirmMessageReceived(self, request: ConfirmMessageReceivedRequest) -> ConfirmMessageReceivedResponse:  # noqa: N802
        """Confirm that all objects are here, which HttpGrid does before it puts them together."""
        answer: ConfirmMessageReceivedResponse = self._client.ConfirmMessageReceived(request)
        for content in self._arrays:
            _, pieces, _ = get_object_head_values_from_object_content(content)
            places = json.loads(content.partition(_DIVIDER)[2])["arraychunk_ids"]
            _refuse_beyond(sum(self._sizes[pieces[place]] for place in places))
        return answer

    def __getattr__(self, name: str) -> Any:
        """Ask the client anything else."""
        return getattr(self._client, name)


def _refuse_beyond(size_bytes: int) -> None:
    if size_bytes > LARGEST_REPLY_BYTES:
        raise ValueError("a reply is larger than any can be")
