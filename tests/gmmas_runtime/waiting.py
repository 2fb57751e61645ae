"""Waiting for another process without sleeping longer than needed."""

import threading
import time
from collections.abc import Callable


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 20.0, what: str = "condition") -> None:
    deadline = time.monotonic() + timeout_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, f"{what} not met within {timeout_s} s"
        pause.wait(0.02)
