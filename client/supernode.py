"""flower-supernode at a pace that follows what happens: `python -m client.supernode OPTIONS OF flower-supernode`.

The loop of flwr 1.41 asks the coordinator every 3 s and looks every 0.5 s whether the executor has answered, however long the last message
is ago. Here a pause is a share of the time since the node last had something to do, between a shortest and Flower's own

    pause = clip(share x waited, shortest, Flower's)

so that short rounds do not wait for the clock and a node that has nothing to do for a while asks no more often than Flower's does. Only the
clock that the loop sleeps by is replaced (tests/client/test_supernode.py says what is relied upon); everything else is Flower's.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from flwr.supernode import start_client_internal
from flwr.supernode.cli import flower_supernode

from strategies.object_pulls import retry_soon

IDLE_S: Final = 3.0
"""Flower's pause after an empty answer of the coordinator; any shorter one is a look into this process's own memory."""
SHORTEST_IDLE_S: Final = 0.4
IDLE_SHARE: Final = 0.15
SHORTEST_LOOK_S: Final = 0.05
LOOK_SHARE: Final = 0.05


class Pace:
    """Stands for the module `time` in Flower's loop.

    Args:
        clock: monotonic seconds.
        sleep: waits seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clock, self._sleep = clock, sleep
        self._since, self._is_busy = clock(), False

    def sleep(self, seconds: float) -> None:
        """Pause where Flower would pause for `seconds`."""
        now, is_busy = self._clock(), seconds < IDLE_S
        if is_busy != self._is_busy:
            self._since, self._is_busy = now, is_busy
        shortest, share = (SHORTEST_LOOK_S, LOOK_SHARE) if is_busy else (SHORTEST_IDLE_S, IDLE_SHARE)
        self._sleep(min(seconds, max(shortest, share * (now - self._since))))

    def __getattr__(self, name: str) -> Any:
        """Return anything else of the module `time`."""
        return getattr(time, name)


def main() -> None:
    """Run flower-supernode with this pace."""
    loop: Any = start_client_internal
    loop.time = Pace()
    retry_soon()
    flower_supernode()


if __name__ == "__main__":
    main()
