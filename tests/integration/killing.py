"""Killing one process of a node."""

import os
import signal
from pathlib import Path

from gmmas_runtime.process_state import live_state


def kill_process(state_file: Path, name: str) -> int:
    """End a supervised process with SIGKILL; returns its pid.

    Args:
        state_file: of its supervisor.
        name: of the process.
    """
    state = live_state(state_file)
    assert state is not None
    pid = next(process.pid for process in state.processes if process.name == name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid
