"""Is this machine fit to be a node? Every question is asked, and each answer stands for itself: a list of checks, none of which raises."""

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path

import psutil

from client.folder import NodeFolder
from client.preflight import check_coordinator, check_files, check_port
from gmmas_runtime.keys import load_certificate
from gmmas_runtime.probe import look_at_server
from gmmas_runtime.process_state import is_supervised
from gmmas_schema.errors import FederationError, GmmasError
from gmmas_schema.site import SiteConfig

CLOCK_AHEAD_S, CLOCK_BEHIND_S = 5.0, 300.0
"""How far a node's clock may be ahead of and behind the coordinator's: Flower refuses signatures beyond."""

CERTIFICATE_DAYS = 30
DISK_GIB, DISK_GIB_NEEDED = 20.0, 2.0
MEMORY_GIB, MEMORY_GIB_NEEDED = 8.0, 3.0
GIB = 2**30


class CheckState(StrEnum):
    """Outcome of one check."""

    GOOD = "good"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True)
class Check:
    """One answered question: what was asked, what was found, and what to do about it."""

    name: str
    state: CheckState
    found: str
    remedy: str = ""


def check_machine(config: SiteConfig, *, offline: bool = False) -> tuple[Check, ...]:
    """Return the checks of a node's files, machine and connection.

    Args:
        config: the site.
        offline: leave out what needs the coordinator.
    """
    checks = [
        _ask("files", "keys, certificate, data and table are there", lambda: check_files(config)),
        _check_key(config.node.private_key),
        _check_port(config),
        _check_disk(config.node.state),
        _check_memory(),
        _check_processor(config),
        _check_device(config),
        _check_versions(),
        _check_authority(config),
    ]
    if not offline:
        checks += [
            *_check_connection(config),
            _ask("enrolment", "the coordinator knows this site's key", lambda: check_coordinator(config)),
        ]
    return tuple(checks)


def _ask(name: str, found: str, check: Callable[[], None]) -> Check:
    """Return what a check that raises says."""
    try:
        check()
    except GmmasError as error:
        return Check(name, CheckState.BAD, f"{error.what}: {error.got} ({error.where})", error.remedy)
    except OSError as error:
        return Check(name, CheckState.BAD, f"{type(error).__name__}: {error.strerror or ''}", "check the path and its rights")
    return Check(name, CheckState.GOOD, found)


def _check_port(config: SiteConfig) -> Check:
    """Return whether the node's own port is free, or its own."""
    port = config.node.runtime_port
    if is_supervised(NodeFolder(config.node.state).state_file):
        return Check("port", CheckState.GOOD, f"port {port} is this node's, which is running")
    return _ask("port", f"port {port} is free", lambda: check_port(config))


def _check_key(path: Path) -> Check:
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return Check("key rights", CheckState.BAD, "no key", "`gmmas site init` makes one")
    if mode & 0o077:
        return Check("key rights", CheckState.BAD, f"others may read the private key (mode {mode:o})", f"chmod 600 {path}")
    return Check("key rights", CheckState.GOOD, "only this user may read the private key")


def _check_disk(state: Path) -> Check:
    place = next((folder for folder in (state, *state.parents) if folder.exists()), Path("/"))
    if not os.access(place, os.W_OK):
        return Check("disk", CheckState.BAD, "the state folder cannot be written", "mend node.state in site.yaml or the folder's rights")
    return _of_gib(
        "disk", shutil.disk_usage(place).free / GIB, "free for caches and logs", DISK_GIB_NEEDED, DISK_GIB, "free some, or move node.state"
    )


def _check_memory() -> Check:
    remedy = "close other programmes, or ask the coordinator for a smaller grid or batch"
    return _of_gib("memory", psutil.virtual_memory().available / GIB, "available", MEMORY_GIB_NEEDED, MEMORY_GIB, remedy)


def _of_gib(name: str, gib: float, what: str, needed: float, wanted: float, remedy: str) -> Check:
    state = CheckState.BAD if gib < needed else CheckState.WARNING if gib < wanted else CheckState.GOOD
    return Check(name, state, f"{gib:.1f} GiB {what}", "" if state is CheckState.GOOD else f"{remedy}; {wanted:g} GiB are comfortable")


