"""Which replies are there: one question to the SuperLink for all of them, then their contents one after the other.

Grid.pull_messages of flwr 1.41, asked for many messages, holds all their contents at once; asked for each by itself, it costs the SuperLink
about 20 ms of a core at every look for every reply that is missing. Here the question is HttpGrid's own, and each message of the answer is
then fetched by HttpGrid as if it had been the only one. A grid of another kind costs nothing to ask and is asked for one after the other.
"""

import copy
from collections.abc import Iterator, Sequence
from typing import Any

from flwr.app import Message
from flwr.proto.runtime_pb2 import PullAppMessagesRequest, PullAppMessagesResponse
from flwr.serverapp import Grid
from flwr.superlink.grid.http_grid import HttpGrid


def pull_ready(grid: Grid, message_ids: Sequence[str]) -> Iterator[Message]:
    """Yield the replies that are there, each fetched when it is asked for; the caller must drop it before it asks for the next.

    Args:
        grid: the way to the nodes.
        message_ids: of the requests.
    """
    if isinstance(grid, HttpGrid):
        client = grid._runtime_client
        answer = client.PullMessages(PullAppMessagesRequest(message_ids=message_ids))
        for message, tree in zip(answer.messages_list, answer.message_object_trees, strict=True):
            single: Any = copy.copy(grid)
            single._client = _Answered(client, PullAppMessagesResponse(messages_list=[message], message_object_trees=[tree]))
            fetched = list(single.pull_messages([message.metadata.reply_to_message_id]))
            while fetched:
                yield fetched.pop()
        return
    for identifier in message_ids:
        found = list(grid.pull_messages([identifier]))
        while found:
            yield found.pop()


class _Answered:
    """A client of the Runtime API to which the question for messages has been answered already."""

    def __init__(self, client: Any, answer: PullAppMessagesResponse) -> None:
        self._client, self._answer = client, answer

    def PullMessages(self, _: PullAppMessagesRequest) -> PullAppMessagesResponse:  # noqa: N802 - Flower's name
        """Return the answer."""
        return self._answer

    def __getattr__(self, name: str) -> Any:
        """Ask the client anything else."""
        return getattr(self._client, name)
