"""Flower's own command line, `flwr`, called for one coordinator: the supported way to its Control API.

Each call is a process of its own (about 1.5 s) with its own FLWR_HOME, and answers in JSON.
"""

import json
import subprocess
from typing import Any, Final

from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_runtime.flower import flower_environment, flower_program
from gmmas_runtime.probe import check_health
from gmmas_schema.errors import FederationError
from server.folder import CoordinatorFolder

CONNECTION: Final = "gmmas"
TIMEOUT_S: Final = 120.0


class FlowerRefusalError(FederationError):
    """Flower's command line answered with an error; `got` is its text."""


def call_flower(folder: CoordinatorFolder, *arguments: str) -> dict[str, Any]:
    """Run `flwr ARGUMENTS --format json` against this coordinator's SuperLink and return its answer.

    Raises:
        FederationError: the SuperLink does not answer.
        TrustError: its certificate is not this folder's.
        FlowerRefusalError: Flower refused; the text is Flower's.
    """
    # A server that is down is the usual fault, and told sooner and better by our own probe.
    check_health(folder.config.local_address, authority_certificate=folder.authority_certificate)
    try:
        done = _run(folder, *arguments, "--format", "json")
    except subprocess.TimeoutExpired as error:
        raise FlowerRefusalError(
            f"`flwr {arguments[0]}` does not end",
            where=folder.path,
            got=f"no answer within {TIMEOUT_S:g} s",
            expected="an answer",
            remedy=f"see {folder.logs / 'superlink.log'}",
        ) from error
    answer = _parse(done.stdout)
    if answer.get("success") is True:
        return answer
    raise FlowerRefusalError(
        f"Flower refused `flwr {' '.join(arguments[:2])}`",
        where=folder.path,
        got=_essence(str(answer.get("error-message") or done.stderr or done.stdout or f"exit code {done.returncode}")),
        expected="success",
        remedy=f"see {folder.logs / 'superlink.log'}",
    )


def read_flower_log(folder: CoordinatorFolder, flower_run: str) -> str:
    """Return what a run's process has printed, as far as Flower kept it; empty where there is nothing or nobody answers."""
    try:
        return _run(folder, "log", flower_run, CONNECTION, "--show").stdout
    except subprocess.TimeoutExpired:
        return ""


def _run(folder: CoordinatorFolder, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `flwr ARGUMENTS` with its own home and connection."""
    _write_connection(folder)
    return subprocess.run(
        [flower_program("flwr"), *arguments],
        env={**flower_environment(folder.operator_home), "COLUMNS": "200"},
        cwd=folder.path,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=TIMEOUT_S,
    )


def _write_connection(folder: CoordinatorFolder) -> None:
    """Write Flower's connection file; JSON strings are TOML strings."""
    make_private_folder(folder.operator_home)
    address, roots = json.dumps(folder.config.local_address), json.dumps(str(folder.authority_certificate))
    text = (
        f"[superlink]\ndefault = {json.dumps(CONNECTION)}\n\n[superlink.{CONNECTION}]\naddress = {address}\nroot-certificates = {roots}\n"
    )
    file = folder.operator_home / "config.toml"
    if not file.exists() or file.read_text() != text:
        write_atomic(file, text.encode())


def _parse(text: str) -> dict[str, Any]:
    """Return the JSON object in Flower's output, which may stand between other lines; empty if there is none."""
    start, end = text.find("{"), text.rfind("}")
    try:
        found = json.loads(text[start : end + 1])
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _essence(text: str) -> str:
    """Return Flower's complaint on one line, without what the command printed before it."""
    line = " ".join(text.split())
    _, code, complaint = line.rpartition("[code: ")
    return f"{code}{complaint}"[:500] if code else line[:500]
