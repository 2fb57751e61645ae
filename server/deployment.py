"""The coordinator on one machine: making its folder, and the resident processes that serve it.

    superlink   flower-superlink (server.superlink): TLS, node authentication, SQLite, on 127.0.0.1 unless coordinator.yaml says otherwise
    superexec   flower-superexec: starts one flwr-serverapp process per run; with the secret, nobody else can
    dashboard   pages on 127.0.0.1 (server.dashboard), where coordinator.yaml asks for them

Runs survive a restart of either: the database is on disk, and the executor and the nodes come back by themselves.
"""

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml

from gmmas_runtime.files import make_private_folder, write_atomic
from gmmas_runtime.flower import flower_environment, flower_program
from gmmas_runtime.keys import (
    check_private_file,
    check_server_certificate,
    issue_server_certificate,
    load_private_key,
    make_authority,
)
from gmmas_runtime.probe import is_healthy, port_is_free, serves_http
from gmmas_runtime.processes import ProcessSpec
from gmmas_schema.coordinator import DEFAULT_PORT, CoordinatorDeployment
from gmmas_schema.errors import ConfigError, FederationError, GmmasError
from server.enrolment import enrol, list_nodes, online_nodes, revoke
from server.folder import CoordinatorFolder
from server.submission import prepare_run, run_state, stop_run, submit_run

__all__ = [
    "coordinator_processes",
    "enrol",
    "init_coordinator",
    "list_nodes",
    "online_nodes",
    "prepare_run",
    "renew_certificate",
    "revoke",
    "run_state",
    "stop_run",
    "submit_run",
]

LISTEN: Final = {"loopback": "127.0.0.1", "network": "0.0.0.0"}  # noqa: S104 - chosen in coordinator.yaml, never by default
TASK_POLL_S: Final = "1.0"

_YAML: Final = """\
# A coordinator of gmmas-fed. Keys: gmmas_schema.coordinator.CoordinatorDeployment.
{settings}"""


