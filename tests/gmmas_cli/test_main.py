import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module

import click
import pytest

from gmmas_cli import main as program
from gmmas_cli.main import COMMANDS, FAULT, INTERRUPTED, OUR_FAULT, run_program
from gmmas_schema.errors import DataError, ReasonCode


def test_help_names_every_command_and_imports_none(capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys; from gmmas_cli.main import run_program; run_program(['--help']); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [name for name in COMMANDS if f" {name} " not in done.stdout] == []
    loaded = set(done.stderr.split())
    assert loaded & {"torch", "mlflow", "flwr", "numpy", "monai", "nibabel"} == set()
    assert {name for name in loaded if name.startswith("gmmas_cli.")} == {"gmmas_cli.main"}


def test_every_command_has_its_module_and_its_help() -> None:
    """All in one fresh interpreter, since these modules import all there is."""
    code = "import sys; from gmmas_cli.main import *\nfor name in COMMANDS: print(name, run_program([name, '--help']), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "COLUMNS": "100"})
    lines = [line for line in done.stderr.splitlines() if line.split(" ")[0] in COMMANDS]
    assert lines == [f"{name} 0" for name in COMMANDS]
    assert done.stdout.count("Usage: gmmas ") == len(COMMANDS)
    assert "Folder of one case, with any of its sequences." in done.stdout  # positional arguments are explained too
    assert "--install-completion" not in done.stdout


def test_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["--version"]) == 0
    assert capsys.readouterr().out.startswith("gmmas 0.")


def test_wrong_usage_is_told_with_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["serve"]) == 2
    assert "Did you mean 'server'?" in " ".join(capsys.readouterr().err.split())
    assert run_program(["server", "init", "--port", "many"]) == 2
    assert "'many' is not a valid integer" in capsys.readouterr().err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Put a function in the place of `gmmas status`."""

    def replace(function: Callable[[], object]) -> None:
        monkeypatch.setattr(program, "load_command", lambda name: click.Command(name, callback=function))

    return replace


def raising(error: BaseException) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function


FAULTY = DataError("a scan is broken", where="case 7", got="no voxels", expected="voxels", remedy="scan again", code=ReasonCode.DATA_EMPTY)


def test_an_error_is_told_once_with_all_its_parts(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(FAULTY))
    assert run_program(["status"]) == FAULT
    out, err = capsys.readouterr()
    assert out == ""
    assert [" ".join(line.split()) for line in err.splitlines()] == [
        "a scan is broken E_DATA_EMPTY",
        "where case 7",
        "got no voxels",
        "expected voxels",
        "remedy scan again",
    ]


def test_markup_in_a_message_is_text(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(DataError("odd name", where="/data/[bold]case[/]")))
    run_program(["status"])
    assert "/data/[bold]case[/]" in capsys.readouterr().err


def test_interruption_has_its_own_exit_code(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(KeyboardInterrupt()))
    assert run_program(["status"]) == INTERRUPTED
    assert "Traceback" not in capsys.readouterr().err


def test_a_file_the_system_refuses_is_no_fault_of_ours(command: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(PermissionError(13, "Permission denied", "/root/model")))
    assert run_program(["status"]) == FAULT
    err = capsys.readouterr().err
    assert "/root/model" in err
    assert "Permission denied" in err


def test_our_own_faults_show_a_traceback_only_when_asked(
    command: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(raising(ZeroDivisionError("x / 0")))
    assert run_program(["status"]) == OUR_FAULT
    err = capsys.readouterr().err
    assert "ZeroDivisionError: x / 0" in err
    assert "GMMAS_DEBUG=1" in err
    assert "Traceback" not in err
    monkeypatch.setenv("GMMAS_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        run_program(["status"])


@pytest.mark.parametrize(("returned", "expected"), [(None, 0), (3, 3), ("text", 0)])
def test_what_a_command_returns_is_its_exit_code(command: Callable[..., None], returned: object, expected: int) -> None:
    command(lambda: returned)
    assert run_program(["status"]) == expected


def test_nothing_calls_home(command: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLWR_TELEMETRY_ENABLED", raising=False)
    command(lambda: int(os.environ["FLWR_TELEMETRY_ENABLED"]))
    assert run_program(["status"]) == 0


def test_the_installed_program_is_this_one() -> None:
    assert import_module("gmmas_cli.main").main is program.main
