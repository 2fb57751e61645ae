"""Which looks at pages are worth a line in a record: not what a page fetches by itself, nor the same look again within a minute."""

import time
from collections.abc import Hashable
from typing import Final

REPEATED_S: Final = 60.0


class Looks:
    """Remembers who looked at what lately.

    Args:
        most: looks that are remembered; older ones are news again.
    """

    def __init__(self, *, most: int) -> None:
        self._most, self._times = most, dict[tuple[Hashable, str, str], float]()

    def is_news(self, who: Hashable, path: str, outcome: str) -> bool:
        """Return whether a look is to be recorded; if it is, it counts as recorded from now on."""
        look, now = (who, path, outcome), time.monotonic()
        if "/part" in path or now - self._times.get(look, -REPEATED_S) < REPEATED_S:
            return False
        self._times.pop(look, None)
        self._times[look] = now
        while len(self._times) > self._most:
            del self._times[next(iter(self._times))]
        return True
