"""Which hospitals may connect: enrolling a node's public key, revoking it, and who is online.

Flower knows nodes by number; sites.json gives them names. A key is enrolled once and, once revoked, can never come back (Flower keeps
it on its list), so a hospital whose key was revoked makes a new pair.
"""

import hashlib
import re
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from gmmas_runtime.keys import load_public_key
from gmmas_schema.coordinator import SITE_NAME, EnrolledSite, SiteRegister
from gmmas_schema.errors import ConfigError, TrustError
from server.flower_cli import FlowerRefusalError, call_flower
from server.folder import CoordinatorFolder


@dataclass(frozen=True)
class NodeStatus:
    """One node as Flower sees it; `status` is registered (never connected yet), online, offline or unregistered.

    `name` is None for a node that was not enrolled by `gmmas server enrol`; `online_s` counts from its last connection.
    """

    name: str | None
    node: str
    status: str
    online_s: float


def enrol(folder: Path, public_key: Path, *, name: str) -> EnrolledSite:
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
    digest = key_digest(public_key)
    register = opened.read_register()
    _refuse_known(register, name=name, digest=digest, public_key=public_key)
    try:
        answer = call_flower(opened, "supernode", "register", str(public_key.resolve()), "gmmas", "--name", name)
    except FlowerRefusalError as refusal:
        if "already" in refusal.got.lower() or "in use" in refusal.got.lower():
            raise _known_to_flower(public_key, refusal.got) from refusal
        raise
    site = EnrolledSite(name=name, node=str(answer["node-id"]), key_sha256=digest, enrolled=time.time())
    opened.write_register(SiteRegister(sites=(*register.sites, site)))
    return site


def revoke(folder: Path, *, name: str) -> EnrolledSite:
    """Shut a hospital out for good: its key is refused from its next request on.

    Raises:
        TrustError: no such site, or it was revoked before.
        FederationError: the SuperLink does not answer.
    """
    opened = CoordinatorFolder.open(folder)
    register = opened.read_register()
    active = {site.name: site for site in register.active}
    if name not in active:
        known = any(site.name == name for site in register.sites)
        raise TrustError(
            "there is no such site to revoke",
            where=opened.register_file,
            got=f"'{name}', " + ("revoked before" if known else "never enrolled"),
            expected=f"one of: {', '.join(sorted(active)) or '(none enrolled)'}",
            remedy="see `gmmas server sites`",
        )
    call_flower(opened, "supernode", "unregister", active[name].node, "gmmas")
    revoked = active[name].model_copy(update={"revoked": time.time()})
    opened.write_register(SiteRegister(sites=tuple(revoked if site == active[name] else site for site in register.sites)))
    return revoked


def list_nodes(folder: Path) -> tuple[NodeStatus, ...]:
    """Return every node Flower knows, revoked ones included, in the order of enrolment.

    Raises:
        FederationError: the SuperLink does not answer.
    """
    opened = CoordinatorFolder.open(folder)
    names = {site.node: site.name for site in opened.read_register().sites}
    answer = call_flower(opened, "supernode", "list", "gmmas")
    return tuple(
        NodeStatus(names.get(str(node["node-id"])), str(node["node-id"]), str(node["status"]), float(node["online-elapsed"]))
        for node in answer["nodes"]
    )


def online_nodes(folder: Path) -> tuple[str, ...]:
    """Return the names of the sites that are online now (a node without a name: its number)."""
    return tuple(node.name or node.node for node in list_nodes(folder) if node.status == "online")


def key_digest(public_key: Path) -> str:
    """Return the SHA-256 hex digest of a public key (SubjectPublicKeyInfo, DER); refuses what is no P-384 public key."""
    key = load_public_key(public_key)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def _refuse_known(register: SiteRegister, *, name: str, digest: str, public_key: Path) -> None:
    """Refuse a key that was ever enrolled, and a name that is in use."""
    for site in register.sites:
        if site.key_sha256 == digest:
            state, at = ("enrolled", site.enrolled) if site.revoked is None else ("revoked", site.revoked)
            raise TrustError(
                f"this key was {state} before",
                where=public_key,
                got=f"the key of site '{site.name}', {state} on {time.strftime('%Y-%m-%d', time.gmtime(at))}",
                expected="a key that was never enrolled",
                remedy="a revoked key cannot come back: let the hospital make a new pair with `gmmas site init` and send its .pub file"
                if site.revoked is not None
                else "nothing is to be done"
                if site.name == name
                else f"nothing is to be done, or revoke '{site.name}' and let the hospital make a new pair",
            )
    if any(site.name == name for site in register.active):
        raise TrustError(
            "a site of this name is enrolled with another key",
            where=public_key,
            got=f"a second key for '{name}'",
            expected="one key per site",
            remedy=f"if the hospital has lost its key, first run `gmmas server revoke {name}`; otherwise use another name",
        )


def _known_to_flower(public_key: Path, text: str) -> TrustError:
    return TrustError(
        "Flower knows this key already",
        where=public_key,
        got=text,
        expected="a key that was never enrolled",
        remedy="let the hospital make a new pair with `gmmas site init` and send its .pub file",
    )
