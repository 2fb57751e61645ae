import os
import subprocess
import sys
from pathlib import Path

from gmmas_runtime import child


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, str(Path(child.__file__)), *arguments], capture_output=True, text=True, check=False)


def test_becomes_the_program() -> None:
    done = run(str(os.getpid()), "/bin/sh", "-c", "echo $0 $1; exit 5", "one", "two")
    assert (done.returncode, done.stdout) == (5, "one two\n")


def test_missing_program_is_named() -> None:
    done = run(str(os.getpid()), "/absent/program")
    assert done.returncode == child.COMMAND_NOT_RUN
    assert "cannot run /absent/program: No such file" in done.stderr


def test_an_orphan_does_not_start() -> None:
    assert run("1", "/bin/sh", "-c", "echo started").stdout == ""
