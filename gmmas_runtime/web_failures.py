"""How often somebody may fail to prove who they are."""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

MOST_FAILURES: Final = 10
FAILURES_WITHIN_S: Final = 300.0
MOST_NAMES: Final = 1000


class Failures:
    """Counts failed proofs of identity by the name that was claimed, and refuses more than `most` in FAILURES_WITHIN_S.

    It keeps guessers from costing time; sessions that are open are not held up.
    """

    def __init__(self, *, most: int = MOST_FAILURES, clock: Callable[[], float] = time.monotonic) -> None:
        self.most = most
        self._clock, self._times, self._lock = clock, dict[str, deque[float]](), threading.Lock()

    def wait_s(self, name: str) -> float:
        """Return the seconds until another try; 0 where it may be made now."""
        with self._lock:
            times = self._recent(name)
            return 0.0 if len(times) < self.most else max(0.0, times[0] + FAILURES_WITHIN_S - self._clock())

    def note(self, name: str) -> None:
        """Count a failure."""
        with self._lock:
            times = self._recent(name)
            times.append(self._clock())
            self._times[name] = times
            while len(self._times) > MOST_NAMES:
                del self._times[next(iter(self._times))]

    def _recent(self, name: str) -> deque[float]:
        times = self._times.get(name, deque[float]())
        while times and (len(times) > self.most or times[0] + FAILURES_WITHIN_S <= self._clock()):
            times.popleft()
        return times
