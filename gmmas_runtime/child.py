"""Become another program that dies with its supervisor: `python child.py SUPERVISOR_PID PROGRAM [ARGUMENT ...]`.

Linux kills this process (PR_SET_PDEATHSIG, prctl(2)) when the thread that started it is gone, and exec keeps that setting. A small
program of its own, since code between fork and exec of a threaded process (preexec_fn) can deadlock. Standard library only: it
runs isolated, before any environment is set up.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
COMMAND_NOT_RUN = 127


def main(arguments: list[str]) -> int:
    """Bind to the supervisor's life, then exec the program; returns only if that fails."""
    supervisor, program = int(arguments[0]), arguments[1:]
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.stderr.write(f"cannot bind to the supervisor: {os.strerror(ctypes.get_errno())}\n")
        return COMMAND_NOT_RUN
    if os.getppid() != supervisor:  # it died before the line above
        return COMMAND_NOT_RUN
    try:
        os.execvp(program[0], program)  # noqa: S606 - no shell is the point
    except OSError as error:
        sys.stderr.write(f"cannot run {program[0]}: {error.strerror}\n")
    return COMMAND_NOT_RUN


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
