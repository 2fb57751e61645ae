"""Worker processes that multiprocessing starts: they end with the process that started them, whatever ends it."""

import multiprocessing
import os
import signal
import threading
from functools import cache
from multiprocessing.connection import wait


@cache
def end_with_parent() -> None:
    """See to it, once a process, that a worker does not go on when the process that started it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (wait([parent.sentinel]), os._exit(1)), daemon=True).start()


def begin_worker() -> None:
    """Prepare a worker of a pool: it ends with its parent, and an interrupt from the keyboard is the parent's to handle."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
