"""flower-supernode at a pace that follows what happens: `python -m client.supernode OPTIONS OF flower-supernode`.

The loop of flwr 1.41 asks the coordinator every 3 s and looks every 0.5 s whether the executor has answered, however long the last message
is ago. Here a pause is a share of the time since the node last had something to do, between a shortest and Flower's own

    pause = clip(share x waited, shortest, Flower's)

so that short rounds do not wait for the clock and a node that has nothing to do for a while asks no more often than Flower's does.

The executor asks five times a second for a task, over TLS. Here its question is held until a message is there with all its objects, or
HOLD_S are over, so that it is told at once and asks seldom. Only the clock that the loop sleeps by, the way to the runtime API and what
becomes of a stopped run's task (client.stopped_runs) are replaced (tests/client/test_supernode.py says what is relied upon).
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from flwr.supernode import fleet_http_connection, start_client_internal
from flwr.supernode import main as runtime_api
from flwr.supernode.cli import flower_supernode
from starlette.types import ASGIApp, Receive, Scope, Send

from client.stopped_runs import StoppedRuns
from strategies.object_pulls import retry_soon
from strategies.torn_connections import bear_torn_connections

logger = logging.getLogger(__name__)

IDLE_S: Final = 3.0
"""Flower's pause after an empty answer of the coordinator; any shorter one is a look into this process's own memory."""
SHORTEST_IDLE_S: Final = 0.4
IDLE_SHARE: Final = 0.15
SHORTEST_LOOK_S: Final = 0.05
LOOK_SHARE: Final = 0.05
ACQUIRE_PATH: Final = "/v1/runtime/acquire-task"
HOLD_S: Final = 2.0
"""An executor that is to stop does so within this time."""
HELD_LOOK_S: Final = 0.03


class Pace:
    """Stands for the module `time` in Flower's loop.

    Args:
        clock: monotonic seconds.
        sleep: waits seconds.
        on_work: called when the loop begins to wait for the executor, which is when a message is there with all its objects.
        on_look: called before every pause of that wait.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        on_work: Callable[[], None] = lambda: None,
        on_look: Callable[[], None] = lambda: None,
    ) -> None:
        self._clock, self._sleep, self._on_work, self._on_look = clock, sleep, on_work, on_look
        self._since, self._is_busy = clock(), False

    def sleep(self, seconds: float) -> None:
        """Pause where Flower would pause for `seconds`."""
        now, is_busy = self._clock(), seconds < IDLE_S
        if is_busy != self._is_busy:
            self._since, self._is_busy = now, is_busy
            if is_busy:
                self._on_work()
        if is_busy:
            self._on_look()
        shortest, share = (SHORTEST_LOOK_S, LOOK_SHARE) if is_busy else (SHORTEST_IDLE_S, IDLE_SHARE)
        self._sleep(min(seconds, max(shortest, share * (now - self._since))))

    def __getattr__(self, name: str) -> Any:
        """Return anything else of the module `time`."""
        return getattr(time, name)


class HeldQuestions:
    """ASGI middleware: holds the question for a task until there is one, or HOLD_S are over.

    Args:
        app: the runtime API.
        work: set when there is a task; taken back by the question that it lets through.
    """

    def __init__(self, app: ASGIApp, *, work: threading.Event) -> None:
        self._app, self._work = app, work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, late if it is that question."""
        if scope["type"] == "http" and scope["path"] == ACQUIRE_PATH:
            end = time.monotonic() + HOLD_S
            while not self._work.is_set() and time.monotonic() < end:
                await asyncio.sleep(HELD_LOOK_S)
            self._work.clear()
        await self._app(scope, receive, send)


def main() -> None:
    """Run flower-supernode with this pace."""
    loop: Any = start_client_internal
    api: Any = runtime_api
    before, work, stopped = api.create_app, threading.Event(), StoppedRuns()

    def create_app(*arguments: Any, **options: Any) -> Any:
        app = before(*arguments, **options)
        app.add_middleware(HeldQuestions, work=work)
        return app

    loop.time, api.create_app = Pace(on_work=work.set, on_look=stopped.look), create_app
    loop._pull_and_store_message = stopped.pulling(loop._pull_and_store_message)
    retry_soon()
    bear_torn_connections(fleet_http_connection)
    try:
        flower_supernode()
    except SystemExit:
        raise
    except BaseException:
        logger.exception("the SuperNode's loop has failed")
    # The loop has ended and was not told to; the thread of the runtime API would keep the process, and nobody would start it again.
    logging.shutdown()
    os._exit(os.EX_TEMPFAIL)


if __name__ == "__main__":
    main()
