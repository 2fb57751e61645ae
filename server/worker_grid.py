"""The Grid of this machine with its nodes in worker processes, for simulations of many sites on several cores.

No more messages are at work or answered and not yet pulled than there are workers, and one that waits for the first to be free. So
memory does not grow with the number of nodes, and the coordinator, which folds replies in one by one, sets the pace where it is slower.
"""

import multiprocessing
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Self

from flwr.app import Error, Message
from flwr.common.constant import ErrorCode
from threadpoolctl import threadpool_limits

from gmmas_runtime.worker import begin_worker
from server.local_grid import Client, LocalGrid, answer, identify_process


class WorkerGrid(LocalGrid):
    """A LocalGrid whose clients answer in worker processes. A context: the workers end with it.

    Args:
        clients: the function behind each node, by node identifier; picklable, since it travels to a worker with every message.
        processes: workers.
        names: names that nodes were enrolled under.
        run_id: the Flower run.
    """

    def __init__(self, clients: Mapping[int, Client], *, processes: int, names: Mapping[int, str] | None = None, run_id: int = 1) -> None:
        super().__init__(clients, names=names, run_id=run_id)
        self._processes, self._run_id = processes, run_id
        self._others = multiprocessing.active_children()
        self._pool = self._start_pool()
        self._at_work: dict[str, tuple[Message, Future[Message | None]]] = {}

    def __enter__(self) -> Self:
        """Return the grid."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """End the workers; after an error or an interruption, whatever they are at."""
        if error is not None:
            for worker in multiprocessing.active_children():
                if worker not in self._others:
                    worker.terminate()
        self._pool.shutdown(cancel_futures=True)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Take messages; as many as there are workers for are begun."""
        identifiers = super().push_messages(messages)
        self._begin()
        return identifiers

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return those replies to these messages that are there; a reply is returned once."""
        replies = []
        for identifier in message_ids:
            if identifier in self._at_work and self._at_work[identifier][1].done():
                reply = self._result(*self._at_work.pop(identifier))
                self._begin()
                replies += [reply] if reply is not None else []
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:  # noqa: ARG002
        """Push messages and return all their replies at once."""
        identifiers, replies = self.push_messages(messages), list[Message]()
        while any(identifier in self._waiting or identifier in self._at_work for identifier in identifiers):
            replies += self.pull_messages(identifiers)
            self.sleep(1.0)
        return replies

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until a worker has an answer."""
        futures = [future for _, future in self._at_work.values()]
        if futures:
            wait(futures, timeout=seconds, return_when=FIRST_COMPLETED)
        else:
            time.sleep(seconds)

    def _begin(self) -> None:
        """Hand waiting messages to the workers, oldest first."""
        while self._waiting and len(self._at_work) <= self._processes:
            identifier = next(iter(self._waiting))
            message = self._waiting.pop(identifier)
            self._at_work[identifier] = (message, self._submit(message))

    def _submit(self, message: Message) -> "Future[Message | None]":
        node = message.metadata.dst_node_id
        if node not in self._online:
            gone: Future[Message | None] = Future()
            gone.set_result(Message(Error(ErrorCode.NODE_UNAVAILABLE, "the node is offline"), reply_to=message))
            return gone
        try:
            return self._pool.submit(answer, self._clients[node], message)
        except BrokenProcessPool:
            self._pool.shutdown(wait=False)
            self._pool = self._start_pool()
            return self._pool.submit(answer, self._clients[node], message)

    def _result(self, message: Message, future: "Future[Message | None]") -> Message | None:
        """Return a reply; a worker that died, for want of memory most often, costs the sites it was at work for their answer."""
        try:
            reply = future.result()
        except BrokenProcessPool:
            reply = Message(Error(ErrorCode.CLIENT_APP_CRASHED, "the worker died"), reply_to=message)
        if reply is not None:
            self._watch(reply)
        return reply

    def _start_pool(self) -> ProcessPoolExecutor:
        """Return new workers. They are spawned, not forked: a fork under a running BLAS or display thread may hang."""
        return ProcessPoolExecutor(
            self._processes, mp_context=multiprocessing.get_context("spawn"), initializer=_begin, initargs=(self._run_id,)
        )


def _begin(run_id: int) -> None:
    """Prepare a worker: one thread each for the numerical libraries, since the workers fill the cores."""
    begin_worker()
    identify_process(run_id)
    threadpool_limits(1)
