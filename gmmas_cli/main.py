"""`gmmas`: one command, a group or command per module of this package.

A module is imported when its command runs, so that `gmmas --help` does not wait for PyTorch. A GmmasError is told once, as what, where,
got, expected and remedy, without a traceback; GMMAS_DEBUG=1 shows tracebacks.

Exit codes: 0 done; 1 a fault the user can mend; 2 wrong usage; 70 a fault of ours; 130 interrupted.
"""

import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from types import MappingProxyType
from typing import Any, Final

import click
import typer
import typer.main
from rich.console import Console
from rich.text import Text
from typer import rich_utils
from typer.core import TyperGroup

from gmmas_runtime.flower import quiet_environment
from gmmas_schema.errors import GmmasError

COMMANDS: Final = MappingProxyType(
    {
        "demo": "Run four phantom hospitals and a coordinator on this machine, from nothing to a model.",
        "phantom": "Make synthetic cohorts of glioma MRI.",
        "data": "Look at a cohort on disk, or make one of DICOM studies.",
        "site": "Set up, start, watch, pause and stop the node of one hospital.",
        "server": "Set up and run a coordinator, enrol and revoke hospitals.",
        "run": "Start or resume a federated run and follow it.",
        "simulate": "Run a whole federation on this machine, without a network.",
        "train": "Train without a federation: one cohort, or several pooled.",
        "status": "Show a coordinator, its hospitals and a run.",
        "runs": "Lay runs side by side: configuration, accuracy, cost.",
        "predict": "Segment one case and tell its molecular markers.",
        "evaluate": "Measure a model on a labelled cohort.",
        "significance": "Tell what each sequence contributes to a model's accuracy.",
        "validate": "Let every hospital measure published models on its own patients.",
        "model": "Model cards, signatures, comparison and promotion of published models.",
        "export": "Write a model for other programs: MONAI bundle, ONNX, weights.",
        "portal": "Run the clinical platform: upload, viewer, findings, reports.",
    }
)
"""Commands in the order of the help page; each is in the module of its name."""

FAULT, OUR_FAULT, INTERRUPTED = 1, 70, 130


class CommandGroup(TyperGroup):
    """Knows every command by name and imports a command's module only to run it."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the real command for the first argument."""
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_command(name) if name is not None and name in COMMANDS else command, rest


def load_command(name: str) -> click.Command:
    """Import a command's module and return its command: `app` if it has one, else the function of the module's name."""
    module = import_module(f"gmmas_cli.{name}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer()
        app.command(name)(getattr(module, name))
    command = typer.main.get_command(app)
    command.name = name
    command.params = [parameter for parameter in command.params if parameter.name not in ("install_completion", "show_completion")]
    return command


def make_program() -> CommandGroup:
    """Return the command line."""
    return CommandGroup(
        name="gmmas",
        help="Federated, modality-aware, multi-task learning on glioma MRI. Research use only.",
        commands={name: click.Command(name, help=text, add_help_option=False) for name, text in COMMANDS.items()},
        params=[
            click.Option(["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_print_version, help="Show the version."),
        ],
        context_settings={"help_option_names": ["-h", "--help"]},
        no_args_is_help=True,
        rich_markup_mode="rich",
    )


def run_program(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code; every fault is told on stderr."""
    os.environ.update(quiet_environment())
    debug = os.environ.get("GMMAS_DEBUG", "") not in ("", "0")
    logging.basicConfig(level=logging.INFO if debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        result = make_program().main(args=list(arguments), prog_name="gmmas", standalone_mode=False)
    except click.ClickException as error:
        rich_utils.rich_format_error(error)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except Exception as error:
        if debug:
            raise
        return _tell(error)
    return result if isinstance(result, int) else 0


def main() -> None:
    """Entry point of the program `gmmas`."""
    sys.exit(run_program(sys.argv[1:]))


def explain(error: GmmasError) -> Text:
    """Return an error for the terminal: what, then one line each for where, got, expected and remedy."""
    text = Text.assemble((error.what, "bold red"), (f"  {error.code}", "dim"))
    rows = (("where", error.where), ("got", error.got), ("expected", error.expected), ("remedy", error.remedy))
    for label, value in rows:
        if value:
            text.append(f"\n  {label:<10}", style="cyan").append(value)
    return text


def _tell(error: Exception) -> int:
    """Print an error on stderr and return the exit code it deserves."""
    if isinstance(error, GmmasError):
        shown, code = explain(error), FAULT
    elif isinstance(error, OSError) and error.filename is not None:
        refused = GmmasError("the system refused access to a file", where=error.filename, got=error.strerror or type(error).__name__)
        shown, code = explain(refused), FAULT
    else:
        text = "; please report it together with what GMMAS_DEBUG=1 shows"
        shown, code = Text.assemble(("a fault of gmmas itself", "bold red"), f": {type(error).__name__}: {error}{text}"), OUR_FAULT
    Console(stderr=True).print(shown, soft_wrap=True)
    return code


def _print_version(ctx: click.Context, _option: click.Parameter, value: Any) -> None:
    if value and not ctx.resilient_parsing:
        Console().print(f"gmmas {version('gmmas-fed')}", highlight=False)
        ctx.exit()


if __name__ == "__main__":
    main()
