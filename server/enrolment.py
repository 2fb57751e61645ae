"""Which hospitals may connect: enrolling a node's public key under the site's name, revoking it, and who is online.

Flower's database is the one list. A key is enrolled once and, once revoked, can never come back (Flower keeps it), so a hospital whose
key was revoked makes a new pair, which is enrolled under the same name. Whom a key belongs to is kept beside it (server.site_register).
"""

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

from gmmas_runtime.enrolment_file import fingerprint_of, is_enrolment_file, key_sha256, openssh_text, read_enrolment
from gmmas_runtime.keys import load_public_key
from gmmas_schema.coordinator import SITE_NAME
from gmmas_schema.enrolment import EnrolledKey, Enrolment
from gmmas_schema.errors import ConfigError, TrustError
from server.control import RefusalError, open_control
from server.folder import CoordinatorFolder
from server.site_register import SiteRegister


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


@dataclass(frozen=True)
class Candidate:
    """A key that asks to be let in.

    Attributes:
        key: the public key.
        name: of the site.
        enrolment: what came with the key; None for a bare .pub file.
        path: the file.
    """

    key: ec.EllipticCurvePublicKey
    name: str
    enrolment: Enrolment | None
    path: Path

    @property
    def fingerprint(self) -> str:
        """What the hospital reads out."""
        return fingerprint_of(key_sha256(self.key))


def read_candidate(path: Path, *, name: str | None = None) -> Candidate:
    """Read the file that a hospital sent: an enrolment file, or a bare .pub file, which needs the name.

    Raises:
        ConfigError: no name, not a site's, or another than the file says.
        TrustError: the file is not to be trusted, or holds no P-384 public key.
    """
    if is_enrolment_file(path):
        enrolment, key = read_enrolment(path)
        if name is not None and name != enrolment.site:
            raise _wrong_name(name, f"'{enrolment.site}', as the enrolment file says", "leave --name out, or ask for another file")
        return Candidate(key, enrolment.site, enrolment, path)
    if name is None or not re.fullmatch(SITE_NAME, name):
        expected = "up to 31 small letters, digits and hyphens, beginning with a letter or digit"
        raise _wrong_name(name or "nothing", expected, "use the value of `site` in the hospital's site.yaml")
    return Candidate(load_public_key(path), name, None, path)


def enrol(folder: Path, public_key: Path, *, name: str | None = None, replace: bool = False) -> NodeStatus:
    """Let a hospital in: enrol the public half of its node key under its name.

    Args:
        folder: the coordinator's folder; its SuperLink must be running.
        public_key: the enrolment file, or the .pub file, that the hospital sent.
        name: the site's name, the same as `site` in its site.yaml; an enrolment file tells it.
        replace: revoke the key that the site has now. Its name, and with it its history, goes on.

    Raises:
        ConfigError: name or key file do not fit.
        TrustError: no P-384 public key, or key or name are enrolled already, or the key was revoked.
        FederationError: the SuperLink does not answer.
    """
    opened = CoordinatorFolder.open(folder)
    candidate = read_candidate(public_key, name=name)
    digest = key_sha256(candidate.key)
    known = list_nodes(folder)
    _refuse_known(known, name=candidate.name, digest=digest, public_key=public_key, replace=replace)
    if replace and any(node.name == candidate.name and node.connection is not Connection.UNREGISTERED for node in known):
        revoke(folder, name=candidate.name)
    pem = candidate.key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        with open_control(opened, purpose="enrol the key", record=f"enrol {candidate.name}") as control:
            made = control.RegisterNode(RegisterNodeRequest(public_key=pem, name=candidate.name))
    except RefusalError as refusal:
        if refusal.reason is ApiErrorCode.PUBLIC_KEY_ALREADY_IN_USE:  # enrolled from another terminal a moment ago
            _refuse_known(list_nodes(folder), name=candidate.name, digest=digest, public_key=public_key, replace=replace)
        raise
    node = next(node for node in list_nodes(folder) if node.node == str(made.node_id))
    SiteRegister(opened).note(candidate.name, _enrolled_key(candidate, node))
    return node


def _enrolled_key(candidate: Candidate, node: NodeStatus) -> EnrolledKey:
    told = candidate.enrolment
    return EnrolledKey(
        public_key=openssh_text(candidate.key),
        key_sha256=node.key_sha256,
        enrolled=node.enrolled,
        contact=told.contact if told is not None else "",
        software=told.software if told is not None else "",
        protocol=told.protocol if told is not None else None,
        signed=told is not None,
    )


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
    with open_control(opened, purpose="revoke the key", record=f"revoke {name}") as control:
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
        key_sha256=key_sha256(key),
        enrolled=datetime.fromisoformat(info.registered_at),
        changed=datetime.fromisoformat(moments[connection]) if moments[connection] else None,
    )


def _wrong_name(got: str, expected: str, remedy: str) -> ConfigError:
    return ConfigError("this is not the site's name", where="--name", got=got, expected=expected, remedy=remedy)


def _refuse_known(known: tuple[NodeStatus, ...], *, name: str, digest: str, public_key: Path, replace: bool) -> None:
    """Refuse a key that was ever enrolled, and a name that is in use and not to be given to another key."""
    for node in known:
        revoked = node.connection is Connection.UNREGISTERED
        if node.key_sha256 == digest:
            state = "revoked" if revoked else "enrolled"
            raise TrustError(
                f"this key was {state} before",
                where=public_key,
                got=f"the key of site '{node.name}', {state} on {node.changed if revoked and node.changed else node.enrolled:%Y-%m-%d}",
                expected="a key that was never enrolled",
                remedy="a revoked key cannot come back: let the hospital make a new one (`gmmas site new-key`) and send the file"
                if revoked
                else "nothing is to be done"
                if node.name == name
                else f"nothing is to be done, or revoke '{node.name}' and let the hospital make a new pair",
            )
        if node.name == name and not revoked and not replace:
            raise TrustError(
                "a site of this name is enrolled with another key",
                where=public_key,
                got=f"a second key for '{name}'",
                expected="one key per site",
                remedy="if the hospital says that it has a new key, add --replace, which revokes the old one; otherwise use another name",
            )
