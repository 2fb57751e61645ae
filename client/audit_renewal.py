"""Putting an audit log aside and beginning another: after a new key, or where the old one was damaged."""

from datetime import UTC, datetime
from pathlib import Path

from client.audit_line import AuditEntry, AuditKind
from client.audit_log import AuditLog
from client.audit_verification import verify_log
from client.folder import NodeFolder
from gmmas_runtime.keys import load_node_key, load_public_key
from gmmas_schema.site import SiteConfig


def renew_log(config: SiteConfig, *, reason: str, by: str, signed_with: Path | None = None) -> Path | None:
    """Begin a new log whose first line tells why, and where the old one ended; returns the old one's folder, None if there was none.

    Args:
        config: the site.
        reason: why.
        by: who begins it.
        signed_with: the public key of the old log; None for today's.

    Raises:
        FederationError: the node is running.
        TrustError: the node's key cannot be read.
    """
    folder, key = NodeFolder(config.node.state), load_node_key(config.node.private_key)
    folder.make()
    with folder.held_by_trainer():
        aside = None
        ended: dict[str, str] = {}
        if folder.audit_log.exists():
            old = verify_log(folder.audit_log, key.public_key() if signed_with is None else load_public_key(signed_with))
            ended = {"good_lines": str(old.lines), "last_good": old.head, "fault": old.fault}
        entry = AuditEntry(kind=AuditKind.RENEWED, reason=reason, by=by, detail=ended)  # what cannot be written moves nothing aside
        if folder.audit_log.exists():
            aside = folder.audit_log.with_name(f"audit-log-until-{datetime.now(UTC):%Y%m%dT%H%M%S}")
            folder.audit_log.rename(aside)
        AuditLog(folder.audit_log, key).append(entry)
    return aside
