"""From site.yaml to the processes of a node, in the order of their start.

    trainer      resident, owns the scans; ready when its health service says SERVING
    supernode    Flower's own at our pace (client.supernode), one outbound TLS connection to the coordinator; ready when it is connected
    executor     resident: the installed client.app only; or Flower's, which runs the bundle the coordinator sends

SuperNode and executor talk over TLS on loopback and prove themselves by a secret; both are made anew in the state folder when missing.
"""

import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Final

from client.app import AUDIT_VARIABLE, KEY_VARIABLE, PEERS_VARIABLE, SEAL_VARIABLE, SOCKET_VARIABLE, STATE_VARIABLE
from client.folder import NodeFolder
from client.preflight import explain_supernode_exit
from client.trainer_channel import TrainerChannel
from gmmas_runtime.files import write_atomic
from gmmas_runtime.flower import flower_environment
from gmmas_runtime.keys import (
    AUTHORITY_CERTIFICATE,
    AUTHORITY_KEY,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    check_server_certificate,
    issue_server_certificate,
    make_authority,
)
from gmmas_runtime.probe import is_healthy
from gmmas_runtime.processes import ProcessSpec
from gmmas_schema.errors import FederationError, TrustError
from gmmas_schema.site import SiteConfig

_PYTHON: Final = (sys.executable, "-P", "-m")
"""-P: nothing is imported from the working folder, only what is installed."""

TRAINER, SUPERNODE, EXECUTOR = "trainer", "supernode", "executor"

COHORT_TIMEOUT_S: Final = 24 * 3600.0
"""Reading and checking thousands of cases takes hours; its progress is shown, so nothing is gained by giving up earlier."""
CONNECT_TIMEOUT_S: Final = 180.0
STILL_ONLINE_BACK_OFF_S: Final = (5.0, 80.0)
"""A SuperNode that was killed is refused until the coordinator has missed two of its heartbeats, 60 s: 5 + 10 + 20 + 40 s outlast that."""
LOG_TAIL_BYTES: Final = 64 * 1024
SECRET_BYTES: Final = 32


def make_specs(config: SiteConfig, *, config_path: Path) -> list[ProcessSpec]:
    """Return the node's processes; makes the state folder, and in it what SuperNode and executor need to trust each other.

    Raises:
        GmmasError: the state folder cannot be made, or its TLS files are damaged.
    """
    folder = NodeFolder(config.node.state)
    folder.make()
    _make_loopback_trust(folder)
    return [
        _trainer(config, folder, config_path.resolve()),
        _supernode(config, folder),
        _resident_executor(config, folder) if config.node.executor == "resident" else _flower_executor(config, folder),
    ]


def _trainer(config: SiteConfig, folder: NodeFolder, config_path: Path) -> ProcessSpec:
    threads = str(config.node.threads)
    return ProcessSpec(
        name=TRAINER,
        argv=(*_PYTHON, "client.trainer", "--config", str(config_path)),
        environment={**_quiet_grpc(), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"},
        folder=folder.root,
        log_file=folder.log(TRAINER),
        ready=lambda: _is_serving(folder.socket),
        ready_timeout_s=COHORT_TIMEOUT_S,
        permanent_exit=lambda exit_code, _: folder.read_fault() if exit_code == os.EX_CONFIG else None,
    )


def _supernode(config: SiteConfig, folder: NodeFolder) -> ProcessSpec:
    return ProcessSpec(
        name=SUPERNODE,
        argv=(
            *(*_PYTHON, "client.supernode"),
            *("--superlink", config.coordinator.address),
            *("--root-certificates", str(config.coordinator.root_certificate)),
            *("--auth-supernode-private-key", str(config.node.private_key)),
            *("--isolation", "process"),
            *("--superexec-auth-secret-file", str(folder.secret)),
            *("--host", "127.0.0.1", "--port", str(config.node.runtime_port)),
            *("--ssl-certfile", str(folder.loopback / SERVER_CERTIFICATE)),
            *("--ssl-keyfile", str(folder.loopback / SERVER_KEY)),
            *("--ssl-ca-certfile", str(folder.loopback / AUTHORITY_CERTIFICATE)),
        ),
        environment=flower_environment(folder.flower),
        folder=folder.root,
        log_file=folder.log(SUPERNODE),
        ready=lambda: _is_connected(config, folder),
        ready_timeout_s=CONNECT_TIMEOUT_S,
        back_off_s=STILL_ONLINE_BACK_OFF_S,
        permanent_exit=lambda exit_code, tail: explain_supernode_exit(exit_code, tail, config),
    )


def _resident_executor(config: SiteConfig, folder: NodeFolder) -> ProcessSpec:
    return ProcessSpec(
        name=EXECUTOR,
        argv=(*_PYTHON, "client.executor", *_runtime_api(config, folder)),
        environment={**flower_environment(folder.flower), **_quiet_grpc(), **_places(config, folder), **_trust(config)},
        folder=folder.root,
        log_file=folder.log(EXECUTOR),
    )


def _flower_executor(config: SiteConfig, folder: NodeFolder) -> ProcessSpec:
    """Flower's own executor; it installs no dependencies unless told to, and never is."""
    variables = {**_places(config, folder), "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2"}
    # It starts flwr-clientapp by name.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    return ProcessSpec(
        name=EXECUTOR,
        argv=(_program("flower-superexec"), *_runtime_api(config, folder)),
        environment={**flower_environment(folder.flower), **_quiet_grpc(), **variables, "PATH": path},
        folder=folder.root,
        log_file=folder.log(EXECUTOR),
    )


