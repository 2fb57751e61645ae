"""What a piece of work costs this process: wall seconds by stage, and processor seconds of all its threads."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Runs from the moment it is made.

    Attributes:
        seconds: wall seconds by stage; a stage that is entered again adds up.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._processor_start = time.process_time()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    @property
    def cpu_seconds(self) -> float:
        """Processor seconds that this process has used since the start, over all its threads; child processes are not counted."""
        return time.process_time() - self._processor_start

    def restart(self) -> tuple[dict[str, float], float]:
        """Begin anew; returns wall seconds by stage and processor seconds so far."""
        spent = self.seconds, self.cpu_seconds
        self.seconds, self._processor_start = {}, time.process_time()
        return spent
