"""A platform's folder at its first start, and its two processes.

    web      the pages, on 127.0.0.1
    worker   the queue of jobs

Either is started again when it dies; no job is lost.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gmmas_portal.web.accounts import Account, AccountStore, Role
from gmmas_portal.web.audit import AuditTrail
from gmmas_portal.web.cases import CaseStore
from gmmas_portal.web.jobs import JobKind, JobQueue
from gmmas_portal.web.model_copy import adopt_model
from gmmas_portal.web.settings import CONFIG_FILE, PortalConfig, PortalFolder
from gmmas_portal.web.tables import Database
from gmmas_runtime.files import make_private_folder
from gmmas_runtime.probe import port_is_free, serves_http
from gmmas_runtime.processes import ProcessSpec
from gmmas_schema.errors import ConfigError, FederationError

FIRST_ACCOUNTS: Final = (("clinician", Role.CLINICIAN), ("admin", Role.ADMIN))
_LINK_HOURS: Final = 12.0
_WORKER_WAITS_S: Final = (1.0, 30.0)


@dataclass(frozen=True)
class Invitation:
    """A link that signs an account in once."""

    account: Account
    address: str


def prepare_portal(path: Path, *, sample: Path | None = None, **given: Any) -> PortalFolder:
    """Make a platform's folder, or open it and change what is given; copy the model; at the first start add accounts and the sample case.

    Args:
        path: of the folder.
        sample: folder of a case to show as the sample, instead of a phantom made here.
        given: values of PortalConfig that differ from portal.yaml, or from the defaults; None leaves one as it is.

    Raises:
        ConfigError: a first start without a model, or a wrong value.
        ModelError, TrustError: the model cannot be read, or is not signed under the given authority.
    """
    path = path.resolve()
    changed = {key: value for key, value in given.items() if value is not None}
    exists = (path / CONFIG_FILE).is_file()
    if not exists and (not changed.get("model") or (path.is_dir() and any(not entry.name.startswith(".") for entry in path.iterdir()))):
        raise ConfigError(
            "the platform has no model yet" if not changed.get("model") else "the platform's folder is in use",
            where=path,
            got="a first start without --model" if not changed.get("model") else "files of something else",
            expected="a model, and a new or empty folder",
            remedy="gmmas portal --model runs/demo/run/models/best (`gmmas demo` makes that one), or models:/NAME@best with --tracking-uri",
        )
    before = PortalFolder.open(path).config.model_dump(mode="json") if exists else {}
    config = PortalConfig.parse(before | changed, where="gmmas portal", folder=path)
    folder = PortalFolder(path, config) if exists else PortalFolder.make(path, config)
    # Before portal.yaml says so: what is refused changes nothing. Under another authority the model in use has to prove itself anew.
    unproven = bool(config.authority) and folder.authority is None
    if not folder.model_marker.exists() or "model" in changed or config.authority != before.get("authority", "") or unproven:
        adopt_model(folder)
    if exists and config.model_dump(mode="json") != before:
        folder = PortalFolder.make(path, config)
    database = Database(folder.database)
    _add_first_accounts(AccountStore(database), AuditTrail(database))
    cases = CaseStore(database)
    if not cases.cases():
        key = cases.add(created_by=FIRST_ACCOUNTS[0][0], sample=True)
        detail = {"folder": str(sample.resolve())} if sample is not None else {}
        JobQueue(database).add(JobKind.SAMPLE, key, asked_by=FIRST_ACCOUNTS[0][0], detail=detail)
    return folder


def invite(folder: PortalFolder, name: str, *, hours: float = _LINK_HOURS) -> Invitation:
    """Return a link for an account; whoever may write the platform's files needs no other proof.

    Raises:
        TrustError: there is no such account.
    """
    database = Database(folder.database)
    accounts = AccountStore(database)
    account = accounts.account(name)
    ticket = accounts.make_ticket(name, hours=hours)
    AuditTrail(database).note("link made", client="command line", subject=name)
    return Invitation(account, f"{folder.config.address}/welcome?ticket={ticket}")


def invite_newcomers(folder: PortalFolder) -> tuple[Invitation, ...]:
    """Return links for the first accounts, as long as they have no password."""
    names = {name for name, _ in FIRST_ACCOUNTS}
    waiting = [each for each in AccountStore(Database(folder.database)).accounts() if each.name in names and not each.has_password]
    return tuple(invite(folder, account.name) for account in sorted(waiting, key=lambda each: each.role is Role.ADMIN))


def portal_processes(folder: PortalFolder) -> list[ProcessSpec]:
    """Return the processes of a platform.

    Raises:
        FederationError: its port is taken.
    """
    port, address = folder.config.port, folder.config.address
    if not port_is_free(port):
        raise FederationError(
            "the platform's port is taken",
            where=f"127.0.0.1:{port}",
            got="another program listens there",
            expected="a free TCP port",
            remedy="stop that program (this platform itself?), or choose another port with --port",
        )
    make_private_folder(folder.logs)
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true"}

    def spec(name: str, module: str, **options: Any) -> ProcessSpec:
        command = (sys.executable, "-m", module, str(folder.path))
        return ProcessSpec(name, command, environment, folder.path, folder.logs / f"{name}.log", **options)

    return [
        spec("web", "gmmas_portal.web", ready=lambda: serves_http(address)),
        spec("worker", "gmmas_portal.web.worker", back_off_s=_WORKER_WAITS_S),
    ]


def _add_first_accounts(accounts: AccountStore, audit: AuditTrail) -> None:
    if accounts.accounts():
        return
    for name, role in FIRST_ACCOUNTS:
        accounts.add(name, role)
        audit.note("account added", client="first start", subject=name, outcome=role)