def init_coordinator(
    folder: Path,
    *,
    hosts: Sequence[str] = (),
    port: int = DEFAULT_PORT,
    name: str = "gmmas",
    listen: str = "loopback",
    dashboard_port: int | None = None,
) -> CoordinatorFolder:
    """Make a coordinator's folder: configuration, authority, TLS certificate, secret. All of it appears at once, or nothing.

    Args:
        folder: must not exist, or be empty but for hidden files. An existing one stays, so this user need not own what is above it.
        hosts: names and addresses by which hospitals reach this machine; 127.0.0.1 and localhost are always served.
        port: TCP port.
        name: name of the federation.
        listen: `loopback` or `network`.
        dashboard_port: TCP port of the dashboard on 127.0.0.1; None for no dashboard.

    Raises:
        ConfigError: the folder is in use, or a value is wrong.
    """
    dashboard = None if dashboard_port is None else {"port": dashboard_port}
    settings = {"name": name, "hosts": list(hosts), "port": port, "listen": listen, "dashboard": dashboard}
    config = CoordinatorDeployment.parse(settings, where="gmmas server init")
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(not path.name.startswith(".") for path in folder.iterdir())):
        raise ConfigError(
            "the coordinator's folder is in use",
            where=folder,
            got="a coordinator's folder" if (folder / "coordinator.yaml").exists() else "files of something else",
            expected="no folder, or an empty one",
            remedy="its authority is trusted by every enrolled hospital and is never overwritten: "
            "use the folder as it is (`gmmas server up`), or name another one",
        )
    unfinished = folder / ".unfinished" if folder.exists() else folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    make_private_folder(unfinished)
    draft = CoordinatorFolder(unfinished, config)
    make_authority(draft.authority, name=f"{config.name} federation authority")
    issue_server_certificate(draft.authority, draft.server, hosts=config.hosts)
    write_atomic(draft.secret, secrets.token_bytes(32))
    for private in (draft.flower_home, draft.logs):
        make_private_folder(private)
    text = _YAML.format(settings=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    write_atomic(unfinished / "coordinator.yaml", text.encode())
    if unfinished.parent == folder:
        _move_out(unfinished)
    else:
        unfinished.rename(folder)
    return CoordinatorFolder.open(folder)


def _move_out(unfinished: Path) -> None:
    """Move what was made into the folder around it; last what makes it a coordinator's."""
    for part in sorted(unfinished.iterdir(), key=lambda path: path.name == "coordinator.yaml"):
        part.rename(unfinished.parent / part.name)
    unfinished.rmdir()
    make_private_folder(unfinished.parent)


def renew_certificate(folder: Path, *, hosts: Sequence[str] = ()) -> CoordinatorFolder:
    """Issue a new TLS certificate under the same authority, for the hosts of coordinator.yaml and the further ones given.

    Hospitals notice nothing; the SuperLink uses it from its next start on.

    Raises:
        ConfigError: the folder is none, or a host is not a name.
        TrustError: the authority is missing or damaged.
    """
    opened = CoordinatorFolder.open(folder)
    names = tuple(dict.fromkeys([*opened.config.hosts, *hosts]))
    config = CoordinatorDeployment.parse({**opened.config.model_dump(), "hosts": names}, where="gmmas server renew")
    issue_server_certificate(opened.authority, opened.server, hosts=config.hosts, replace=True)
    text = _YAML.format(settings=yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    write_atomic(opened.path / "coordinator.yaml", text.encode())
    return CoordinatorFolder.open(folder)


def coordinator_processes(folder: Path) -> list[ProcessSpec]:
    """Return the coordinator's processes, in the order of their start, for a gmmas_runtime.processes.Supervisor.

    Raises:
        ConfigError: the folder is none, or coordinator.yaml is wrong.
        TrustError: a key, certificate or secret is missing, damaged, expired or open to others.
        FederationError: the port is taken.
    """
    opened = CoordinatorFolder.open(folder)
    load_private_key(opened.authority / "authority.key")
    issued = check_server_certificate(opened.server, authority_certificate=opened.authority_certificate)
    check_private_file(opened.secret)
    host, port = LISTEN[opened.config.listen], opened.config.port
    if not port_is_free(port, host=host):
        raise _port_taken(opened)
    for private in (opened.path, opened.flower_home, opened.logs):
        make_private_folder(private)
    environment = flower_environment(opened.flower_home)
    # Whoever speaks for another address in X-Forwarded-For must not thereby become local.
    environment["FORWARDED_ALLOW_IPS"] = "127.0.0.1"
    superlink = ProcessSpec(
        "superlink",
        (
            *(flower_python(), "-m", "server.superlink"),
            *("--host", host, "--port", str(port)),
            *("--ssl-certfile", str(issued.certificate_path), "--ssl-keyfile", str(issued.key_path)),
            *("--ssl-ca-certfile", str(opened.authority_certificate)),
            "--enable-supernode-auth",
            *("--database", str(opened.database)),
            *("--isolation", "process", "--superexec-auth-secret-file", str(opened.secret)),
            "--disable-runtime-dependency-installation",
        ),
        environment,
        opened.path,
        opened.logs / "superlink.log",
        ready=lambda: is_healthy(opened.config.local_address, authority_certificate=opened.authority_certificate),
        ready_timeout_s=90.0,
        permanent_exit=lambda _code, tail: _port_taken(opened) if "address already in use" in tail else None,
    )
    superexec = ProcessSpec(
        "superexec",
        (
            flower_program("flower-superexec"),
            *("--runtime-api-address", opened.config.local_address, "--root-certificates", str(opened.authority_certificate)),
            *("--superexec-auth-secret-file", str(opened.secret)),
        ),
        {**environment, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": TASK_POLL_S},
        opened.path,
        opened.logs / "superexec.log",
    )
    return [superlink, superexec, *_dashboard(opened)]


def _dashboard(opened: CoordinatorFolder) -> list[ProcessSpec]:
    """Return the process of the dashboard, if there is to be one."""
    config = opened.config.dashboard
    if config is None:
        return []
    if not port_is_free(config.port):
        raise FederationError(
            "the dashboard's port is taken",
            where=f"127.0.0.1:{config.port}",
            got="another program listens there",
            expected="a free TCP port",
            remedy=f"stop that program, or change `dashboard.port` in {opened.path / 'coordinator.yaml'} (`dashboard: null` for none)",
        )
    return [
        ProcessSpec(
            "dashboard",
            (flower_python(), "-m", "server.dashboard", str(opened.path)),
            flower_environment(opened.flower_home),
            opened.path,
            opened.logs / "dashboard.log",
            ready=lambda: serves_http(config.address),
        )
    ]


def flower_python() -> str:
    """Return the interpreter of Flower's environment, which is ours."""
    return flower_program("python")


def _port_taken(opened: CoordinatorFolder) -> GmmasError:
    return FederationError(
        "the coordinator's port is taken",
        where=f"{LISTEN[opened.config.listen]}:{opened.config.port}",
        got="another program listens there",
        expected="a free TCP port",
        remedy=f"stop that program (this coordinator itself? see `gmmas status --server {opened.path}`), "
        f"or change `port` in {opened.path / 'coordinator.yaml'}; hospitals must then be told",
    )