def _check_processor(config: SiteConfig) -> Check:
    cores = os.cpu_count() or 1
    if config.node.threads > cores:
        return Check(
            "processor",
            CheckState.WARNING,
            f"{cores} cores for {config.node.threads} threads",
            "set node.threads in site.yaml to the cores",
        )
    return Check("processor", CheckState.GOOD, f"{cores} cores, {config.node.threads} threads for the trainer")


def _check_device(config: SiteConfig) -> Check:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        return Check("GPU", CheckState.GOOD, f"{torch.cuda.get_device_name()}, {free / GIB:.0f} of {total / GIB:.0f} GiB free")
    if config.node.device == "cuda":
        return Check("GPU", CheckState.BAD, "node.device asks for CUDA and there is none", "install the driver, or set node.device: auto")
    return Check("GPU", CheckState.GOOD, "none: training runs on the processor")


def _check_versions() -> Check:
    return Check("versions", CheckState.GOOD, ", ".join(f"{name} {version(name)}" for name in ("gmmas-fed", "flwr", "torch", "monai")))


def _check_connection(config: SiteConfig) -> list[Check]:
    """Return reachability with its TLS chain, the clock, and the certificate's age."""
    try:
        look = look_at_server(config.coordinator.address, authority_certificate=config.coordinator.root_certificate)
    except GmmasError as error:
        return [Check("coordinator", CheckState.BAD, f"{error.what}: {error.got}", error.remedy)]
    checks = [Check("coordinator", CheckState.GOOD, f"{config.coordinator.address} answers, with a certificate of the authority")]
    ahead = look.clock_ahead_s
    if ahead is None:
        checks.append(Check("clock", CheckState.WARNING, "the coordinator names no time", "run NTP on both sides"))
    elif -CLOCK_BEHIND_S < ahead < CLOCK_AHEAD_S:
        checks.append(Check("clock", CheckState.GOOD, f"within {abs(ahead):.0f} s of the coordinator's"))
    else:
        text = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the coordinator's"
        checks.append(Check("clock", CheckState.BAD, text, "set this machine's clock (NTP)"))
    checks.append(_of_days(look.certificate_days))
    return checks


def certificate_warnings(config: SiteConfig, *, timeout_s: float = 2.0) -> tuple[Check, ...]:
    """Return what is to be done before a certificate expires; nothing where nothing is, or the coordinator does not answer now."""
    checks = [_check_authority(config)]
    try:
        look = look_at_server(config.coordinator.address, authority_certificate=config.coordinator.root_certificate, timeout_s=timeout_s)
        checks.append(_of_days(look.certificate_days))
    except FederationError:
        pass
    except GmmasError as error:
        checks.append(Check("certificate", CheckState.BAD, f"{error.what}: {error.got}", error.remedy))
    return tuple(check for check in checks if check.state is not CheckState.GOOD)


def _of_days(days: float) -> Check:
    state = CheckState.GOOD if days > CERTIFICATE_DAYS else CheckState.WARNING
    remedy = "" if state is CheckState.GOOD else "tell the coordinator, who runs `gmmas server renew`; nothing is to be done here"
    return Check("certificate", state, f"the coordinator's is valid for {days:.0f} more days", remedy)


def _check_authority(config: SiteConfig) -> Check:
    """Return how long the authority that this site trusts is valid."""
    try:
        last = load_certificate(config.coordinator.root_certificate).not_valid_after_utc
    except GmmasError as error:
        return Check("authority", CheckState.BAD, f"{error.what}: {error.got}", error.remedy)
    days = (last - datetime.now(UTC)).days
    if days > CERTIFICATE_DAYS:
        return Check("authority", CheckState.GOOD, f"authority.pem is valid until {last:%Y-%m-%d}")
    remedy = "ask the coordinator for the authority.pem that will follow it, and name it as coordinator.root_certificate"
    return Check("authority", CheckState.WARNING, f"authority.pem expires in {days} days", remedy)
