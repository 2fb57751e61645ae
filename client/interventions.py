"""What a hospital's people do to their own node: pause it, let it take part again, let requests pass a check of the policy.

Each is a line in the audit log that names who did it and why. A pause works even where the log or the node does not.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import Field, ValidationError

from client.audit_line import AuditEntry, AuditKind
from client.audit_log import AuditLog
from client.folder import NodeFolder
from client.policy import POLICY_CODES, Override, Overrides
from client.trainer_channel import TrainerChannel
from gmmas_runtime.files import write_atomic
from gmmas_runtime.keys import load_node_key
from gmmas_schema.base import FrozenModel
from gmmas_schema.errors import ConfigError, FederationError, ReasonCode
from gmmas_schema.site import SiteConfig


class Pause(FrozenModel):
    """Why a site is paused.

    Attributes:
        by: who paused it; empty where nobody said.
        since: when.
        reason: why; empty where nobody said.
    """

    by: str = Field(default="", max_length=64)
    since: datetime | None = None
    reason: str = Field(default="", max_length=300)


def open_audit_log(config: SiteConfig) -> AuditLog:
    """Return a site's audit log, to write to.

    Raises:
        TrustError: the node's key cannot be read.
    """
    return AuditLog(NodeFolder(config.node.state).audit_log, load_node_key(config.node.private_key))


def pause_site(config: SiteConfig, *, by: str, reason: str = "", abandon: bool = False) -> bool:
    """Refuse requests until resume_site(), restarts of the node included; returns whether the node runs now.

    Args:
        config: the site.
        by: who pauses it.
        reason: why; it stays at the site.
        abandon: end the running task instead of holding it.

    Raises:
        TrustError: the audit log does not take the line; the site is paused all the same.
    """
    folder = NodeFolder(config.node.state)
    folder.make()
    pause = Pause(by=by, since=datetime.now(UTC).replace(microsecond=0), reason=reason)
    write_atomic(folder.paused, pause.model_dump_json().encode())
    runs = _tell(folder, lambda trainer: trainer.pause(abandon=abandon))
    open_audit_log(config).append(AuditEntry(kind=AuditKind.PAUSED, reason=reason, by=by))
    return runs


def resume_site(config: SiteConfig, *, by: str) -> bool:
    """Let the site take part again; returns whether the node runs now.

    Raises:
        TrustError: the audit log does not take the line; the site stays paused.
    """
    folder = NodeFolder(config.node.state)
    folder.make()
    open_audit_log(config).append(AuditEntry(kind=AuditKind.RESUMED, by=by))
    folder.paused.unlink(missing_ok=True)
    return _tell(folder, lambda trainer: trainer.resume())


def read_pause(folder: NodeFolder) -> Pause | None:
    """Return why a site is paused, None if it is not."""
    try:
        return Pause.model_validate_json(folder.paused.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError):
        return Pause()


def allow(config: SiteConfig, code: ReasonCode, *, hours: float, reason: str, by: str) -> Override:
    """Let requests pass one check of the policy for some hours.

    Raises:
        ConfigError: the code is not one of the policy's.
        TrustError: the audit log does not take the line; nothing is allowed then.
    """
    if code not in POLICY_CODES:
        raise ConfigError(
            "this is no check of the policy",
            where="gmmas site allow",
            got=code,
            expected=", ".join(sorted(POLICY_CODES)),
            remedy="a pause ends with `gmmas site resume`; for other codes see docs/hospital.md",
        )
    now = datetime.now(UTC).replace(microsecond=0)
    override = Override(code=code, until=now + timedelta(hours=hours), reason=reason, by=by)
    _note_override(config, override)
    path = _overrides_path(config)
    others = [known for known in Overrides.read(path).valid(now).values() if known.code is not code]
    Overrides(given=(*others, override)).write(path)
    return override


def withdraw(config: SiteConfig, *, by: str) -> int:
    """End every override now; returns how many there were."""
    path, now = _overrides_path(config), datetime.now(UTC).replace(microsecond=0)
    valid = Overrides.read(path).valid(now)
    for override in valid.values():
        _note_override(config, override.model_copy(update={"until": now, "reason": "withdrawn", "by": by}))
    Overrides().write(path)
    return len(valid)


def _note_override(config: SiteConfig, override: Override) -> None:
    entry = AuditEntry(
        kind=AuditKind.OVERRIDE, verdict=override.code, reason=override.reason, by=override.by, detail={"until": override.until.isoformat()}
    )
    open_audit_log(config).append(entry)


def _overrides_path(config: SiteConfig) -> Path:
    folder = NodeFolder(config.node.state)
    folder.make()
    return folder.overrides


def _tell(folder: NodeFolder, call: Callable[[TrainerChannel], object]) -> bool:
    """Tell a running trainer; returns whether there is one."""
    if not folder.socket.exists():
        return False
    try:
        with TrainerChannel(folder.socket) as trainer:
            call(trainer)
    except FederationError as error:
        if error.code is not ReasonCode.TRAINER_UNREACHABLE:
            raise
        return False
    return True
