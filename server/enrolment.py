"""Which hospitals may connect: enrolling a node's public key under the site's name, revoking it, and who is online.

Flower's database is the one list. A key is enrolled once and, once revoked, can never come back (Flower keeps it), so a hospital whose
key was revoked makes a new pair.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest, UnregisterNodeRequest
from flwr.proto.node_pb2 import NodeInfo
from flwr.supercore.error import ApiErrorCode

from gmmas_runtime.keys import load_public_key
from gmmas_schema.coordinator import SITE_NAME
from gmmas_schema.errors import ConfigError, TrustError
from server.control import RefusalError, open_control
from server.folder import CoordinatorFolder


class Connection(StrEnum):
    """How a node stands, in Flower's words: `registered` has never connected, `unregistered` is revoked for good."""

    REGISTERED = "registered"
    ONLINE = "online"
    OFFLINE = "offline"
    UNREGISTERED = "unregistered"


@dataclass(frozen=True)
class NodeStatus:
    """One enrolled node.

    Attributes:
        name: of its site, as enrolled.
        node: Flower's identifier, decimal.
        connection: how it stands.
        key_sha256: SHA-256 hex digest of its public key (SubjectPublicKeyInfo, DER).
        enrolled: when.
        changed: when it connected (online), left (offline) or was revoked; None if it never connected.
    """

    name: str
    node: str
    connection: Connection
    key_sha256: str
    enrolled: datetime
    changed: datetime | None


def enrol(folder: Path, public_key: Path, *, name: str) -> NodeStatus:
    """Let a hospital in: enrol the public half of its node key under a name.

    Args:
        folder: the coordinator's folder; its SuperLink must be running.
        public_key: the .pub file the hospital sent.
        name: the site's name, the same as `site` in its site.yaml.

    Raises:
        TrustError: no P-384 public key, or key or name are enrolled already, or the key was revoked.
        FederationError: the SuperLink does not answer.
    """
    opened = CoordinatorFolder.open(folder)
    if not re.fullmatch(SITE_NAME, name):
        raise ConfigError(
            "this is not a site name",
            where="--name",
            got=name,
            expected="up to 31 small letters, digits and hyphens, beginning with a letter or digit",
            remedy="use the value of `site` in the hospital's site.yaml",
        )
    key = load_public_key(public_key)
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    known = list_nodes(folder)
    _refuse_known(known, name=name, digest=_digest(key), public_key=public_key)
    try:
        with open_control(opened, purpose="enrol the key") as control:
            made = control.RegisterNode(RegisterNodeRequest(public_key=pem, name=name))
    except RefusalError as refusal:
        if refusal.reason is ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:  # enrolled from another terminal a moment ago
            _refuse_known(list_nodes(folder), name=name, digest=_digest(key), public_key=public_key)
        raise
    return next(node for node in list_nodes(folder) if node.node == str(made.node_id))


def revoke(folder: Path, *, name: str) -> NodeStatus:
    """Shut a hospital out for good: its key is refused from its next request on.

    Raises:
        TrustError: no such site, or it was revoked before.
        FederationError: the SuperLink does not answer.
    """
    opened = CoordinatorFolder.open(folder)
    known = list_nodes(folder)
    active = {node.name: node for node in known if node.connection is not Connection.UNREGISTERED}
    if name not in active:
        raise TrustError(
            "there is no such site to revoke",
            where=opened.path,
            got=f"'{name}', " + ("revoked before" if any(node.name == name for node in known) else "never enrolled"),
            expected=f"one of: {', '.join(sorted(active)) or '(none enrolled)'}",
            remedy="see `gmmas server sites`",
        )
    with open_control(opened, purpose="revoke the key") as control:
        control.UnregisterNode(UnregisterNodeRequest(node_id=int(active[name].node)))
    return next(node for node in list_nodes(folder) if node.node == active[name].node)


def list_nodes(folder: Path) -> tuple[NodeStatus, ...]:
    """Return every node ever enrolled, revoked ones included, in the order of enrolment.

    Raises:
        FederationError: the SuperLink does not answer.
    """
    with open_control(CoordinatorFolder.open(folder), purpose="list the nodes") as control:
        answer = control.ListNodes(ListNodesRequest())
    return tuple(sorted(map(_status, answer.nodes_info), key=lambda node: node.enrolled))


def online_nodes(folder: Path) -> tuple[str, ...]:
    """Return the names of the sites that are online now."""
    return tuple(node.name for node in list_nodes(folder) if node.connection is Connection.ONLINE)


def _status(info: NodeInfo) -> NodeStatus:
    connection = Connection(info.status)
    moments = {
        Connection.REGISTERED: "",
        Connection.ONLINE: info.last_activated_at,
        Connection.OFFLINE: info.last_deactivated_at or info.last_activated_at,
        Connection.UNREGISTERED: info.unregistered_at,
    }
    key = serialization.load_pem_public_key(info.public_key)
    assert isinstance(key, ec.EllipticCurvePublicKey), "Flower takes elliptic-curve keys only"
    return NodeStatus(
        name=info.name or f"node-{info.node_id}",
        node=str(info.node_id),
        connection=connection,
        key_sha256=_digest(key),
        enrolled=datetime.fromisoformat(info.registered_at),
        changed=datetime.fromisoformat(moments[connection]) if moments[connection] else None,
    )


def _digest(key: ec.EllipticCurvePublicKey) -> str:
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _refuse_known(known: tuple[NodeStatus, ...], *, name: str, digest: str, public_key: Path) -> None:
    """Refuse a key that was ever enrolled, and a name that is in use."""
    for node in known:
        revoked = node.connection is Connection.UNREGISTERED
        if node.key_sha256 == digest:
            state = "revoked" if revoked else "enrolled"
            raise TrustError(
                f"this key was {state} before",
                where=public_key,
                got=f"the key of site '{node.name}', {state} on {node.changed if revoked and node.changed else node.enrolled:%Y-%m-%d}",
                expected="a key that was never enrolled",
                remedy="a revoked key cannot come back: let the hospital make a new pair with `gmmas site init` and send its .pub file"
                if revoked
                else "nothing is to be done"
                if node.name == name
                else f"nothing is to be done, or revoke '{node.name}' and let the hospital make a new pair",
            )
        if node.name == name and not revoked:
            raise TrustError(
                "a site of this name is enrolled with another key",
                where=public_key,
                got=f"a second key for '{name}'",
                expected="one key per site",
                remedy=f"if the hospital has lost its key, first run `gmmas server revoke {name}`; otherwise use another name",
            )