def _runtime_api(config: SiteConfig, folder: NodeFolder) -> tuple[str, ...]:
    """Return the arguments by which either executor finds and trusts the SuperNode."""
    return (
        *("--runtime-api-address", f"127.0.0.1:{config.node.runtime_port}"),
        *("--root-certificates", str(folder.loopback / AUTHORITY_CERTIFICATE)),
        *("--superexec-auth-secret-file", str(folder.secret)),
    )


def _places(config: SiteConfig, folder: NodeFolder) -> dict[str, str]:
    """Return what client.app has to know of the node."""
    sealed = {SEAL_VARIABLE: str(config.encryption.key_file.absolute())} if config.encryption is not None else {}
    return {SOCKET_VARIABLE: str(folder.socket), STATE_VARIABLE: str(folder.training), **sealed}


def _trust(config: SiteConfig) -> dict[str, str]:
    """Return where the keys of this node and of its peers lie, for a process that lives long enough to keep the secrets of a round."""
    peers = {PEERS_VARIABLE: str(config.node.peers)} if config.node.peers is not None else {}
    return {KEY_VARIABLE: str(config.node.private_key), AUDIT_VARIABLE: str(NodeFolder(config.node.state).audit_log), **peers}


def _quiet_grpc() -> dict[str, str]:
    return {"GRPC_VERBOSITY": "NONE", "GRPC_ENABLE_FORK_SUPPORT": "0"}


def _program(name: str) -> str:
    """Return the path of a program of Flower's, beside this interpreter."""
    path = shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        raise FederationError(
            f"{name} is not installed",
            where=Path(sys.executable).parent,
            got="no such program",
            expected="the programs of flwr beside the interpreter",
            remedy="install gmmas-fed anew",
        )
    return path


def _make_loopback_trust(folder: NodeFolder) -> None:
    """Make certificate and secret if they are missing; renew what is no longer valid, for nobody but this node uses them."""
    try:
        check_server_certificate(folder.loopback, authority_certificate=folder.loopback / AUTHORITY_CERTIFICATE)
    except TrustError:
        for name in (AUTHORITY_CERTIFICATE, AUTHORITY_KEY, SERVER_CERTIFICATE, SERVER_KEY):
            (folder.loopback / name).unlink(missing_ok=True)
        make_authority(folder.loopback, name="gmmas node loopback")
        issue_server_certificate(folder.loopback, folder.loopback, hosts=["127.0.0.1"])
    if not folder.secret.exists():
        write_atomic(folder.secret, secrets.token_urlsafe(SECRET_BYTES).encode())


def _is_serving(socket: Path) -> bool:
    if not socket.exists():
        return False
    with TrainerChannel(socket) as trainer:
        return trainer.is_ready()


def _is_connected(config: SiteConfig, folder: NodeFolder) -> bool:
    """Tell whether the SuperNode that runs now has been given its identity by the coordinator.

    Its log goes on over restarts; once its own API answers, the last beginning in the log is that of the running process.
    """
    if not is_healthy(f"127.0.0.1:{config.node.runtime_port}", authority_certificate=folder.loopback / AUTHORITY_CERTIFICATE):
        return False
    with folder.log(SUPERNODE).open("rb") as handle:
        handle.seek(max(0, handle.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
        text = handle.read().decode("utf-8", "replace")
    return "SuperNode ID:" in text.rpartition("Starting Flower SuperNode")[2]
